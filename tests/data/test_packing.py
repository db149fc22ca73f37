"""Tests of packing: windows hold the tokens of documents in order; only short tails are dropped."""

import random
from collections.abc import Sequence
from itertools import chain, pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lab.data import batches
from lab.data.packing import pack_document, pack_full_windows, pack_two_segments
from lab.data.vocabulary import CLS, FIRST_WORD, PAD, SEP

SHORTEST = 8
SEED = 20_240_501

Rows = npt.NDArray[np.int64]
Layout = Literal["full", "segments"]

lengths = st.integers(8, 48)
sizes = st.lists(st.integers(0, 60), max_size=14)  # number of tokens of each line
seeds = st.integers(0, 2**64 - 1)


def counted(sizes: Sequence[int]) -> list[Rows]:
    """Return lines with consecutive numbers as tokens, so that a token gives its position."""
    ends = np.cumsum([0, *sizes]) + FIRST_WORD
    return [np.arange(*pair, dtype=np.int64) for pair in pairwise(ends)]


def bodies(row: Sequence[int]) -> list[list[int]]:
    """Check the structure of a window; return its segments without special tokens."""
    assert row[0] == CLS
    last = max(position for position, token in enumerate(row) if token == SEP)
    assert all(token == PAD for token in row[last + 1 :])
    assert PAD not in row[:last]
    assert CLS not in row[1:]
    separators = [position for position, token in enumerate(row) if token == SEP]
    starts = [1, *(position + 1 for position in separators[:-1])]
    return [list(row[start:end]) for start, end in zip(starts, separators, strict=True)]


@given(tokens=st.integers(0, 200), length=lengths)
def test_full_windows_hold_the_document_in_order_and_drop_only_a_short_tail(
    tokens: int, length: int
) -> None:
    ids, room = counted([tokens])[0], length - 2
    rows = pack_full_windows(ids, length)
    assert rows.shape[1] == length
    parts = [body for row in rows.tolist() for body in bodies(row)]
    assert len(parts) == len(rows), "one segment each"
    packed = list(chain(*parts))
    assert packed == ids[: len(packed)].tolist()
    assert all(len(part) == room for part in parts[:-1])
    assert tokens - len(packed) < min(SHORTEST, room)
    assert all(len(part) >= min(SHORTEST, room) for part in parts)


@given(sizes=sizes, length=lengths, seed=seeds)
def test_full_windows_do_not_depend_on_lines_or_seed(
    sizes: list[int], length: int, seed: int
) -> None:
    lines = counted(sizes)
    whole = np.concatenate([np.empty(0, np.int64), *lines])
    np.testing.assert_array_equal(
        pack_document(lines, length, "full", seed), pack_full_windows(whole, length)
    )


@given(sizes=sizes, length=lengths, seed=seeds)
def test_segments_hold_tokens_of_the_document_in_order(
    sizes: list[int], length: int, seed: int
) -> None:
    lines = counted(sizes)
    rows = pack_document(lines, length, "segments", seed)
    assert rows.shape == (len(rows), length)
    parts = [bodies(row) for row in rows.tolist()]
    assert all(len(part) in (1, 2) and all(part) for part in parts)
    for segment in chain(*parts):  # lines between may be in the other segment
        assert all(a < b for a, b in pairwise(segment))
    tokens = list(chain(*chain(*parts)))
    assert len(set(tokens)) == len(tokens), "no token twice"
    assert set(tokens) <= set(np.concatenate([np.empty(0, np.int64), *lines]).tolist())
    windows = [sorted(chain(*part)) for part in parts]
    assert all(a[-1] < b[0] for a, b in pairwise(windows))


@given(sizes=sizes, length=lengths, seed=seeds)
def test_segments_are_a_function_of_lines_and_seed(
    sizes: list[int], length: int, seed: int
) -> None:
    lines = counted(sizes)
    once = pack_document(lines, length, "segments", seed)
    random.seed(seed)
    again = pack_document([line.copy() for line in lines], length, "segments", seed)
    np.testing.assert_array_equal(once, again)


def test_windows_with_segments_differ_between_seeds() -> None:
    lines = counted([7] * 400)
    assert len({pack_document(lines, 32, "segments", seed).tobytes() for seed in range(8)}) == 8


