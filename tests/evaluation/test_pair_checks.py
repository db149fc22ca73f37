"""Minimal pairs with equal tokens, repeated pairs and contradictory pairs are reported."""

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace

from lab.data.vocabulary import Vocabulary
from lab.evaluation.pair_checks import describe_equal_tokens, describe_repeated
from lab.tasks.minimal_pairs import MinimalPair, embedded_pairs

SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}


@pytest.fixture
def uncased() -> Vocabulary:
    """Return a vocabulary of whole words that ignores case."""
    words = [*SPECIAL.values(), "they", "are", "is", "here"]
    model = WordLevel({word: i for i, word in enumerate(words)}, unk_token=SPECIAL["unk"])
    tokenizer = Tokenizer(model)
    tokenizer.normalizer, tokenizer.pre_tokenizer = Lowercase(), Whitespace()
    return Vocabulary(tokenizer, SPECIAL)


@pytest.mark.reported
def test_pairs_that_differ_only_in_what_the_tokenizer_removes_are_named(
    uncased: Vocabulary,
) -> None:
    verb = MinimalPair("They are here", "They is here", "verb")
    case = MinimalPair("They are here", "they are here", "case")
    unknown = MinimalPair("They are near", "They are far", "adverb")
    assert not list(describe_equal_tokens(uncased, [verb]))
    (line,) = describe_equal_tokens(uncased, [verb, case, unknown])
    assert line.startswith("2 of 3 pairs have the same tokens in both sentences")
    assert line.endswith("'They are here'")


@pytest.mark.reported
def test_repeated_and_contradictory_pairs_are_named() -> None:
    pair = MinimalPair("They are here", "They is here", "verb")
    assert not list(describe_repeated([pair, pair._replace(category="number")]))
    (line,) = describe_repeated([pair, pair])
    assert line == "1 of 2 pairs repeat an earlier one of the same category"
    (line,) = describe_repeated([pair, MinimalPair(pair.bad, pair.good, "verb")])
    assert line.startswith("2 of 2 pairs contradict another one")


def test_pairs_of_the_package_neither_repeat_nor_contradict_each_other() -> None:
    assert not list(describe_repeated(embedded_pairs()))
