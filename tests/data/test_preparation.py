"""Tests of prepared texts: content, split, identity, interruption, contamination, the command."""

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
from lab.data import batches, preparation, prepared_files, sources, text_facts
from lab.data.batches import Corpus, Windows
from lab.data.contamination import EvaluationNgrams
from lab.data.vocabulary import SPECIAL
from lab.errors import UserError
from lab.prepare import lines, main
from lab.tasks import embedded

WriteText = Callable[[Path, list[str]], DataConfig]

DOCUMENTS = 150
SPACE = """
question: Which windows does it have?
metric: probe/pos/accuracy
base:
  encoder: {{size: tiny}}
  objective: {{kind: electra}}
  budget: {{kind: tokens, amount: 1e5}}
  data: {data}
"""


WORDS = 400


def word(number: int) -> str:
    return "".join(chr(ord("a") + number // 26**digit % 26) for digit in range(4))


@pytest.fixture(scope="module")
def vocabulary_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a vocabulary in which the word of each document is one token."""
    file = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    file.write_text("\n".join([*SPECIAL, *map(word, range(WORDS))]) + "\n")
    return str(file)


@pytest.fixture(autouse=True)
def few_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Search for 200 evaluation sentences per task only; encoding all of them takes a second."""
    all_texts = embedded.evaluation_texts
    monkeypatch.setattr(embedded, "evaluation_texts", lambda task: all_texts(task)[:200])


def documents(first: int = 0, count: int = DOCUMENTS) -> list[str]:
    """Return documents that repeat one distinct word each, so that a token names its document."""
    return [f"{word(n)} " * (8 + 7 * n % 60) for n in range(first, first + count)]


def write_file(folder: Path, texts: list[str]) -> TextFiles:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "text.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return TextFiles(kind="files", paths=(str(file),))


@pytest.fixture
def write_text(vocabulary_file: str) -> WriteText:
    """Return a function that writes documents to a file and returns the settings to read it."""

    def write(folder: Path, texts: list[str]) -> DataConfig:
        return DataConfig(
            source=write_file(folder, texts),
            tokenizer=WordPieceFile(kind="wordpieces", file=vocabulary_file),
            vocab=len(SPECIAL) + WORDS,
            length=16,
            held_out=0.2,
        )

    return write


def prepare(cache: Path, settings: DataConfig) -> Corpus:
    return batches.open_corpus(preparation.prepare_text(settings, cache))


def prepared_facts(cache: Path, settings: DataConfig) -> dict[str, Any]:
    return prepared_files.read_facts(preparation.prepare_text(settings, cache))


def words_of(corpus: Corpus, windows_NT: Windows) -> list[set[str]]:
    """Return the set of words of each window, with the tokens of a word joined."""
    return [set(corpus.vocabulary.decode(row.tolist()).split()) for row in windows_NT]


def test_windows_never_cross_documents(write_text: WriteText, tmp_path: Path) -> None:
    corpus = prepare(tmp_path / "cache", write_text(tmp_path, documents()))
    for windows_NT in (corpus.train_NT, corpus.held_out_NT):
        assert {len(words) for words in words_of(corpus, windows_NT)} == {1}


def test_held_out_documents_are_not_in_the_training_windows(
    write_text: WriteText, tmp_path: Path
) -> None:
    corpus = prepare(tmp_path / "cache", write_text(tmp_path, documents()))
    train = set[str]().union(*words_of(corpus, corpus.train_NT))
    held_out = set[str]().union(*words_of(corpus, corpus.held_out_NT))
    assert not train & held_out
    assert len(train | held_out) == DOCUMENTS
    assert len(held_out) / DOCUMENTS == pytest.approx(0.2, abs=0.12)


def test_the_tokenizer_is_not_trained_on_held_out_documents(tmp_path: Path) -> None:
    source = write_file(tmp_path, documents(0, 600))
    settings = DataConfig(
        source=source, tokenizer=TrainedTokenizer(), vocab=300, length=16, held_out=0.5
    )
    corpus = prepare(tmp_path / "cache", settings)
    train, held_out = (
        set(" ".join(corpus.vocabulary.decode(row.tolist()) for row in windows_NT).split())
        for windows_NT in (corpus.train_NT, corpus.held_out_NT)
    )
    whole = set(corpus.vocabulary.tokenizer.get_vocab()) & {word(n) for n in range(600)}
    assert whole & train
    assert not whole & (held_out - train)


def test_split_does_not_depend_on_the_order_of_the_documents(
    write_text: WriteText, tmp_path: Path
) -> None:
    corpora = [
        prepare(tmp_path / "cache", write_text(tmp_path / name, texts))
        for name, texts in (("a", documents()), ("b", documents()[::-1]))
    ]
    first, second = (sorted(map(sorted, words_of(c, c.held_out_NT))) for c in corpora)
    assert first == second


def test_a_smaller_share_is_a_subset_of_a_larger_one(write_text: WriteText, tmp_path: Path) -> None:
    settings = write_text(tmp_path, documents())
    less, more = (
        {w for words in words_of(corpus, corpus.train_NT) for w in words}
        for corpus in (
            prepare(tmp_path / "cache", replace(settings, share=share)) for share in (0.4, 0.8)
        )
    )
    assert less < more


def test_duplicate_documents_are_used_once(write_text: WriteText, tmp_path: Path) -> None:
    once = prepared_facts(tmp_path / "a", write_text(tmp_path / "once", documents()))
    twice = prepared_facts(tmp_path / "b", write_text(tmp_path / "twice", documents() * 2))
    assert (once["duplicates"], twice["duplicates"]) == (0, DOCUMENTS)
    for split in ("train", "held_out"):
        assert once[split] == twice[split]


def test_few_documents_leave_at_least_one_in_each_split(
    write_text: WriteText, tmp_path: Path
) -> None:
    settings = write_text(tmp_path, documents(50, 4))
    for share, expected in ((0.01, (3, 1)), (0.99, (1, 3))):
        facts = prepared_facts(tmp_path / "cache", replace(settings, held_out=share))
        assert (facts["train"]["documents"], facts["held_out"]["documents"]) == expected


def test_identity_of_a_text_depends_on_its_content_and_not_on_its_path(
    write_text: WriteText, tmp_path: Path
) -> None:
    settings = [write_text(tmp_path / name, documents()) for name in ("a", "b")]
    folders = {preparation.prepare_text(each, tmp_path / "cache") for each in settings}
    assert len(folders) == 1
    trials = {
        trial.Trial(
            encoder=SIZES["tiny"],
            objective=ElectraConfig(kind="electra"),
            budget=Budget(kind="tokens", amount=1),
            data=each,
        ).fingerprint("text")
        for each in settings
    }
    assert len(trials) == 1
    other = write_text(tmp_path / "a", documents(1))
    assert preparation.prepare_text(other, tmp_path / "cache") not in folders


@pytest.mark.parametrize(
    "other",
    [{"share": 0.5}, {"length": 17}, {"held_out": 0.1}, {"layout": "segments"}],
    ids=lambda x: next(iter(x)),
)
def test_identity_of_a_text_depends_on_its_settings(
    write_text: WriteText, tmp_path: Path, other: dict[str, Any]
) -> None:
    settings = write_text(tmp_path, documents())
    first, second = (
        preparation.prepare_text(each, tmp_path / "cache")
        for each in (settings, replace(settings, **other))
    )
    assert first != second


def test_preparing_a_prepared_text_changes_no_file(write_text: WriteText, tmp_path: Path) -> None:
    settings = write_text(tmp_path, documents())
    folder = preparation.prepare_text(settings, tmp_path / "cache")
    before = {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.iterdir()}
    assert preparation.prepare_text(settings, tmp_path / "cache") == folder
    after = {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.iterdir()}
    assert after == before


def test_two_preparations_write_identical_files(tmp_path: Path) -> None:
    settings = DataConfig(source=EmbeddedText(), share=0.01, vocab=400)
    first, second = (preparation.prepare_text(settings, tmp_path / name) for name in "ab")
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes(), file.name


def test_two_sweeps_can_prepare_the_same_text_at_once(
    write_text: WriteText, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, write = write_text(tmp_path, documents()), preparation._write

    def write_after_another_sweep(*arguments: Any) -> None:
        monkeypatch.setattr(preparation, "_write", write)
        preparation.prepare_text(settings, tmp_path / "cache")  # by the other sweep
        write(*arguments)

    monkeypatch.setattr(preparation, "_write", write_after_another_sweep)
    folder = preparation.prepare_text(settings, tmp_path / "cache")
    assert [file.name for file in (tmp_path / "cache").iterdir()] == [folder.name]
    batches.open_corpus(folder)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("No space left on device")])
def test_interrupted_preparation_leaves_no_files(
    write_text: WriteText, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def interrupt(*_: Any) -> None:
        raise error

    monkeypatch.setattr(preparation, "_check_windows", interrupt)  # called after writing
    with pytest.raises(type(error) if isinstance(error, OSError) else error):  # type: ignore[arg-type]
        preparation.prepare_text(write_text(tmp_path, documents()), tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_the_windows_of_a_mixture_are_sorted_by_part(write_text: WriteText, tmp_path: Path) -> None:
    few, many = (
        write_text(tmp_path / "few", documents(0, 30)),
        write_text(tmp_path / "many", documents()),
    )
    mixture = Mixture(
        kind="mixture",
        parts=tuple(
            MixturePart(weight=weight, source=each.source)  # type: ignore[arg-type]
            for weight, each in ((3.0, few), (1.0, many))
        ),
    )
    settings = replace(few, source=mixture)
    corpus, facts = (
        prepare(tmp_path / "cache", settings),
        prepared_facts(tmp_path / "cache", settings),
    )
    assert [part.weight for part in corpus.parts] == [3, 1]
    assert sum(part.windows for part in corpus.parts) == len(corpus.train_NT)
    assert facts["duplicates"] == 30  # of the second part, which are also in the first
    head = words_of(corpus, corpus.train_NT[: corpus.parts[0].windows])
    assert set[str]().union(*head) <= {word(n) for n in range(30)}
    tail = words_of(corpus, corpus.train_NT[corpus.parts[0].windows :])
    assert not set[str]().union(*tail) & {word(n) for n in range(30)}


def contaminated(tmp_path: Path, write_text: WriteText) -> tuple[DataConfig, list[str]]:
    """Return settings of a text with evaluation sentences in its documents, and the sentences."""
    questions = [text for text in embedded.evaluation_texts("sentiment") if len(text.split()) > 20][
        :40
    ]
    texts = [f"first line of {word(n)}\n{text}\nthe last line" for n, text in enumerate(questions)]
    bert = WordPieceFile(kind="wordpieces", file="bert-uncased")
    return replace(
        write_text(tmp_path, texts + documents(300)), tokenizer=bert, vocab=30_522
    ), questions


def test_contamination_is_reported(write_text: WriteText, tmp_path: Path) -> None:
    dirty, questions = contaminated(tmp_path, write_text)
    facts = prepared_facts(tmp_path / "cache", dirty)
    overlaps = {overlap["task"]: overlap for overlap in facts["overlaps"]}
    clean = prepared_facts(tmp_path / "cache", write_text(tmp_path / "clean", documents()))
    # Overlap is counted in training documents only; some of the questions are held out.
    assert 0.6 * len(questions) < overlaps["sentiment"]["found"] <= len(questions) + 5
    assert [overlap["found"] for overlap in clean["overlaps"]] == [0, 0, 0]


def test_contaminated_lines_can_be_removed(write_text: WriteText, tmp_path: Path) -> None:
    dirty, questions = contaminated(tmp_path, write_text)
    cut = replace(dirty, decontaminate=("sentiment",), length=64)
    corpus, facts = prepare(tmp_path / "cache", cut), prepared_facts(tmp_path / "cache", cut)
    assert 0.6 * len(questions) < facts["train"]["lines_cut"] <= len(questions)
    ngrams = EvaluationNgrams({"sentiment": corpus.vocabulary.encode(questions)})
    ids_T = corpus.train_NT.reshape(-1).astype(np.int64)
    window_T = np.repeat(np.arange(len(corpus.train_NT)), 64)
    assert not ngrams.shared_T(ids_T, window_T).any()
    assert facts["train"]["documents"] > 100  # other documents are kept
    assert [text_facts.is_decontaminated(facts, overlap) for overlap in facts["overlaps"]] == [
        overlap["task"] == "sentiment" for overlap in facts["overlaps"]
    ]
    assert "of sentiment (before these lines were removed)" in text_facts.describe_text(
        preparation.prepare_text(cut, tmp_path / "cache")
    )
    assert "these lines are removed" in "\n".join(lines(facts))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab": 5_000}, "base.data.vocab: 5000 requested, but the tokenizer has 405 tokens"),
        ({"tokenizer": TrainedTokenizer(), "vocab": 5_000}, "5000 requested, but the text yields"),
        ({"share": 1e-9}, "base.data.share: 1e-09 of 150 documents leaves 0"),
        ({"decontaminate": ("nonsense",)}, "nonsense"),
    ],
)
def test_invalid_settings_are_refused_in_one_line(
    write_text: WriteText, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as refused:
        preparation.prepare_text(
            replace(write_text(tmp_path, documents()), **changes), tmp_path / "cache"
        )
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").iterdir())


def test_documents_too_short_for_a_window_are_refused(
    write_text: WriteText, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="make no window of 16 tokens"):
        preparation.prepare_text(
            write_text(tmp_path, [word(1), word(2), word(3)]), tmp_path / "cache"
        )


def test_the_command_prints_the_counts(write_text: WriteText, tmp_path: Path) -> None:
    settings = write_text(tmp_path, [*documents(), documents()[0]])
    facts, corpus = (
        prepared_facts(tmp_path / "cache", settings),
        prepare(tmp_path / "cache", settings),
    )
    printed = "\n".join(lines(facts))
    special = np.isin(corpus.train_NT, [0, 2, 3])
    assert f"tokens:                {int((~special).sum()):,} in windows of 16" in printed
    assert f"padded share:        {(corpus.train_NT == 0).mean():.2%}" in printed
    assert "duplicates dropped:  1\n" in printed


def test_the_command_prepares_once_and_prints_the_counts_again(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_file(tmp_path, documents(0, 600))
    monkeypatch.chdir(tmp_path)
    data = "{source: {kind: files, paths: ['*.jsonl']}, vocab: 300, held_out: 0.2}"
    Path("mine.yaml").write_text(SPACE.format(data=data))
    assert main(["mine.yaml"]) == 0
    first = capsys.readouterr().out
    assert main(["mine.yaml"]) == 0
    second = capsys.readouterr().out
    assert "documents:             600" in second
    assert first.endswith(second.removeprefix("mine: preparing its text\n"))
    assert len(list((tmp_path / "runs/cache").glob("text-*"))) == 1


def test_the_command_prints_an_error_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = "{source: {kind: files, paths: [missing.txt]}}"
    Path("mine.yaml").write_text(SPACE.format(data=data))
    assert main(["mine.yaml"]) == 2
    assert "base.data.source.paths: no file matches 'missing.txt'" in capsys.readouterr().err


def test_the_example_of_the_readme_is_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (ROOT / "README.md").read_text()
    space = readme.partition("<<'END'\n")[2].partition("END\n")[0]
    (tmp_path / "texts" / "deep").mkdir(parents=True)
    texts = list(islice(sources.SourceReader(EmbeddedText(), "refuse").documents(), 120))
    for number, half in enumerate((texts[::2], texts[1::2])):
        (tmp_path / "texts" / ("deep" * number) / f"{number}.txt").write_text(
            "\n\n".join(half).replace("\2", "")
        )
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(space)
    assert main(["mine.yaml"]) == 0
    assert "in windows of 16 (full)" in capsys.readouterr().out