class Official:
    """Reimplementation of `build_pretraining_dataset.ExampleBuilder` of google-research/electra.

    Draws from `chance` instead of the module `random`; special tokens and padding are added as in
    `_make_tf_example`.
    """

    def __init__(self, length: int, chance: random.Random) -> None:
        self._chance = chance
        self._sentences: list[list[int]] = []
        self._tokens = 0
        self._max = self._target = length

    def add(self, sentence: list[int]) -> list[int] | None:
        self._sentences.append(sentence)
        self._tokens += len(sentence)
        return self.example() if self._tokens >= self._target else None

    def example(self) -> list[int]:
        single = self._chance.random() < 0.1
        first_segment_target = 100_000 if single else (self._target - 3) // 2
        first: list[int] = []
        second: list[int] = []
        for sentence in self._sentences:
            if (
                len(first) == 0
                or len(first) + len(sentence) < first_segment_target
                or (
                    len(second) == 0
                    and len(first) < first_segment_target
                    and self._chance.random() < 0.5
                )
            ):
                first = first + sentence
            else:
                second = second + sentence
        first = first[: self._max - 2]
        second = second[: max(0, self._max - len(first) - 3)]
        self._sentences, self._tokens = [], 0
        if self._chance.random() < 0.05:
            self._target = self._chance.randint(5, self._max)
        else:
            self._target = self._max
        row = [CLS, *first, SEP]
        if second:
            row += [*second, SEP]
        return row + [PAD] * (self._max - len(row))


def official(lines: Sequence[Rows], length: int, seed: int) -> list[list[int]]:
    builder = Official(length, random.Random(seed))  # noqa: S311
    rows = [row for line in lines if (row := builder.add(line.tolist())) is not None]
    if builder._tokens >= min(SHORTEST, length - 2):  # the only difference to the official script
        rows.append(builder.example())
    return rows


@given(case=st.data(), length=lengths, seed=seeds)
def test_segments_of_short_lines_are_those_of_the_official_script(
    case: st.DataObject, length: int, seed: int
) -> None:
    """Lines are no longer than a segment; longer ones are divided, unlike in the script."""
    sizes = case.draw(st.lists(st.integers(1, max(1, (length - 3) // 2)), max_size=60))
    lines = counted(sizes)
    assert pack_document(lines, length, "segments", seed).tolist() == official(lines, length, seed)


@given(sizes=sizes, length=lengths, seed=seeds)
def test_a_line_longer_than_a_segment_is_packed_like_several_lines(
    sizes: list[int], length: int, seed: int
) -> None:
    most, lines = (length - 3) // 2, counted(sizes)
    pieces = [line[start : start + most] for line in lines for start in range(0, len(line), most)]
    assert pack_document(lines, length, "segments", seed).tolist() == official(pieces, length, seed)


def within(hits: int, tries: int, share: float) -> bool:
    """Return whether a count is within five standard deviations of its mean (p > 1e-6)."""
    return abs(hits - tries * share) < 5 * (tries * share * (1 - share)) ** 0.5


def test_one_window_in_ten_has_one_segment_and_one_in_twenty_another_target() -> None:
    """Lines have one token, so a window has one segment only by the random choice.

    Other targets are uniform on 5 to T; the last four of these fill a window like the target T.
    """
    length, lines = 64, counted([1] * 400_000)
    rows = list(pack_two_segments(lines, length, random.Random(SEED)))  # noqa: S311
    single = sum(len(bodies(row)) == 1 for row in rows)
    assert within(single, len(rows), 0.1)
    collected = [len(list(chain(*bodies(row)))) for row in rows[:-1]]
    short = sum(tokens < length - 3 for tokens in collected)
    assert within(short, len(collected), 0.05 * (length - 3 - 5) / (length - 5 + 1))
    assert min(collected) == 5


@pytest.mark.parametrize("layout", ["full", "segments"])
def test_segment_ids_are_those_of_packing(layout: Layout) -> None:
    rows = pack_document(counted([9, 4, 30, 2, 17] * 20), 24, layout, SEED)
    types = batches.segment_ids(torch.from_numpy(rows)).tolist()
    for row, segments in zip(rows.tolist(), types, strict=True):
        expected = [1]
        for number, body in enumerate(bodies(row), 1):
            expected += [number] * (len(body) + 1)
        assert segments == expected + [0] * (24 - len(expected))


@pytest.mark.parametrize("layout", ["full", "segments"])
@pytest.mark.parametrize("sizes", [[], [0], [0, 0], [3, 2]])
def test_a_document_of_few_tokens_has_no_window(layout: Layout, sizes: list[int]) -> None:
    assert pack_document(counted(sizes), 16, layout, SEED).shape == (0, 16)
