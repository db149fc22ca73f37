"""Documents as tokens -> windows of one length; none crosses a document.

Letters: N windows, T positions of a window, L lines of a document.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Literal, assert_never

import numpy as np
import numpy.typing as npt

from lab.data.vocabulary import CLS, PAD, SEP, Ids

_SHORTEST = 8  # a document's last window is dropped below this many tokens


def pack_document(
    lines: Sequence[Ids], length: int, layout: Literal["full", "segments"], seed: int
) -> npt.NDArray[np.int64]:
    """Return a document's windows, shape (N, T).

    Args:
        lines: its lines as tokens.
        length: T.
        layout: `pack_full_windows` or `pack_two_segments`, as `texts.Data` says.
        seed: the document's own, for what is left to chance.
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
    """Return [CLS] … [SEP] windows that a document fills one after another, the last one padded."""
    room = length - 2
    whole, rest = divmod(len(ids), room)
    kept = count_full_windows(len(ids), length)
    windows_NT = np.full((kept, length), PAD, np.int64)
    words_NT = windows_NT[:, 1:-1]
    fits = min(len(ids), kept * room)
    windows_NT[:, 0] = CLS
    windows_NT[:whole, -1] = SEP
    words_NT[:whole] = ids[: whole * room].reshape(whole, room)
    if kept > whole:
        words_NT[whole, :rest] = ids[whole * room : fits]
        windows_NT[whole, 1 + rest] = SEP
    return windows_NT


def count_full_windows(tokens: int, length: int) -> int:
    """Return how many windows `pack_full_windows` makes of a document of so many tokens."""
    room = length - 2
    whole, rest = divmod(tokens, room)
    return whole + (rest >= min(_SHORTEST, room))


def pack_two_segments(
    lines: Sequence[Ids], length: int, chance: random.Random
) -> Iterator[list[int]]:
    """Yield ELECTRA's examples: [CLS] lines [SEP] lines [SEP], padded.

    As `build_pretraining_dataset.ExampleBuilder`: lines are gathered until they reach a target,
    which is the window and in one of twenty cases anything from 5 on; then they are split in two
    at a line near the middle, but in one of ten cases not at all, and cut to fit. There a line is
    a sentence; here one that is longer than a segment is taken in pieces, so that little is cut.
    """
    gathered: list[list[int]] = []
    tokens, target, most = 0, length, max(1, (length - 3) // 2)
    for piece in (
        line[at : at + most].tolist() for line in lines for at in range(0, len(line), most)
    ):
        gathered.append(piece)
        tokens += len(piece)
        if tokens >= target:
            yield _example(gathered, length, target, chance)
            gathered, tokens, target = [], 0, _target(length, chance)
    if tokens >= min(_SHORTEST, length - 2):
        yield _example(gathered, length, target, chance)


def _target(length: int, chance: random.Random) -> int:
    return chance.randint(5, length) if chance.random() < 0.05 else length


def _example(
    gathered: list[list[int]], length: int, target: int, chance: random.Random
) -> list[int]:
    half = length * 1_000 if chance.random() < 0.1 else (target - 3) // 2
    first: list[int] = []
    second: list[int] = []
    for line in gathered:
        fits = not first or len(first) + len(line) < half
        if fits or (not second and len(first) < half and chance.random() < 0.5):
            first += line
        else:
            second += line
    first = first[: length - 2]
    second = second[: max(0, length - len(first) - 3)]
    row = [CLS, *first, SEP, *second, SEP] if second else [CLS, *first, SEP]
    return row + [PAD] * (length - len(row))
