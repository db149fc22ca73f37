"""Words of the held-out text that an encoder has to predict, hidden in its windows.

The words are chosen in the text, not among the tokens: every eighth run of letters. All
vocabularies and windows hide the same words.

Letters: W windows, T positions, N hidden words, M masked positions.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lab.data.passages import Passage
from lab.data.vocabulary import CLS, MASK, PAD, SEP, Encoded, Ids, Vocabulary
from lab.evaluation.calibration import alternate_halves

_WORD = re.compile(r"[^\W\d_]+")
_EVERY = 8
_NO_WORD = -1

Masks = Literal["one", "each"]


@dataclass(frozen=True, kw_only=True, eq=False)
class HiddenWords:
    """Windows with hidden words.

    Attributes:
        ids_WT: tokens; [MASK] at hidden words.
        word_WT: index of the hidden word at each [MASK]; -1 elsewhere.
        token_WT: original token at each [MASK]; undefined elsewhere.
        words: hidden words, casefolded.
        half_N: half of the text that each word is in, bool; the halves share no passage.
        document_N: index of the document that each word is in, ascending.
    """

    ids_WT: Tensor
    word_WT: Tensor
    token_WT: Tensor
    words: tuple[str, ...]
    half_N: Tensor
    document_N: Tensor


@lru_cache(maxsize=4)
def hide_words(
    vocabulary: Vocabulary, passages: tuple[Passage, ...], length: int, masks: Masks
) -> HiddenWords:
    """Return the windows of `passages`, of `length` positions each, with hidden words.

    Args:
        vocabulary: vocabulary of the encoder.
        passages: held-out text.
        length: window length T.
        masks: `one` replaces a word by a single [MASK], which does not tell the number of its
            tokens; `each` replaces each of its tokens by [MASK].
    """
    halves = alternate_halves(len(passages)).tolist()
    encodings = vocabulary.spans([passage.text for passage in passages])
    parts: list[_Parts] = []
    words: list[str] = []
    half: list[bool] = []
    document: list[int] = []
    for passage, encoded, in_half in zip(passages, encodings, halves, strict=True):
        hidden = list(_WORD.finditer(passage.text))[::_EVERY]
        hide = _hide(encoded, [match.span() for match in hidden], len(words), masks)
        parts.append(_cut(hide, length))
        words += [match.group().casefold() for match in hidden]
        half += [in_half] * len(hidden)
        document += [passage.document] * len(hidden)
    ids_WT, word_WT, token_WT = (
        torch.from_numpy(np.concatenate(rows)) for rows in zip(*parts, strict=True)
    )
    return HiddenWords(
        ids_WT=ids_WT,
        word_WT=word_WT,
        token_WT=token_WT,
        words=tuple(words),
        half_N=torch.tensor(half, dtype=torch.bool),
        document_N=torch.tensor(document, dtype=torch.int64),
    )


class _Parts(NamedTuple):
    """Tokens with hidden words, of a passage or of windows; the attributes of `HiddenWords`."""

    ids: Ids
    word: Ids
    token: Ids


def _hide(encoded: Encoded, spans: list[tuple[int, int]], number: int, masks: Masks) -> _Parts:
    """Return the tokens of a passage; those that overlap with a hidden word are hidden.

    Args:
        encoded: tokens of the passage.
        spans: start and end of each hidden word.
        number: index of the first hidden word.
        masks: as in `hide_words`.
    """
    starts, ends = np.array([*spans, (2**62, 2**62)]).T  # the last one is behind all tokens
    following_T = np.searchsorted(ends, encoded.span_T2[:, 0], "right")
    hidden_T = encoded.span_T2[:, 1] > starts[following_T]
    word_T = np.where(hidden_T, number + following_T, _NO_WORD)
    ids_T = np.where(hidden_T, MASK, encoded.ids_T)
    repeated_T = hidden_T & (word_T == np.concatenate([[_NO_WORD], word_T[:-1]]))
    kept_T = ~repeated_T if masks == "one" else np.ones_like(hidden_T)
    return _Parts(ids_T[kept_T], word_T[kept_T], encoded.ids_T[kept_T])


def _cut(parts: _Parts, length: int) -> _Parts:
    """Return the windows of a passage, each part of shape (W, T)."""
    room = length - 2
    count = -(-len(parts.ids) // room)
    frames = ((CLS, SEP, PAD), (_NO_WORD,) * 3, (PAD,) * 3)
    return _Parts(
        *(_frame(part, count, room, *frame) for part, frame in zip(parts, frames, strict=True))
    )


def _frame(tokens: Ids, count: int, room: int, first: int, last: int, padding: int) -> Ids:
    """Return windows [`first`, `room` tokens, `last`], the last one padded."""
    filled = np.full(count * room, padding, np.int64)
    filled[: len(tokens)] = tokens
    rows_WT = np.full((count, room + 2), last, np.int64)
    rows_WT[:, 0], rows_WT[:, 1:-1] = first, filled.reshape(count, room)
    rest = len(tokens) - (count - 1) * room
    if count and rest < room:
        rows_WT[-1, 1 + rest], rows_WT[-1, 2 + rest :] = last, padding
    return rows_WT


class Spelling:
    """A code for words by the frequencies of their letters, the same for all encoders.

    Args:
        words: words that the frequencies are counted on; each count is increased by one.
    """

    def __init__(self, words: Sequence[str]) -> None:
        counts = Counter(letter for word in words for letter in word)
        total = counts.total() + len(words) + len(counts) + 2
        self._end = -np.log((len(words) + 1) / total)
        self._unknown = -np.log(1 / total)
        self._nats = {letter: -np.log((count + 1) / total) for letter, count in counts.items()}

    def nats(self, word: str) -> float:
        """Return the nats of a word's letters and of its end."""
        return float(self._end + sum(self._nats.get(letter, self._unknown) for letter in word))
