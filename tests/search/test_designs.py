"""Search designs: points are functions of their number, have allowed values and fill the space."""

import math
from collections.abc import Callable, Mapping
from typing import Literal

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


@pytest.mark.parametrize(
    ("tuned", "repeated", "numbers"),
    [
        (False, "best_setting", (0, [0], [1, 2, 3, 4], 4)),
        (False, "every_setting", (0, [0], [1, 2, 3, 4], 4)),
        (True, "best_setting", (7, [0], [1, 2, 3, 4], 7 + 4)),
        (True, "every_setting", (7, [1, 2, 3, 4], [], 7 * 4)),
    ],
)
def test_repeats_are_those_of_the_best_setting_or_of_every_setting(
    tuned: bool,
    repeated: Literal["best_setting", "every_setting"],
    numbers: tuple[int, list[int], list[int], int],
) -> None:
    planned = experiment(
        "e",
        tune={"optim.lr": TUNE["optim.lr"]} if tuned else {},
        search=SearchConfig(sampler="random", trials=7, seeds=4, repeated=repeated),
    )
    assert numbers == (
        designs.search_points(planned),
        list(designs.search_repeats(planned)),
        list(designs.best_repeats(planned)),
        sum(stage.count for stage in designs.list_stages(planned)),
    )


def test_every_setting_of_one_seed_is_repeated_once() -> None:
    """The search's own trials have repeat 0, so that one seed of every setting is repeat 1."""
    search = SearchConfig(sampler="random", trials=7, seeds=1, repeated="every_setting")
    planned = experiment("e", tune={"optim.lr": TUNE["optim.lr"]}, search=search)
    assert list(designs.search_repeats(planned)) == [1]
    assert list(designs.best_repeats(planned)) == []


@pytest.mark.parametrize(
    ("distribution", "quantile", "value"),
    [
        (Choices(choices=("a", "b", "c")), 2 / 3, "c"),
        (Range(low=1e-4, high=1e-2, log=True), 0.5, 1e-3),
        (Range(low=16, high=64, log=True, integer=True), 0.5, 32),
        (Range(low=2, high=8, step=2, integer=True), 0.5, 6),
        (Range(low=0.25, high=1.0, step=0.25), 0.25, 0.5),
        (Range(low=0.1, high=0.95, step=0.3), 0.99, 0.7),  # the last step within the range
        (Range(low=3, high=5, integer=True), 0.34, 4),
        (Range(low=10, high=90), 0.25, 30.0),
    ],
)
def test_value_at_a_quantile_by_hand(
    distribution: Distribution, quantile: float, value: Value
) -> None:
    assert designs.value_at_quantile(distribution, quantile) == value


def test_values_have_six_digits_and_values_of_a_step_are_its_decimal_multiples() -> None:
    assert designs.value_at_quantile(Range(low=0, high=1), 1 / 3) == 0.333333
    tenths = Range(low=0.1, high=0.9, step=0.1)
    found = [designs.value_at_quantile(tenths, (i + 0.5) / 9) for i in range(9)]
    assert found == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]  # 0.1 + 6 * 0.1 is not 0.7


def test_rounded_value_stays_within_the_range() -> None:
    narrow = Range(low=0.12345678, high=0.12345679)
    assert designs.value_at_quantile(narrow, 0.5) == 0.12345679  # 0.123457, above the range
    other = Range(low=0.12345611, high=0.12345612)
    assert designs.value_at_quantile(other, 0.5) == 0.12345611  # 0.123456, below the range


@pytest.mark.parametrize(("trials", "rates"), [(1, 1), (3, 1), (4, 2), (5, 2), (8, 4)])
def test_grid_has_as_many_levels_of_a_range_as_fit(trials: int, rates: int) -> None:
    tune: dict[Path, Distribution] = {
        "optim.lr": Range(low=1.0, high=4.0),
        "schedule.kind": Choices(choices=("linear", "constant")),
    }
    points = designs.grid_points(tune, trials)
    assert len(points) == min(trials, 2 * rates)
    levels = {1: {2.5}, 2: {1.0, 4.0}, 4: {1.0, 2.0, 3.0, 4.0}}
    assert {point["optim.lr"] for point in points} == levels[rates]


def test_grid_of_two_ranges_divides_the_trials_equally() -> None:
    """8 ** (1 / 2) is 2.8: two levels each; 125 ** (1 / 3) is 4.999999999999999: five levels."""
    axes: dict[Path, Distribution] = {name: Range(low=0, high=1) for name in "abc"}
    two = {name: axes[name] for name in "ab"}
    assert len(designs.grid_points(two, 8)) == 4
    assert len(designs.grid_points(axes, 125)) == 125
