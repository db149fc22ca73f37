"""Regression tests: invalid input that caused a traceback, or an error message of no help."""

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
from lab.loading import search_space, yaml_text
from lab.loading.error_messages import SpaceError
from lab.loading.task_table import load_task
from lab.storage.record import read_facts
from lab.tasks import examples

SMOKE = ROOT / "search_spaces" / "smoke.yaml"


def no_documents() -> list[str]:
    return []


@pytest.mark.parametrize("file", ["a\0b", "~nobody-of-that-name/vocab.txt", "x" * 5_000])
def test_vocabulary_at_an_invalid_path_is_rejected(file: str) -> None:
    with pytest.raises(UserError, match=r"data\.tokenizer\.file: ") as caught:
        tokenizers.build_vocabulary(WordPieceFile(kind="wordpieces", file=file), 512, no_documents)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["[1]", "{", "null", '{"a": 1}'])
def test_folder_without_a_valid_tokenizer_is_rejected(
    tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=f"base.data.tokenizer.name: {tmp_path}: .") as caught:
        tokenizers.tokenizer_identity(PretrainedTokenizer(kind="transformers", name=str(tmp_path)))
    assert "\n" not in str(caught.value)


def test_text_too_small_for_the_smallest_vocabulary_is_rejected_with_advice() -> None:
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
    with pytest.raises(UserError, match=r"trial.json: (damaged: |not as this version of the lab)"):
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
def test_row_with_unrepresentable_values_is_named(tmp_path: Path, form: str, row: object) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    (tmp_path / "own.yaml").write_text(f"kind: {form}\ntrain: rows.jsonl\nevaluation: rows.jsonl\n")
    task = load_task(str(tmp_path / "own.yaml"))
    with pytest.raises(UserError, match=r"rows.jsonl:1: (text|label|words): ") as caught:
        examples.read_examples(task)
    str(caught.value).encode()  # the message can be printed


@pytest.mark.parametrize(
    ("setting", "message"),
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
def test_message_about_too_few_values_has_the_required_number(setting: str, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        search_space.load_experiment(SMOKE, (setting,))


@pytest.mark.reported
def test_name_that_no_file_can_have_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finetune.main(["x" * 5_000, "sentiment", "--storage", str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith("xxx…: file name too long\n")


def nested_aliases(template: str, levels: int, copies: int) -> str:
    lines = ["level0: &level0 {a: 1}"]
    for level in range(1, levels):
        aliases = ", ".join(f"*level{level - 1}" for _ in range(copies))
        lines.append(f"level{level}: &level{level} {template.format(aliases)}")
    return "\n".join(lines)


@pytest.mark.reported
@pytest.mark.parametrize("template", ["[{}]", "{{<<: [{}]}}", "{{a: [{}]}}"])
def test_aliases_that_multiply_are_refused_before_they_are_expanded(template: str) -> None:
    """Nine copies of nine copies, ten levels: 3.5e9 values in 700 characters."""
    with pytest.raises(SpaceError, match=r"^line \d+: its aliases stand for more than 100,000"):
        yaml_text.parse(nested_aliases(template, 10, 9))
    assert yaml_text.parse(nested_aliases(template, 4, 9))


@pytest.mark.reported
def test_an_alias_that_contains_itself_is_refused() -> None:
    with pytest.raises(SpaceError, match=r"^line 1: contains itself through an alias"):
        yaml_text.parse("a: &a [*a]")


def test_name_that_a_report_of_several_sweeps_could_have_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "narrow+wide.yaml"
    file.write_bytes(SMOKE.read_bytes())
    with pytest.raises(SpaceError, match=r"cannot contain '\+', .* rename it to narrow_wide\.yaml"):
        search_space.load_experiment(file)
