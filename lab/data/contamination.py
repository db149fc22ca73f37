"""Detect overlap between the training text and the evaluation splits of tasks.

Two texts overlap if they share 13 consecutive tokens: the n-gram length of GPT-3's check (Brown
et al. 2020, appendix C), applied to tokens as in Llama 2's (Touvron et al. 2023, appendix A.6).
Overlap cannot be detected for evaluation texts ("questions") of fewer than 13 tokens.

Letters: D documents or questions, T tokens, G n-grams.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lab.data.vocabulary import Ids

NGRAM = 13

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so multiplication modulo 2**64 is a bijection
_SIEVE = 22  # leading hash bits that index a lookup table; it avoids most binary searches
_SHIFT = np.uint64(64 - _SIEVE)

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Overlap of the training text with a task's evaluation split.

    Attributes:
        task: name of the task.
        questions: number of questions in the evaluation split.
        short: number of questions with fewer than 13 tokens.
        found: number of questions that share 13 consecutive tokens with the training text.
    """

    task: str
    questions: int
    short: int
    found: int


class EvaluationNgrams:
    """Index of the n-grams of evaluation splits; records which of them occur in the training text.

    Args:
        tasks: token ids of each question, by task name.
    """

    def __init__(self, tasks: dict[str, Sequence[Ids]]) -> None:
        self._grams = {name: _hash_each(questions) for name, questions in tasks.items()}
        arrays = [grams for questions in self._grams.values() for grams in questions]
        self._known_G = np.unique(np.concatenate(arrays)) if arrays else np.empty(0, np.uint64)
        self._met_G = np.zeros(len(self._known_G), bool)
        self._sieve = np.zeros(1 << _SIEVE, bool)
        self._sieve[self._known_G >> _SHIFT] = True

    def shared_T(self, ids_T: Ids, document_T: Ids) -> npt.NDArray[np.bool_]:
        """Return a mask of the tokens that belong to an n-gram of a question; record the n-grams.

        Args:
            ids_T: token ids of the documents, concatenated.
            document_T: document index of each token; an n-gram does not cross documents.

        Returns:
            Mask of shape (T,).
        """
        shared_T = np.zeros(len(ids_T), bool)
        grams_G = ngram_hashes(ids_T)
        whole_G = document_T[: len(grams_G)] == document_T[len(ids_T) - len(grams_G) :]
        candidates = np.flatnonzero(self._sieve[grams_G >> _SHIFT] & whole_G)
        positions = np.searchsorted(self._known_G, grams_G[candidates])
        positions = np.minimum(positions, max(0, len(self._known_G) - 1))
        hits = self._known_G[positions] == grams_G[candidates]
        self._met_G[positions[hits]] = True
        for start in candidates[hits].tolist():
            shared_T[start : start + NGRAM] = True
        return shared_T

    def overlaps(self) -> list[Overlap]:
        """Return the overlap of each task with all documents passed to `shared_T` so far."""
        met_G = self._known_G[self._met_G]
        return [
            Overlap(
                task=name,
                questions=len(questions),
                short=sum(not len(grams) for grams in questions),
                found=_count_with_any(questions, met_G),
            )
            for name, questions in self._grams.items()
        ]


def _hash_each(texts: Sequence[Ids]) -> list[Hashes]:
    """Return the n-gram hashes of each text; vectorized over the concatenated texts."""
    if not texts:
        return []
    ends = np.cumsum([len(ids_T) for ids_T in texts]).tolist()
    joined_G = ngram_hashes(np.concatenate(texts))
    return [
        joined_G[end - len(ids_T) : max(0, end - NGRAM + 1)]
        for ids_T, end in zip(texts, ends, strict=True)
    ]


def _count_with_any(texts: Sequence[Hashes], met_G: Hashes) -> int:
    """Return the number of texts with at least one hash in `met_G`."""
    if not texts:
        return 0
    ends = np.cumsum([len(grams) for grams in texts])
    is_met = np.isin(np.concatenate(texts), met_G)
    return sum(bool(part.any()) for part in np.split(is_met, ends[:-1]))


def ngram_hashes(ids_T: Ids) -> Hashes:
    """Return a 64-bit hash of each 13 consecutive tokens, shape (max(0, T - 12),)."""
    count = max(0, len(ids_T) - NGRAM + 1)
    tokens_T = ids_T.astype(np.uint64)
    hashed_G = np.zeros(count, np.uint64)
    with np.errstate(over="ignore"):
        for offset in range(NGRAM):
            hashed_G = hashed_G * _BASE + tokens_T[offset : offset + count] + np.uint64(1)
        return (hashed_G ^ (hashed_G >> np.uint64(32))) * _BASE
