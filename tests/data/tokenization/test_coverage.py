"""Tests of the loss of text in unknown tokens: measured by characters, refused, warned about."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hard_texts
import pytest

from lab.config.data import (
    ByteLevelTokenizer,
    DataConfig,
    Mixture,
    MixturePart,
    TextFiles,
    TrainedTokenizer,
    WordPieceFile,
)
from lab.data import batches, preparation, prepared_files, text_facts
from lab.data.tokenization.coverage import MOST_LOST, coverage_warnings, measure_coverage
from lab.data.tokenizers import BERT, build_vocabulary
from lab.data.vocabulary import UNK
from lab.errors import UserError
from lab.prepare import lines
from lab.tasks import embedded

BERT_SETTINGS = WordPieceFile(kind="wordpieces", file=BERT)
ENGLISH = hard_texts.documents(hard_texts.words(hard_texts.LATIN, 300))


@pytest.fixture(autouse=True)
def few_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Search for 20 evaluation sentences per task only; encoding all of them takes a second."""
    all_texts = embedded.evaluation_texts
    monkeypatch.setattr(embedded, "evaluation_texts", lambda task: all_texts(task)[:20])


def written(folder: Path, texts: Sequence[str], name: str = "text") -> TextFiles:
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return TextFiles(kind="files", paths=(str(file),))


def prepare(folder: Path, data: DataConfig) -> Path:
    return preparation.prepare_text(data, folder / "cache")


def refusal(folder: Path, data: DataConfig) -> str:
    with pytest.raises(UserError) as error:
        prepare(folder, data)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.reported
def test_unknown_tokens_are_counted_by_characters() -> None:
    """One token stands for a word of any length, so tokens alone hide what is lost."""
    text = f"{'a b c d ' * 50}{'x' * 600}"
    vocabulary = build_vocabulary(
        TrainedTokenizer(), 100, lambda: [*ENGLISH, *["a b c d x y z"] * 20]
    )
    assert (vocabulary.encode([text])[0] == UNK).mean() < 0.01
    measured = measure_coverage(vocabulary, [text])
    assert (measured.characters, measured.unknown, measured.overlong) == (800, 600, 600)
    assert measured.lost == pytest.approx(0.75)
    spelled = measure_coverage(vocabulary, ["a b c d \N{SNOWMAN}"])
    assert (spelled.characters, spelled.unknown, spelled.overlong) == (5, 1, 0)


@pytest.mark.reported
@pytest.mark.parametrize("make", [hard_texts.proteins, hard_texts.thai])
def test_words_over_the_limit_are_refused_with_the_limit_and_the_options(
    tmp_path: Path, make: Any
) -> None:
    # A fifth of the documents is English, so that a vocabulary can be learned.
    source = written(tmp_path, [*make(), *ENGLISH[:24]])
    settings = TrainedTokenizer(accents="keep")
    message = refusal(tmp_path, DataConfig(source=source, tokenizer=settings, vocab=300))
    assert message.startswith("base.data.tokenizer: ")
    named = ("100 characters", f"{MOST_LOST:.0%}", "byte_level", "longest_word", "word segmenter")
    for part in named:
        assert part in message


def test_text_without_any_short_word_is_refused_in_one_line(tmp_path: Path) -> None:
    source = written(tmp_path, hard_texts.proteins())
    message = refusal(tmp_path, DataConfig(source=source, vocab=300))
    assert "more than 100 characters" in message
    assert "byte_level" in message


def test_the_part_of_a_mixture_that_is_lost_is_refused(tmp_path: Path) -> None:
    parts = tuple(
        MixturePart(weight=weight, source=written(tmp_path, texts, name))
        for weight, texts, name in [(99, ENGLISH, "english"), (1, hard_texts.proteins(), "protein")]
    )
    source = Mixture(kind="mixture", parts=parts)
    message = refusal(tmp_path, DataConfig(source=source, vocab=300))
    assert "base.data.source.parts.1" in message


@pytest.mark.reported
def test_a_longer_limit_of_words_loses_less() -> None:
    texts = ["".join(pair) for pair in zip(hard_texts.proteins(60), ENGLISH[:60], strict=True)]
    lost = []
    for longest in (100, 300, 1_000):
        settings = TrainedTokenizer(longest_word=longest)
        vocabulary = build_vocabulary(settings, 120, lambda: [*texts, *ENGLISH])
        measured = measure_coverage(vocabulary, texts)
        assert measured.limit == longest
        lost.append(measured.lost)
    assert lost[0] > lost[1] > lost[2] == 0


