"""Pack tokenized documents into windows of a fixed length; a window holds one document only.

Letters: N windows, T positions of a window, L lines of a document.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Literal, assert_never

import numpy as np
import numpy.typing as npt

from lab.data.vocabulary import CLS, PAD, SEP, Ids

_SHORTEST = 8  # tokens; the last window of a document is dropped if it has fewer


def pack_document(
    lines: Sequence[Ids], length: int, layout: Literal["full", "segments"], seed: int
) -> npt.NDArray[np.int64]:
    """Return the windows of a document, shape (N, T).

    Args:
        lines: token ids of each line of the document.
        length: window length T.
        layout: "full" for `pack_full_windows`, "segments" for `pack_two_segments`.
        seed: seed of the document's random choices; used by "segments" only.
    """
    match layout:
        case "full":
            return pack_full_windows(
                np.concatenate(lines) if lines else np.empty(0, np.int64), length
            )
        case "segments":
            rows = list(pack_two_segments(lines, length, random.Random(seed)))  # noqa: S311
            return np.array(rows, np.int64).reshape(-1, length)
        case _:
            assert_never(layout)


def pack_full_windows(ids: Ids, length: int) -> npt.NDArray[np.int64]:
    """Return windows [CLS] tokens [SEP] filled in order; the last one is padded, shape (N, T)."""
    room = length - 2
    whole, rest = divmod(len(ids), room)
    count = count_full_windows(len(ids), length)
    windows_NT = np.full((count, length), PAD, np.int64)
    words_NT = windows_NT[:, 1:-1]
    fits = min(len(ids), count * room)
    windows_NT[:, 0] = CLS
    windows_NT[:whole, -1] = SEP
    words_NT[:whole] = ids[: whole * room].reshape(whole, room)
    if count > whole:
        words_NT[whole, :rest] = ids[whole * room : fits]
        windows_NT[whole, 1 + rest] = SEP
    return windows_NT


def count_full_windows(tokens: int, length: int) -> int:
    """Return the number of windows that `pack_full_windows` makes of `tokens` tokens."""
    room = length - 2
    whole, rest = divmod(tokens, room)
    return whole + (rest >= shortest_window(length))


def shortest_window(length: int) -> int:
    """Return the smallest number of tokens that make a window of `length` positions."""
    return min(_SHORTEST, length - 2)


def pack_two_segments(
    lines: Sequence[Ids], length: int, chance: random.Random
) -> Iterator[list[int]]:
    """Yield the windows of ELECTRA's pre-training: [CLS] lines [SEP] lines [SEP], padded.

    Follows `build_pretraining_dataset.ExampleBuilder` of google-research/electra. Lines are
    collected until they have a target number of tokens: the window length, or with probability
    0.05 a random number from 5 to the window length. They are then split into two segments at a
    line near the middle, or with probability 0.1 kept as one segment, and truncated to fit.

    In one point this differs from the official script: a line longer than a segment is first
    divided into pieces, so that fewer tokens are truncated.

    Args:
        lines: token ids of each line of the document.
        length: window length T.
        chance: random number generator of the document.
    """
    collected: list[list[int]] = []
    tokens, target, most = 0, length, max(1, (length - 3) // 2)
    for piece in (
        line[at : at + most].tolist() for line in lines for at in range(0, len(line), most)
    ):
        collected.append(piece)
        tokens += len(piece)
        if tokens >= target:
            yield _build_window(collected, length, target, chance)
            collected, tokens, target = [], 0, _draw_target(length, chance)
    if tokens >= shortest_window(length):
        yield _build_window(collected, length, target, chance)


def _draw_target(length: int, chance: random.Random) -> int:
    return chance.randint(5, length) if chance.random() < 0.05 else length


def _build_window(
    collected: list[list[int]], length: int, target: int, chance: random.Random
) -> list[int]:
    # A first segment without limit takes all lines: the window has one segment.
    half = length * 1_000 if chance.random() < 0.1 else (target - 3) // 2
    first: list[int] = []
    second: list[int] = []
    for line in collected:
        fits = not first or len(first) + len(line) < half
        if fits or (not second and len(first) < half and chance.random() < 0.5):
            first += line
        else:
            second += line
    first = first[: length - 2]
    second = second[: max(0, length - len(first) - 3)]
    row = [CLS, *first, SEP, *second, SEP] if second else [CLS, *first, SEP]
    return row + [PAD] * (length - len(row))
