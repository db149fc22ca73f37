"""Prepared text: what is in it, what is not, where it lies, and what interrupts it."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from project import ROOT

from lab.config import trial
from lab.config.architecture import SIZES
from lab.config.budget import Budget
from lab.config.data import (
    DataConfig,
    EmbeddedText,
    Mixture,
    MixturePart,
    TextFiles,
    TrainedTokenizer,
    WordPieceFile,
)
from lab.config.objectives.electra import ElectraConfig
from lab.data import batches, preparation, sources
from lab.data.batches import Corpus, Windows
from lab.data.contamination import EvaluationNgrams
from lab.data.vocabulary import SPECIAL
from lab.errors import UserError
from lab.prepare import lines, main
from lab.tasks import embedded

Written = Callable[[Path, list[str]], DataConfig]

DOCUMENTS = 150
SPACE = """
question: What is in it?
metric: probe/pos/accuracy
base:
  encoder: {{size: tiny}}
  objective: {{kind: electra}}
  budget: {{kind: tokens, amount: 1e5}}
  data: {data}
"""


WORDS = 400


def word(number: int) -> str:
    return "".join(chr(ord("a") + number // 26**place % 26) for place in range(4))


@pytest.fixture(scope="module")
def vocabulary_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a vocabulary in which each document's word is one token, and others are unknown."""
    file = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    file.write_text("\n".join([*SPECIAL, *map(word, range(WORDS))]) + "\n")
    return str(file)


