"""Tests of accents, vowel signs, Hangul and joiners: kept where their removal merges words."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import hard_texts
import pytest

from lab.config.data import TrainedTokenizer, WordPieceFile
from lab.data.tokenization.marks import resolve_marks, survey_marks
from lab.data.tokenizers import build_vocabulary

ENGLISH = hard_texts.documents(hard_texts.words(hard_texts.LATIN, 300))
HINDI = hard_texts.documents(hard_texts.words(hard_texts.HINDI, 300))
KOREAN = hard_texts.documents(hard_texts.words(hard_texts.HANGUL, 300))
PERSIAN = hard_texts.documents(hard_texts.PERSIAN)
FRENCH = hard_texts.documents(["ou", "où", "a", "à", "des", "dès", "la", "là", "sur", "sûr"])
JAPANESE = hard_texts.documents(hard_texts.words([*"かがきぎくぐはばぱひびぴ"], 200))
EMOJI = ["family \N{MAN}\u200d\N{WOMAN}\u200d\N{GIRL} of three", "zero\u200cwidth"] * 30


def spelled(texts: Sequence[str], word: str, **options: Any) -> str:
    """Return a word in the spelling that its tokens have."""
    # The vocabulary has all words as they are, since few of them are different.
    vocabulary = build_vocabulary(TrainedTokenizer(**options), 120, lambda: [*texts, *ENGLISH])
    return vocabulary.decode(vocabulary.encode([word])[0].tolist()).replace(" ", "")


@pytest.mark.reported
@pytest.mark.parametrize(
    ("texts", "accents", "joiners"),
    [
        (ENGLISH, "strip", "remove"),
        ([*ENGLISH, "one naïve café"], "strip", "remove"),
        (FRENCH, "keep", "remove"),
        (HINDI, "keep", "remove"),
        (KOREAN, "keep", "remove"),
        (JAPANESE, "keep", "remove"),
        (hard_texts.thai(), "keep", "remove"),
        (PERSIAN, "strip", "keep"),
        ([*ENGLISH, *EMOJI], "strip", "remove"),
    ],
    ids=["english", "loan words", "french", "hindi", "korean", "japanese", "thai", "persian",
         "emoji"],
)  # fmt: skip
def test_the_default_keeps_what_the_words_of_the_text_differ_in(
    texts: list[str], accents: str, joiners: str
) -> None:
    resolved = resolve_marks(TrainedTokenizer(), lambda: texts)
    assert (resolved.accents, resolved.joiners) == (accents, joiners)
    chosen = TrainedTokenizer(accents="strip", joiners="keep")
    assert resolve_marks(chosen, lambda: texts) == chosen


@pytest.mark.reported
@pytest.mark.parametrize(
    ("texts", "word"),
    [
        (HINDI, HINDI[0].split()[0]),
        (KOREAN, KOREAN[0].split()[0]),
        (FRENCH, "où"),
        (PERSIAN, "کتاب\u200cها"),
    ],
)
def test_words_are_spelled_as_in_the_text_by_default(texts: list[str], word: str) -> None:
    assert spelled([" ".join(texts)] * 3, word).replace("[UNK]", "") in (word, "")
    settings = resolve_marks(TrainedTokenizer(), lambda: texts)
    vocabulary = build_vocabulary(settings, 400, lambda: [*texts, *ENGLISH])
    normalizer = vocabulary.tokenizer.normalizer
    assert normalizer is not None
    assert normalizer.normalize_str(word) == word


@pytest.mark.reported
def test_joiners_that_do_not_join_letters_are_removed() -> None:
    settings = TrainedTokenizer(accents="keep", joiners="keep")
    vocabulary = build_vocabulary(settings, 120, lambda: [*PERSIAN, *ENGLISH])
    normalizer = vocabulary.tokenizer.normalizer
    assert normalizer is not None
    for text, expected in [
        ("خانه\u200cها", "خانه\u200cها"),
        ("क्\u200dष", "क्\u200dष"),
        ("\u200cخانه\u200c ها", "خانه ها"),
        ("auf\u200clage", "auflage"),
        ("\N{MAN}\u200d\N{WOMAN}", "\N{MAN}\N{WOMAN}"),
        ("soft\u00adhyphen \u200bzero \ufeffmark\u2060", "softhyphen zero mark"),
    ]:
        assert normalizer.normalize_str(text) == expected
    removed = replace(settings, joiners="remove")
    plain = build_vocabulary(removed, 120, lambda: [*PERSIAN, *ENGLISH]).tokenizer.normalizer
    assert plain is not None
    assert plain.normalize_str("خانه\u200cها") == "خانهها"


@pytest.mark.reported
def test_words_that_stripping_merges_are_counted() -> None:
    survey = survey_marks(TrainedTokenizer(), lambda: FRENCH)
    assert (survey.words, survey.stripped, survey.merged) == (10, 5, 5)
    assert "would make 5 of 10 different words equal to another one" in survey.describe()
    assert survey.warnings() == []
    stripped = survey_marks(TrainedTokenizer(accents="strip"), lambda: FRENCH)
    assert "stripped, which makes 5 of 10" in stripped.describe()
    (warning,) = stripped.warnings()
    assert warning.startswith("base.data.tokenizer.accents: strip changes ")
    file = WordPieceFile(kind="wordpieces", file="bert-uncased")
    assert survey_marks(file, lambda: FRENCH).warnings() != []
    hangul = survey_marks(TrainedTokenizer(accents="strip"), lambda: KOREAN)
    assert hangul.warnings() != [], "taken apart, though no words merge"
