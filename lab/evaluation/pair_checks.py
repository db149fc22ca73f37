"""Checks of minimal pairs: equal tokens, repeated pairs, contradictory pairs."""

from collections.abc import Iterator, Sequence

from lab.data.vocabulary import Vocabulary
from lab.tasks.minimal_pairs import MinimalPair


def describe_equal_tokens(vocabulary: Vocabulary, pairs: Sequence[MinimalPair]) -> Iterator[str]:
    """Yield a sentence if the sentences of some pairs have the same tokens.

    Such sentences differ only in case, accents or other characters that the tokenizer removes. Both
    have the same score in every trial, so the pair counts half.

    Args:
        vocabulary: vocabulary of a text.
        pairs: the pairs.
    """
    sides = (vocabulary.encode([getattr(pair, side) for pair in pairs]) for side in ("good", "bad"))
    equal = [pair for pair, good, bad in zip(pairs, *sides, strict=True) if list(good) == list(bad)]
    if equal:
        yield (
            f"{len(equal)} of {len(pairs)} pairs have the same tokens in both sentences, so every "
            f"trial has half of them right; the first is {equal[0].good!r}"
        )


def describe_repeated(pairs: Sequence[MinimalPair]) -> Iterator[str]:
    """Yield sentences on pairs that occur several times, and on pairs that contradict others.

    Args:
        pairs: the pairs.
    """
    found = {(pair.good, pair.bad) for pair in pairs}
    if repeated := len(pairs) - len({(pair.good, pair.bad, pair.category) for pair in pairs}):
        yield f"{repeated} of {len(pairs)} pairs repeat an earlier one of the same category"
    reversed_ = [pair for pair in pairs if (pair.bad, pair.good) in found]
    if reversed_:
        yield (
            f"{len(reversed_)} of {len(pairs)} pairs contradict another one, whose good sentence "
            f"is their bad one; the first is {reversed_[0].good!r}"
        )