@pytest.fixture(autouse=True)
def few_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for copies of a few evaluation sentences; all of them take a second to encode."""
    every = embedded.evaluation_texts
    monkeypatch.setattr(embedded, "evaluation_texts", lambda task: every(task)[:200])


def documents(first: int = 0, count: int = DOCUMENTS) -> list[str]:
    """Return documents that each repeat one word of their own, so that tokens tell documents."""
    return [f"{word(n)} " * (8 + 7 * n % 60) for n in range(first, first + count)]


def in_file(folder: Path, texts: list[str]) -> TextFiles:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "text.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return TextFiles(kind="files", paths=(str(file),))


@pytest.fixture
def written(vocabulary_file: str) -> Written:
    def write(folder: Path, texts: list[str]) -> DataConfig:
        return DataConfig(
            source=in_file(folder, texts),
            tokenizer=WordPieceFile(kind="wordpieces", file=vocabulary_file),
            vocab=len(SPECIAL) + WORDS,
            length=16,
            held_out=0.2,
        )

    return write


def prepared(cache: Path, asked: DataConfig) -> Corpus:
    return batches.open_corpus(preparation.prepare_text(asked, cache))


def facts(cache: Path, asked: DataConfig) -> dict[str, Any]:
    return preparation.read_facts(preparation.prepare_text(asked, cache))


def words_of(corpus: Corpus, windows_NT: Windows) -> list[set[str]]:
    """Return the different words of each window; tokens of one word joined again."""
    return [set(corpus.vocabulary.decode(row.tolist()).split()) for row in windows_NT]


def test_windows_never_cross_documents(written: Written, tmp_path: Path) -> None:
    corpus = prepared(tmp_path / "cache", written(tmp_path, documents()))
    for windows_NT in (corpus.train_NT, corpus.held_out_NT):
        assert {len(words) for words in words_of(corpus, windows_NT)} == {1}


def test_held_out_documents_are_never_learnt_from(written: Written, tmp_path: Path) -> None:
    corpus = prepared(tmp_path / "cache", written(tmp_path, documents()))
    train = set[str]().union(*words_of(corpus, corpus.train_NT))
    held_out = set[str]().union(*words_of(corpus, corpus.held_out_NT))
    assert not train & held_out
    assert len(train | held_out) == DOCUMENTS
    assert len(held_out) / DOCUMENTS == pytest.approx(0.2, abs=0.12)


def test_the_tokenizer_does_not_learn_from_what_is_held_out(tmp_path: Path) -> None:
    source = in_file(tmp_path, documents(0, 600))
    asked = DataConfig(
        source=source, tokenizer=TrainedTokenizer(), vocab=300, length=16, held_out=0.5
    )
    corpus = prepared(tmp_path / "cache", asked)
    train, held_out = (
        set(" ".join(corpus.vocabulary.decode(row.tolist()) for row in windows_NT).split())
        for windows_NT in (corpus.train_NT, corpus.held_out_NT)
    )
    whole = set(corpus.vocabulary.tokenizer.get_vocab()) & {word(n) for n in range(600)}
    assert whole & train
    assert not whole & (held_out - train)


def test_split_survives_another_order_of_the_documents(written: Written, tmp_path: Path) -> None:
    found = [
        prepared(tmp_path / "cache", written(tmp_path / name, texts))
        for name, texts in (("a", documents()), ("b", documents()[::-1]))
    ]
    first, second = (sorted(map(sorted, words_of(c, c.held_out_NT))) for c in found)
    assert first == second


def test_smaller_share_is_a_part_of_a_larger_one(written: Written, tmp_path: Path) -> None:
    asked = written(tmp_path, documents())
    less, more = (
        {w for words in words_of(corpus, corpus.train_NT) for w in words}
        for corpus in (
            prepared(tmp_path / "cache", replace(asked, share=share)) for share in (0.4, 0.8)
        )
    )
    assert less < more


def test_a_text_that_stands_there_twice_is_read_once_and_in_one_split(
    written: Written, tmp_path: Path
) -> None:
    once = facts(tmp_path / "a", written(tmp_path / "once", documents()))
    twice = facts(tmp_path / "b", written(tmp_path / "twice", documents() * 2))
    assert (once["duplicates"], twice["duplicates"]) == (0, DOCUMENTS)
    for split in ("train", "held_out"):
        assert once[split] == twice[split]


def test_few_documents_still_leave_one_to_hold_out(written: Written, tmp_path: Path) -> None:
    found = facts(tmp_path / "cache", replace(written(tmp_path, documents(50, 4)), held_out=0.01))
    assert (found["train"]["documents"], found["held_out"]["documents"]) == (3, 1)
    found = facts(tmp_path / "cache", replace(written(tmp_path, documents(50, 4)), held_out=0.99))
    assert (found["train"]["documents"], found["held_out"]["documents"]) == (1, 3)


def test_text_is_named_by_its_content_and_not_by_where_it_lies(
    written: Written, tmp_path: Path
) -> None:
    asked = [written(tmp_path / name, documents()) for name in ("a", "b")]
    folders = {preparation.prepare_text(each, tmp_path / "cache") for each in asked}
    assert len(folders) == 1
    trials = {
        trial.Trial(
            encoder=SIZES["tiny"],
            objective=ElectraConfig(kind="electra"),
            budget=Budget(kind="tokens", amount=1),
            data=each,
        ).fingerprint("text")
        for each in asked
    }
    assert len(trials) == 1
    other = written(tmp_path / "a", documents(1))
    assert preparation.prepare_text(other, tmp_path / "cache") not in folders


@pytest.mark.parametrize(
    "other",
    [{"share": 0.5}, {"length": 17}, {"held_out": 0.1}, {"layout": "segments"}],
    ids=lambda x: next(iter(x)),
)
def test_text_is_named_by_its_settings_too(
    written: Written, tmp_path: Path, other: dict[str, Any]
) -> None:
    asked = written(tmp_path, documents())
    first, second = (
        preparation.prepare_text(each, tmp_path / "cache")
        for each in (asked, replace(asked, **other))
    )
    assert first != second


def test_preparing_again_changes_nothing(written: Written, tmp_path: Path) -> None:
    asked = written(tmp_path, documents())
    folder = preparation.prepare_text(asked, tmp_path / "cache")
    before = {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.iterdir()}
    assert preparation.prepare_text(asked, tmp_path / "cache") == folder
    after = {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.iterdir()}
    assert after == before


def test_prepared_text_is_the_same_wherever_it_is_prepared(tmp_path: Path) -> None:
    asked = DataConfig(source=EmbeddedText(), share=0.01, vocab=400)
    first, second = (preparation.prepare_text(asked, tmp_path / name) for name in "ab")
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes(), file.name


def test_two_may_prepare_at_once(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, write = written(tmp_path, documents()), preparation._write

    def overtaken(*arguments: Any) -> None:
        monkeypatch.setattr(preparation, "_write", write)
        preparation.prepare_text(
            asked, tmp_path / "cache"
        )  # another sweep begins and ends meanwhile
        write(*arguments)

    monkeypatch.setattr(preparation, "_write", overtaken)
    folder = preparation.prepare_text(asked, tmp_path / "cache")
    assert [file.name for file in (tmp_path / "cache").iterdir()] == [folder.name]
    batches.open_corpus(folder)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("No space left on device")])
def test_interrupted_preparation_leaves_nothing(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def interrupted(*_: Any) -> None:
        raise error

    monkeypatch.setattr(preparation, "_check", interrupted)  # all windows have been written
    with pytest.raises(type(error) if isinstance(error, OSError) else error):  # type: ignore[arg-type]
        preparation.prepare_text(written(tmp_path, documents()), tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_mixture_keeps_its_parts_apart(written: Written, tmp_path: Path) -> None:
    few, many = written(tmp_path / "few", documents(0, 30)), written(tmp_path / "many", documents())
    mixture = Mixture(
        kind="mixture",
        parts=tuple(
            MixturePart(weight=weight, source=each.source)  # type: ignore[arg-type]
            for weight, each in ((3.0, few), (1.0, many))
        ),
    )
    asked = replace(few, source=mixture)
    corpus, found = prepared(tmp_path / "cache", asked), facts(tmp_path / "cache", asked)
    assert [part.weight for part in corpus.parts] == [3, 1]
    assert sum(part.windows for part in corpus.parts) == len(corpus.train_NT)
    assert found["duplicates"] == 30  # of the second part: they stand in the first
    head = words_of(corpus, corpus.train_NT[: corpus.parts[0].windows])
    assert set[str]().union(*head) <= {word(n) for n in range(30)}
    tail = words_of(corpus, corpus.train_NT[corpus.parts[0].windows :])
    assert not set[str]().union(*tail) & {word(n) for n in range(30)}


def contaminated(tmp_path: Path, written: Written) -> tuple[DataConfig, list[str]]:
    """Return text with some evaluation sentences in the middle of its documents."""
    asked = [text for text in embedded.evaluation_texts("sentiment") if len(text.split()) > 20][:40]
    texts = [f"first line of {word(n)}\n{text}\nthe last line" for n, text in enumerate(asked)]
    bert = WordPieceFile(kind="wordpieces", file="bert-uncased")
    return replace(written(tmp_path, texts + documents(300)), tokenizer=bert, vocab=30_522), asked


def test_contamination_is_reported(written: Written, tmp_path: Path) -> None:
    dirty, asked = contaminated(tmp_path, written)
    found = {overlap["task"]: overlap for overlap in facts(tmp_path / "cache", dirty)["overlaps"]}
    clean = facts(tmp_path / "cache", written(tmp_path / "clean", documents()))
    assert 0.6 * len(asked) < found["sentiment"]["found"] <= len(asked) + 5  # some are held out
    assert [overlap["found"] for overlap in clean["overlaps"]] == [0, 0]


def test_contamination_can_be_cut_out(written: Written, tmp_path: Path) -> None:
    dirty, asked = contaminated(tmp_path, written)
    cut = replace(dirty, decontaminate=("sentiment",), length=64)
    corpus, found = prepared(tmp_path / "cache", cut), facts(tmp_path / "cache", cut)
    assert 0.6 * len(asked) < found["train"]["lines_cut"] <= len(asked)
    questions = EvaluationNgrams({"sentiment": corpus.vocabulary.encode(asked)})
    ids_T = corpus.train_NT.reshape(-1).astype(np.int64)
    window_T = np.repeat(np.arange(len(corpus.train_NT)), 64)
    assert not questions.shared_T(ids_T, window_T).any()
    assert found["train"]["documents"] > 100  # what is no question stays


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"vocab": 5_000}, "data.vocab: 5000 asked for, and there are 405; write 405"),
        ({"tokenizer": TrainedTokenizer(), "vocab": 5_000}, "5000 asked for, and the text yields"),
        ({"share": 1e-9}, "0 of 150 documents are left"),
        ({"decontaminate": ("nonsense",)}, "nonsense"),
    ],
)
def test_what_cannot_be_had_is_one_line(
    written: Written, tmp_path: Path, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as said:
        preparation.prepare_text(
            replace(written(tmp_path, documents()), **asked), tmp_path / "cache"
        )
    assert "\n" not in str(said.value)
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").iterdir())


def test_documents_too_short_for_a_window_are_refused(written: Written, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="make no window of 16 tokens"):
        preparation.prepare_text(written(tmp_path, ["ab cd", "ef gh", "ij kl"]), tmp_path / "cache")


def test_what_is_told_is_what_was_counted(written: Written, tmp_path: Path) -> None:
    asked = written(tmp_path, [*documents(), documents()[0]])
    found, corpus = facts(tmp_path / "cache", asked), prepared(tmp_path / "cache", asked)
    told = "\n".join(lines(asked, found))
    special = np.isin(corpus.train_NT, [0, 2, 3])
    assert f"tokens:                {int((~special).sum()):,} in windows of 16" in told
    assert f"padded share:        {(corpus.train_NT == 0).mean():.2%}" in told
    assert "duplicates dropped:  1\n" in told


def test_the_command_prepares_what_a_sweep_would_and_says_so_again(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_file(tmp_path, documents(0, 600))
    monkeypatch.chdir(tmp_path)
    asked = "{source: {kind: files, paths: ['*.jsonl']}, vocab: 300, held_out: 0.2}"
    Path("mine.yaml").write_text(SPACE.format(data=asked))
    assert main(["mine.yaml"]) == 0
    first = capsys.readouterr().out
    assert main(["mine.yaml"]) == 0
    second = capsys.readouterr().out
    assert "documents:             600" in second
    assert first.endswith(second.removeprefix("mine: preparing its text\n"))
    assert len(list((tmp_path / "runs/cache").glob("text-*"))) == 1


def test_the_command_refuses_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = "{source: {kind: files, paths: [missing.txt]}}"
    Path("mine.yaml").write_text(SPACE.format(data=asked))
    assert main(["mine.yaml"]) == 2
    assert "data.source.paths: no file matches 'missing.txt'" in capsys.readouterr().err


def test_the_readmes_own_data_is_prepared_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (ROOT / "README.md").read_text()
    written = readme.partition("<<'END'\n")[2].partition("END\n")[0]
    (tmp_path / "texts" / "deep").mkdir(parents=True)
    carried = list(islice(sources.SourceReader(EmbeddedText(), "refuse").documents(), 120))
    for number, texts in enumerate((carried[::2], carried[1::2])):
        (tmp_path / "texts" / ("deep" * number) / f"{number}.txt").write_text(
            "\n\n".join(texts).replace("\2", "")
        )
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(written)
    assert main(["mine.yaml"]) == 0
    assert "in windows of 16 (full)" in capsys.readouterr().out
