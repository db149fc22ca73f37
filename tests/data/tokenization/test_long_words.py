"""Tests of words that are left out when a tokenizer is trained, so that its time is bounded."""

from typing import Any

import hard_texts
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lab.config.data import ByteLevelTokenizer, TrainedTokenizer
from lab.data.tokenization import normalization
from lab.data.tokenization.long_words import cut_runs
from lab.data.tokenization.training import frequent_characters, train_tokenizer

LIMIT = 10
LETTERS = "aäकि漢\u200cﬁ9.-/ \n\u2003\u3002한"
TEXT = st.text(st.sampled_from(LETTERS), max_size=60)
ENGLISH = hard_texts.documents(hard_texts.words(hard_texts.LATIN, 200), 60)


@pytest.mark.parametrize(
    "options",
    [
        {"accents": "strip"},
        {},
        {"joiners": "keep"},
        {"ideographs": False},
        {"normalization": "nfkc"},
    ],
)
@given(text=TEXT)
@example(text="a" * 11)
@example(text="a" * 10 + " " + "b" * 11 + "-" + "c" * 10)
def test_no_word_over_the_limit_reaches_the_training(options: Any, text: str) -> None:
    """Merging the pairs of a word takes time in proportion to the square of its length."""
    settings = TrainedTokenizer(
        longest_word=LIMIT, **({"accents": "keep", "joiners": "remove"} | options)
    )
    limit = normalization.word_limit(settings)
    (kept,) = limit.without_long_words(lambda: [text])
    words, all_words = (
        [word for word, _ in limit.splitter.pre_tokenize_str(limit.normalizer.normalize_str(each))]
        for each in (kept, text)
    )
    longest = 4 * LIMIT if options.get("normalization") == "nfkc" else LIMIT  # ligatures grow
    assert all(len(word) <= longest for word in words)
    assert [w for w in words if len(w) <= LIMIT] == [w for w in all_words if len(w) <= LIMIT]
    found = limit.count(lambda: [text])
    if "normalization" not in options:
        assert found.words == len(all_words) - len(words)
    if found.words == 0:
        assert kept == text, "a text without such words is not changed"


@pytest.mark.reported
def test_one_word_of_two_megabytes_is_left_out_and_counted() -> None:
    settings = TrainedTokenizer(accents="strip", joiners="remove")
    texts = [*ENGLISH[:30], f"{hard_texts.long_word()}", *ENGLISH[30:]]
    found = normalization.word_limit(settings).count(lambda: texts)
    assert (found.words, found.characters) == (1, 2_000_000)
    texts = [*ENGLISH, hard_texts.long_word(200_000)]
    assert frequent_characters(settings, lambda: texts) == frequent_characters(
        settings, lambda: ENGLISH
    )
    with_word, without = (
        train_tokenizer(settings, 300, lambda each=each: each).to_str()  # type: ignore[misc]
        for each in (texts, ENGLISH)
    )
    assert with_word == without


@given(text=TEXT)
def test_a_byte_level_tokenizer_learns_from_all_of_a_long_word_in_pieces(text: str) -> None:
    (cut,) = cut_runs(lambda: [text], LIMIT)
    assert all(len(run) <= LIMIT for run in cut.split())
    assert "".join(cut.split()) == "".join(text.split())
    if all(len(run) <= LIMIT for run in text.split()):
        assert cut == text


@pytest.mark.reported
def test_a_byte_level_tokenizer_is_trained_on_a_word_of_two_megabytes() -> None:
    """It ends only if the time does not grow with the square of the length of the word."""
    texts = [*ENGLISH[:5], hard_texts.long_word()]
    tokenizer = train_tokenizer(ByteLevelTokenizer(kind="byte_level"), 300, lambda: texts)
    assert tokenizer.get_vocab_size() == 300
