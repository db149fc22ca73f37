"""What the training text has in common with the questions that judge what it taught.

Two texts overlap where they share 13 tokens in a row: the length of GPT-3's check (Brown et al.
2020, appendix C), over tokens as Llama 2's (Touvron et al. 2023, appendix A.6). A question that
is shorter has none and cannot be told.

Letters: D documents or questions, T tokens, G n-grams.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lab.data.vocabulary import Ids

NGRAM = 13

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no product loses a bit
_SIEVE = 22  # bits of a hash that a table answers at once, before the search
_SHIFT = np.uint64(64 - _SIEVE)

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """How much of a task's evaluation split stands in the training text.

    Attributes:
        task: its name.
        questions: of its evaluation split.
        short: of these, shorter than 13 tokens.
        found: of these, with 13 tokens in a row that stand in the training text.
    """

    task: str
    questions: int
    short: int
    found: int


class EvaluationNgrams:
    """The n-grams of evaluation splits, and which of them have been met.

    Args:
        tasks: the questions of each task, as tokens.
    """

    def __init__(self, tasks: dict[str, Sequence[Ids]]) -> None:
        self._grams = {name: _hashes_of_each(asked) for name, asked in tasks.items()}
        every = [grams for asked in self._grams.values() for grams in asked]
        self._known_G = np.unique(np.concatenate(every)) if every else np.empty(0, np.uint64)
        self._met_G = np.zeros(len(self._known_G), bool)
        self._sieve = np.zeros(1 << _SIEVE, bool)
        self._sieve[self._known_G >> _SHIFT] = True

    def shared_T(self, ids_T: Ids, document_T: Ids) -> npt.NDArray[np.bool_]:
        """Return which tokens of some documents stand in an n-gram of a question, and count them.

        Args:
            ids_T: the documents' tokens, one behind the other.
            document_T: which document each belongs to.
        """
        shared_T = np.zeros(len(ids_T), bool)
        grams_G = ngram_hashes(ids_T)
        whole_G = document_T[: len(grams_G)] == document_T[len(ids_T) - len(grams_G) :]
        candidates = np.flatnonzero(self._sieve[grams_G >> _SHIFT] & whole_G)
        places = np.searchsorted(self._known_G, grams_G[candidates])
        places = np.minimum(places, max(0, len(self._known_G) - 1))
        hits = self._known_G[places] == grams_G[candidates]
        self._met_G[places[hits]] = True
        for start in candidates[hits].tolist():
            shared_T[start : start + NGRAM] = True
        return shared_T

    def overlaps(self) -> list[Overlap]:
        """Return what has been met so far, task by task."""
        met_G = self._known_G[self._met_G]
        return [
            Overlap(
                task=name,
                questions=len(asked),
                short=sum(not len(grams) for grams in asked),
                found=_with_any(asked, met_G),
            )
            for name, asked in self._grams.items()
        ]


def _hashes_of_each(texts: Sequence[Ids]) -> list[Hashes]:
    """Return the hashes of each text, computed of all at once."""
    if not texts:
        return []
    ends = np.cumsum([len(ids_T) for ids_T in texts]).tolist()
    joined_G = ngram_hashes(np.concatenate(texts))
    return [
        joined_G[end - len(ids_T) : max(0, end - NGRAM + 1)]
        for ids_T, end in zip(texts, ends, strict=True)
    ]


def _with_any(texts: Sequence[Hashes], met_G: Hashes) -> int:
    """Return how many texts have a hash that is among `met_G`."""
    if not texts:
        return 0
    ends = np.cumsum([len(grams) for grams in texts])
    met = np.isin(np.concatenate(texts), met_G)
    return sum(bool(part.any()) for part in np.split(met, ends[:-1]))


def ngram_hashes(ids_T: Ids) -> Hashes:
    """Return a hash of each 13 tokens in a row, shape (max(0, T - 12),)."""
    count = max(0, len(ids_T) - NGRAM + 1)
    tokens_T = ids_T.astype(np.uint64)
    hashed_G = np.zeros(count, np.uint64)
    with np.errstate(over="ignore"):
        for offset in range(NGRAM):
            hashed_G = hashed_G * _BASE + tokens_T[offset : offset + count] + np.uint64(1)
        return (hashed_G ^ (hashed_G >> np.uint64(32))) * _BASE
