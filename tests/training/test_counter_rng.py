"""Counter-based random numbers: uniform, and a function of their five counters alone."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lab.training import counter_rng

EXAMPLES_B = torch.arange(1_000)


def numbers(
    seed: int = 0, stream: int = counter_rng.MASK, step: int = 0, first: int = 0
) -> npt.NDArray[np.float32]:
    return counter_rng.uniform(seed, stream, step, EXAMPLES_B + first, 100).numpy()


@given(
    seed=st.integers(0, 2**31 - 1),
    stream=st.integers(1, 19),
    step=st.integers(0, 2**31),
    example_B=st.lists(st.integers(0, 2**40), min_size=1, max_size=20),
    count=st.integers(1, 200),
    data=st.data(),
)
@settings(deadline=None)
def test_numbers_do_not_depend_on_the_rest_of_the_batch(
    seed: int, stream: int, step: int, example_B: list[int], count: int, data: st.DataObject
) -> None:
    whole_BN = counter_rng.uniform(seed, stream, step, torch.tensor(example_B), count)
    rows = data.draw(st.lists(st.integers(0, len(example_B) - 1), min_size=1))
    fewer = data.draw(st.integers(1, count))
    part_BN = counter_rng.uniform(seed, stream, step, torch.tensor(example_B)[rows], fewer)
    assert part_BN.equal(whole_BN[rows, :fewer])
    assert whole_BN.dtype == torch.float32
    assert ((whole_BN > 0) & (whole_BN < 1)).all()


def test_numbers_do_not_depend_on_the_state_of_torchs_generator() -> None:
    first = numbers()
    torch.manual_seed(5)
    torch.rand(3)
    assert (numbers() == first).all()


# A search gave these counters, for which all 24 bits are set. In float32, 2**24 - 1/2 is rounded to
# 2**24.
def test_largest_number_is_below_one() -> None:
    largest = counter_rng.uniform(0, counter_rng.MASK, 65, torch.tensor([113]), 799)[0, 798]
    assert largest == 1 - 2**-24


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"stream": counter_rng.SAMPLE},
        {"stream": counter_rng.KEEP},
        {"step": 1},
        {"first": 1_000},
        {"seed": 2**31 - 1, "step": 10**6, "first": 10**9},
    ],
    ids=str,
)
def test_each_counter_changes_the_numbers(other: dict[str, int]) -> None:
    # The expected number of equal pairs among 100,000 pairs of 24-bit numbers is 0.006.
    assert (numbers() == numbers(**other)).sum() <= 2


def test_numbers_repeat_no_more_often_than_by_chance() -> None:
    resolution = 2**23  # float32 has 2**23 values between 1/2 and 1
    expected = 100_000**2 / 2 / resolution
    repeated = 100_000 - len(np.unique(numbers()))
    assert repeated < expected + 5 * expected**0.5


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
@pytest.mark.parametrize("stream", [counter_rng.MASK, counter_rng.SAMPLE, counter_rng.KEEP])
def test_numbers_are_uniform(seed: int, stream: int) -> None:
    drawn = numbers(seed, stream).astype(np.float64).flatten()
    error = len(drawn) ** -0.5
    assert drawn.mean() == pytest.approx(1 / 2, abs=5 * error * (1 / 12) ** 0.5)
    assert drawn.var() == pytest.approx(1 / 12, abs=5 * error * (1 / 180) ** 0.5)
    assert stats.kstest(drawn, "uniform").pvalue > 1e-4


def test_numbers_of_one_slot_are_uniform_over_the_steps() -> None:
    steps = [
        counter_rng.uniform(0, counter_rng.MASK, step, torch.tensor([7]), 1).item()
        for step in range(2_000)
    ]
    assert stats.kstest(steps, "uniform").pvalue > 1e-4


def are_independent(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> bool:
    """Return whether the correlation and a chi-square test of 16 x 16 bins show no dependence."""
    a, b = a.astype(np.float64).flatten(), b.astype(np.float64).flatten()
    table, _, _ = np.histogram2d(a, b, bins=16, range=[[0, 1], [0, 1]])
    correlation = abs(np.corrcoef(a, b)[0, 1])
    return correlation < 5 * len(a) ** -0.5 and stats.chisquare(table.flatten()).pvalue > 1e-4


@pytest.mark.parametrize("counter", ["seed", "stream", "step"])
def test_neighbouring_counters_are_independent(counter: str) -> None:
    drawn = [numbers(**{counter: value}) for value in range(1, 6)]
    assert all(are_independent(a, b) for a, b in pairwise(drawn))


def test_neighbouring_examples_and_slots_are_independent() -> None:
    drawn_BN = numbers()
    assert are_independent(drawn_BN[:-1], drawn_BN[1:])
    assert are_independent(drawn_BN[:, :-1], drawn_BN[:, 1:])
    assert are_independent(drawn_BN[:-1, :-1], drawn_BN[1:, 1:])


def test_step_and_example_are_not_interchangeable() -> None:
    """The numbers of (step s + 1, example e) differ from those of (step s, example e + 1)."""
    assert are_independent(numbers(step=1)[:-1], numbers(step=0)[1:])


@pytest.mark.parametrize("bits", [0, 2**63 - 1, 2**63, 2**64 - 1])
def test_keys_of_torch_have_the_bits_of_the_hash(bits: int) -> None:
    assert counter_rng._signed(bits) == np.uint64(bits).view(np.int64)
