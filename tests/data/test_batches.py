"""Tests of prepared windows and of batches as a function of their position."""

import dataclasses
from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared_text import PreparedText

from lab.data.batches import Batches, PartWindows
from lab.data.vocabulary import CLS, MASK, PAD, SEP


def test_windows_have_cls_then_one_sep_then_padding(prepared_text: PreparedText) -> None:
    settings, _, corpus = prepared_text
    for windows_NT in (corpus.train_NT, corpus.held_out_NT):
        assert windows_NT.dtype == np.uint16
        assert windows_NT.shape[1] == settings.length
        assert (windows_NT[:, 0] == CLS).all()
        assert ((windows_NT == SEP).sum(1) == 1).all()
        assert ((windows_NT == CLS).sum(1) == 1).all()
        assert not (windows_NT == MASK).any()
        after_end_NT = np.cumsum(windows_NT == SEP, axis=1) - (windows_NT == SEP) > 0
        assert ((windows_NT == PAD) == after_end_NT).all()
        assert (windows_NT < settings.vocab).all()


def test_counts_are_those_of_training_tokens_without_special_ones(
    prepared_text: PreparedText,
) -> None:
    corpus = prepared_text.corpus
    assert len(corpus.counts_V) == 400
    assert (corpus.counts_V[[PAD, CLS, SEP, MASK]] == 0).all()
    assert corpus.counts_V.sum() == (~np.isin(corpus.train_NT, [PAD, CLS, SEP, MASK])).sum()
    assert corpus.counts_V[100] == (corpus.train_NT == 100).sum()


def rows(count: int) -> npt.NDArray[np.uint16]:
    return np.arange(count * 8, dtype=np.uint16).reshape(count, 8)


def read(batches: Batches, start: int, end: int) -> list[int]:
    return batches.between(start, end).example_B.tolist()


def test_batch_has_the_windows_of_its_row_numbers() -> None:
    windows_NT = rows(20)
    batch = Batches(windows_NT, seed=0).between(12, 18)
    assert batch.ids_BT.shape == (6, 8)
    assert batch.ids_BT.numpy().tolist() == windows_NT[batch.example_B.numpy()].tolist()


@given(
    count=st.integers(1, 30),
    size=st.integers(1, 12),
    seed=st.integers(0, 2**31 - 1),
    steps=st.lists(st.integers(0, 60), min_size=1, max_size=10),
)
@settings(deadline=None)
def test_batch_is_a_function_of_its_position(
    count: int, size: int, seed: int, steps: list[int]
) -> None:
    def between(batches: Batches, step: int) -> list[int]:
        return read(batches, step * size, (step + 1) * size)

    one = Batches(rows(count), seed)
    in_order = read(one, 0, 61 * size)
    # In any order, repeatedly, and from a new object, as in a resumed run.
    for step in [*steps, *steps]:
        expected = in_order[step * size : (step + 1) * size]
        assert between(one, step) == between(Batches(rows(count), seed), step) == expected


@given(count=st.integers(1, 30), seed=st.integers(0, 2**31 - 1))
@settings(deadline=None)
def test_every_epoch_is_a_permutation(count: int, seed: int) -> None:
    batches = Batches(rows(count), seed)
    for epoch in range(12):
        seen = read(batches, epoch * count, (epoch + 1) * count)
        assert sorted(seen) == list(range(count))


def test_orders_differ_between_epochs_and_seeds() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return read(Batches(rows(50), seed), epoch * 50, (epoch + 1) * 50)

    orders = [order(seed, epoch) for seed in range(4) for epoch in range(4)]
    assert len({tuple(order) for order in orders}) == len(orders)


MIXED = (PartWindows(30, 1.0), PartWindows(5, 2.0), PartWindows(65, 1.0))


def part_of(row: int) -> int:
    return int(np.searchsorted(np.cumsum([part.windows for part in MIXED]), row, side="right"))


@given(seed=st.integers(0, 2**31 - 1))
@settings(deadline=None, max_examples=20)
def test_each_epoch_of_a_mixture_reads_parts_in_proportion_to_their_weights(seed: int) -> None:
    batches = Batches(rows(100), seed, MIXED)
    for epoch in range(4):
        seen = read(batches, 100 * epoch, 100 * epoch + 100)
        shares = Counter(part_of(row) for row in seen)
        assert [shares[part] for part in range(3)] == [25, 50, 25]


@pytest.mark.parametrize("part", [0, 1, 2])
def test_windows_of_a_part_are_all_read_before_one_is_read_again(part: int) -> None:
    windows, seen = MIXED[part].windows, read(Batches(rows(100), 3, MIXED), 0, 1_000)
    in_part = [row for row in seen if part_of(row) == part]
    # The order within an epoch is random, so check counts: they differ by at most one.
    for end in range(100, 1_001, 100):
        times = Counter(row for row in seen[:end] if part_of(row) == part)
        assert max(times.values()) - min(times[row] for row in set(in_part)) <= 1
    assert len(set(in_part)) == windows


def test_batch_of_a_mixture_is_a_function_of_its_position() -> None:
    in_order = read(Batches(rows(100), 1, MIXED), 0, 420)
    for start in (413, 0, 217, 98):
        assert read(Batches(rows(100), 1, MIXED), start, start + 7) == in_order[start : start + 7]


def test_epoch_ends_when_a_part_begins_to_be_repeated(prepared_text: PreparedText) -> None:
    corpus = prepared_text.corpus
    windows, length = corpus.train_NT.shape
    assert corpus.epoch_tokens == windows * length
    # Of four windows, two come from the part of five windows.
    assert dataclasses.replace(corpus, parts=MIXED).epoch_tokens == 10 * length
