"""Search designs: points are functions of their number, have allowed values and fill the space."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from experiments import experiment
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import qmc

from lab.config.experiment import Choices, Distribution, Range, SearchConfig
from lab.config.trial import Path, Value
from lab.search import designs

Point = dict[Path, Value]
Points = Callable[[Mapping[Path, Distribution], int, int], Point]

TUNE: dict[Path, Distribution] = {
    "optim.lr": Range(low=1e-4, high=1e-2, log=True),
    "objective.disc_weight": Range(low=10, high=90),
    "objective.generator.width": Range(low=0.25, high=1.0, step=0.25),
    "batch": Range(low=16, high=128, log=True, integer=True),
    "encoder.layers": Range(low=2, high=8, step=2, integer=True),
    "schedule.shape": Choices(choices=("linear", "cosine", "constant")),
}
UNIT: dict[Path, Distribution] = {"a": Range(low=0, high=1), "b": Range(low=0, high=1)}
NUMBERED = pytest.mark.parametrize("points", [designs.random_points, designs.halton_points])

_FINITE = st.floats(-1e9, 1e9, allow_nan=False, allow_subnormal=False)
_QUANTILES = st.floats(0, 1, exclude_max=True)


def is_allowed(distribution: Distribution, value: Value) -> bool:
    match distribution:
        case Choices(choices=choices):
            return value in choices
        case Range(low=low, high=high, step=step, integer=integer):
            assert isinstance(value, int if integer else float)
            steps = 0.0 if step is None else (value - low) / step
            return low <= value <= high and abs(steps - round(steps)) < 1e-8


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    low, high = sorted([draw(_FINITE), draw(_FINITE)])
    assume(low < high)
    match draw(st.sampled_from(["plain", "log", "step", "integer", "integer step"])):
        case "log":
            assume(low > 1e-9)
            return Range(low=low, high=high, log=True, integer=False)
        case "step":
            return Range(low=low, high=high, step=(high - low) / draw(st.integers(1, 50)))
        case "integer":
            assume(math.floor(low) < math.floor(high))
            return Range(low=math.floor(low), high=math.floor(high), integer=True)
        case "integer step":
            step = draw(st.integers(1, 7))
            high = (
                math.floor(low) + step * draw(st.integers(1, 50)) + draw(st.integers(0, step - 1))
            )
            return Range(low=math.floor(low), high=high, step=step, integer=True)
        case _:
            return Range(low=low, high=high)


@given(ranges(), _QUANTILES)
@settings(deadline=None)
def test_every_quantile_has_an_allowed_value(distribution: Range, quantile: float) -> None:
    assert is_allowed(distribution, designs.value_at_quantile(distribution, quantile))


@pytest.mark.parametrize("distribution", TUNE.values(), ids=TUNE.keys())
def test_values_cover_a_distribution_from_end_to_end(distribution: Distribution) -> None:
    values = [
        designs.value_at_quantile(distribution, quantile)
        for quantile in np.linspace(0, 1, 999, False)
    ]
    assert all(is_allowed(distribution, value) for value in values)
    match distribution:
        case Choices(choices=choices):
            assert set(values) == set(choices)
        case Range(low=low, high=high):
            assert min(values) == pytest.approx(low, rel=1e-2)
            assert max(values) == pytest.approx(high, rel=1e-2)


@NUMBERED
def test_points_are_functions_of_seed_and_number(points: Points) -> None:
    forwards = [points(TUNE, 7, number) for number in range(20)]
    backwards = [points(TUNE, 7, number) for number in reversed(range(20))]
    assert forwards == backwards[::-1]
    assert forwards != [points(TUNE, 8, number) for number in range(20)]
    assert len({str(point) for point in forwards}) == 20


@NUMBERED
def test_points_have_allowed_values(points: Points) -> None:
    for number in range(50):
        point = points(TUNE, 0, number)
        assert list(point) == list(TUNE)
        assert all(is_allowed(TUNE[path], value) for path, value in point.items())


@NUMBERED
def test_log_range_is_log_uniform(points: Points) -> None:
    values = [points(TUNE, 0, number)["optim.lr"] for number in range(400)]
    quantiles = np.log(np.array(values, float) / 1e-4) / np.log(100)
    assert stats.kstest(quantiles, "uniform").pvalue > 0.01
    assert stats.kstest(np.array(values, float) / 1e-2, "uniform").pvalue < 1e-6


def test_stepped_values_are_equally_likely() -> None:
    values = [designs.halton_points(TUNE, 0, n)["objective.generator.width"] for n in range(400)]
    _, counts = np.unique(np.array(values, float), return_counts=True)
    assert stats.chisquare(counts).pvalue > 0.01


@pytest.mark.parametrize("seed", range(3))
def test_halton_points_have_half_the_discrepancy_of_random_points(seed: int) -> None:
    halton, random = (
        qmc.discrepancy([list(points(UNIT, seed, n).values()) for n in range(64)])
        for points in (designs.halton_points, designs.random_points)
    )
    assert halton < random / 2


@given(st.dictionaries(st.sampled_from("abc"), ranges(), max_size=3), st.integers(1, 200))
@settings(deadline=None)
def test_grid_is_full_and_has_at_most_the_given_number_of_points(
    tune: dict[Path, Distribution], trials: int
) -> None:
    tune |= {"kind": Choices(choices=("a", "b"))} if trials >= 2 else {}
    points = designs.grid_points(tune, trials)
    assert 1 <= len(points) <= trials
    assert len({str(point) for point in points}) == len(points)
    axes = [{point[path] for point in points} for path in tune]
    assert len(points) == math.prod(len(axis) for axis in axes)
    assert all(is_allowed(tune[path], v) for point in points for path, v in point.items())


def test_grid_of_a_range_includes_both_ends() -> None:
    tune: dict[Path, Distribution] = {"a": Range(low=1e-4, high=1e-2, log=True), "b": TUNE["batch"]}
    points = designs.grid_points(tune, 9)
    assert len(points) == 9
    assert sorted({point["a"] for point in points}) == pytest.approx([1e-4, 1e-3, 1e-2])
    assert sorted({point["b"] for point in points}) == [16, 45, 128]


def test_grid_allows_choices_that_are_lists_or_mappings() -> None:
    choices = ({"width": 0.25, "depth": 1.0}, {"width": 0.5, "depth": 0.5}, [1, 2])
    tune: dict[Path, Distribution] = {"objective.generator": Choices(choices=choices)}
    assert [p["objective.generator"] for p in designs.grid_points(tune, 3)] == list(choices)


def test_only_a_sweep_with_tuned_settings_has_search_trials() -> None:
    shapes: dict[Path, Distribution] = {"schedule.shape": Choices(choices=("linear", "cosine"))}
    trials = {
        sampler: [
            designs.search_points(
                experiment("e", tune=tune, search=SearchConfig(sampler=sampler, trials=7))
            )
            for tune in ({}, shapes)
        ]
        for sampler in ("random", "grid")
    }
    assert trials == {"random": [0, 7], "grid": [0, 2]}, "a grid of two choices has two points"
