"""Input that once ended in a traceback, or was refused with advice that could not be followed."""

import json
from pathlib import Path

import pytest
from project import ROOT

from lab import finetune
from lab.config.data import PretrainedTokenizer, TrainedTokenizer, WordPieceFile
from lab.data import tokenizers
from lab.data.vocabulary import open_vocabulary
from lab.errors import UserError
from lab.interop.trained import open_trained
from lab.loading import search_space
from lab.loading.error_messages import SpaceError
from lab.loading.task_table import load_task
from lab.storage.record import read_facts
from lab.tasks import examples

SMOKE = ROOT / "search_spaces" / "smoke.yaml"


def nothing() -> list[str]:
    return []


@pytest.mark.parametrize("file", ["a\0b", "~nobody-of-that-name/vocab.txt", "x" * 5_000])
def test_vocabulary_that_no_path_leads_to_is_refused(file: str) -> None:
    with pytest.raises(UserError, match=r"data\.tokenizer\.file: ") as refused:
        tokenizers.build_vocabulary(WordPieceFile(kind="wordpieces", file=file), 512, nothing)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["[1]", "{", "null", '{"a": 1}'])
def test_folder_that_is_no_tokenizer_is_refused(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=f"data.tokenizer.name: {tmp_path}: .") as refused:
        tokenizers.tokenizer_identity(PretrainedTokenizer(kind="transformers", name=str(tmp_path)))
    assert "\n" not in str(refused.value)


def test_text_too_small_for_any_vocabulary_is_not_told_to_take_a_smaller_one() -> None:
    with pytest.raises(UserError, match="the minimum is 300; use more text"):
        tokenizers.build_vocabulary(TrainedTokenizer(), 512, lambda: ["a b", "c d"])


def test_damaged_vocabulary_of_a_prepared_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "special.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(UserError, match=f"{tmp_path}: damaged vocabulary"):
        open_vocabulary(tmp_path)


@pytest.mark.parametrize("content", ["[1]", "{", "{}", '{"text": 3}', "\0"])
def test_damaged_record_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "trial.json").write_text(content)
    assert isinstance(read_facts(tmp_path), dict)
    with pytest.raises(UserError, match=r"trial.json: not as this version of the lab writes it"):
        open_trained(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("form", "row"),
    [
        ("classification", {"text": "\ud800", "label": 1}),
        ("classification", {"text": "a", "label": "\ud800"}),
        ("tagging", {"words": ["a", "\udfff"], "tags": ["X", "Y"]}),
        ("tagging", {"words": "a \udfff", "tags": "X Y"}),
        ("regression", {"text": "a", "label": 10**400}),
    ],
)
def test_row_that_nothing_can_read_is_named(tmp_path: Path, form: str, row: object) -> None:
    (tmp_path / "it.jsonl").write_text(json.dumps(row))
    (tmp_path / "it.yaml").write_text(f"kind: {form}\ntrain: it.jsonl\nevaluation: it.jsonl\n")
    task = load_task(str(tmp_path / "it.yaml"))
    with pytest.raises(UserError, match=r"it.jsonl:1: (text|label|words): ") as refused:
        examples.read_examples(task)
    str(refused.value).encode()  # it can be printed


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        (
            "base.data.source={kind: mixture, parts: [{weight: 1, source: {kind: embedded}}]}",
            "base.data.source.parts: needs at least 2 values",
        ),
        (
            "base.init_from={kind: trial, name: f}",
            "base.init_from.name: needs at least 4 characters",
        ),
    ],
)
def test_too_few_are_told_how_many_it_takes(setting: str, wanted: str) -> None:
    with pytest.raises(SpaceError, match=wanted):
        search_space.load_experiment(SMOKE, (setting,))


def test_fine_tuning_that_the_disk_refuses_ends_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finetune.main(["x" * 5_000, "sentiment", "--storage", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