@pytest.mark.reported
@pytest.mark.parametrize(
    "texts",
    [
        hard_texts.proteins(),
        hard_texts.thai(),
        hard_texts.documents(hard_texts.words(hard_texts.HANGUL, 300)),
        hard_texts.documents(hard_texts.words(hard_texts.HINDI, 300)),
        hard_texts.documents(hard_texts.PERSIAN),
        ["rockets \N{ROCKET} and \x85 breaks, 漢字 " * 9 + str(number) for number in range(40)],
    ],
    ids=["protein", "thai", "korean", "hindi", "persian", "symbols"],
)
def test_a_byte_level_tokenizer_loses_nothing_of_any_script(texts: list[str]) -> None:
    vocabulary = build_vocabulary(ByteLevelTokenizer(kind="byte_level"), 300, lambda: texts)
    assert measure_coverage(vocabulary, texts).lost == 0
    for text, ids in zip(texts, vocabulary.encode(texts), strict=True):
        assert vocabulary.decode(ids.tolist()).split() == text.lower().split()


def test_a_byte_level_text_has_windows(tmp_path: Path) -> None:
    source = written(tmp_path, hard_texts.proteins())
    settings = ByteLevelTokenizer(kind="byte_level", cased=True)
    folder = prepare(tmp_path, DataConfig(source=source, tokenizer=settings, vocab=320))
    facts = prepared_files.read_facts(folder)
    assert facts["train"]["unknown_rate"] == 0
    assert "0.0000% of the characters" in "\n".join(lines(facts))
    corpus = batches.open_corpus(folder)
    assert set(corpus.vocabulary.decode(corpus.train_NT[0].tolist())) <= {
        *hard_texts.AMINO_ACIDS,
        " ",
    }


@pytest.mark.reported
def test_one_word_of_two_megabytes_does_not_decide_about_a_text(tmp_path: Path) -> None:
    source = written(tmp_path, [*ENGLISH, hard_texts.long_word()])
    facts = prepared_files.read_facts(prepare(tmp_path, DataConfig(source=source, vocab=300)))
    assert facts["left_out"] == {"words": 1, "characters": 2_000_000}
    assert "1 (2,000,000 characters) are not used" in "\n".join(lines(facts))
    assert text_facts.lost_characters(facts) < 0.1


@pytest.mark.parametrize("settings", [ByteLevelTokenizer(kind="byte_level"), TrainedTokenizer()])
def test_a_word_has_the_same_tokens_alone_and_in_a_text(settings: Any) -> None:
    vocabulary = build_vocabulary(settings, 400, lambda: ENGLISH)
    text = ENGLISH[0]
    whole = vocabulary.encode([text])[0].tolist()
    assert vocabulary.words([text.split()])[0].ids_T.tolist() == whole
    spaced = vocabulary.encode([f"  {text}\n\n".replace(" ", " \t")])[0].tolist()
    assert spaced == whole, "a run of white space is one space"
    spans = vocabulary.spans([text])[0].span_T2
    assert not any(text[start:end].startswith(" ") for start, end in spans)


@pytest.mark.reported
def test_windows_of_unknown_tokens_only_are_refused(tmp_path: Path) -> None:
    """Without a known token there is nothing to mask, and no bigram to draw from."""
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "zz"]) + "\n")
    settings = WordPieceFile(kind="wordpieces", file=str(file))
    data = DataConfig(source=written(tmp_path, ENGLISH), tokenizer=settings, vocab=300)
    object.__setattr__(data, "vocab", 6)  # smaller than a search space can ask for
    assert "100.0% of the characters" in refusal(tmp_path, data)


@pytest.mark.reported
@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("korean", hard_texts.documents(hard_texts.words(hard_texts.HANGUL, 300))),
        ("russian", hard_texts.documents(hard_texts.words([*"абвгдеийклмнопрстуы"], 300))),
    ],
)
def test_a_vocabulary_of_another_script_is_warned_about_with_numbers(
    name: str, texts: list[str]
) -> None:
    vocabulary = build_vocabulary(BERT_SETTINGS, 30_522, list)
    measured = measure_coverage(vocabulary, texts)
    warnings = coverage_warnings(BERT_SETTINGS, [measured])
    assert warnings, name
    for warning in warnings:
        assert "\n" not in warning
        assert any(character.isdigit() for character in warning)
        assert "kind trained or byte_level" in warning
    english = measure_coverage(vocabulary, ["The vocabulary of this sentence is known."])
    chinese = measure_coverage(vocabulary, ["我喜欢学习自然语言处理"])
    assert coverage_warnings(BERT_SETTINGS, [english]) == []
    assert not any("a token" in line for line in coverage_warnings(BERT_SETTINGS, [chinese]))
