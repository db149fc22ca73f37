"""Settings of several sweeps are compared by honest intervals: between sweeps, unpaired ones."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from frames.compared_sweeps import FIRST, SECOND, read, sweep
from scipy import stats as scipy_stats
from simulated.sweeps import METRIC

from lab.reporting import intervals
from lab.reporting.comparison.joint_answer import compare_sweeps
from lab.tracking.frames import SweepFrames


def table(of_sweep: SweepFrames) -> pd.DataFrame:
    return of_sweep.trials.pivot_table(index="repeat", columns="cell", values="score")


def test_interval_between_sweeps_equals_that_of_games_and_howell_in_scipy() -> None:
    """Also with different numbers of repeats; equal numbers of repeats do not pair them."""
    answer = compare_sweeps(read(sweep("one", FIRST), sweep("two", SECOND)))
    assert answer is not None
    assert [cell.label for cell in answer.cells] == ["one / a", "one / b", "two / c"]
    groups = [FIRST["a"], FIRST["b"], SECOND["c"]]
    expected = scipy_stats.tukey_hsd(*groups, equal_var=False).confidence_interval(0.95)
    actual = answer.cells[2].difference
    assert actual is not None
    width = (actual.high - actual.low) / (expected.high[2, 0] - expected.low[2, 0])
    assert 1 - 1e-4 <= width <= 1.03  # degrees of freedom are rounded down
    assert actual.mean == pytest.approx((expected.low[2, 0] + expected.high[2, 0]) / 2)


def test_interval_of_two_sweeps_with_a_setting_each_equals_that_of_welch_in_scipy() -> None:
    answer = compare_sweeps(read(sweep("one", {"a": FIRST["a"]}), sweep("two", SECOND)))
    assert answer is not None
    welch = scipy_stats.ttest_ind(SECOND["c"], FIRST["a"], equal_var=False)
    expected, actual = welch.confidence_interval(0.95), answer.cells[1].difference
    assert actual is not None
    assert actual.high - actual.low == pytest.approx(expected.high - expected.low, rel=0.03)
    assert actual.high - actual.low >= (expected.high - expected.low) * (1 - 1e-4)


def test_repeats_of_one_sweep_are_paired() -> None:
    """A cell gains nothing from a repeat that failed and in which the other scores low."""
    first = sweep("one", {"a": [0.71, 0.73, 0.72, 0.64], "b": [0.70, 0.7195, 0.7105, math.nan]})
    answer = compare_sweeps(read(first, sweep("two", SECOND)))
    assert answer is not None
    assert [cell.label for cell in answer.cells] == ["one / a", "one / b", "two / c"]
    assert answer.cells[1].difference == intervals.difference_interval(table(first), "b", "a", 3)


def test_order_of_sweeps_changes_no_number() -> None:
    sweeps = read(sweep("one", FIRST), sweep("two", SECOND))
    answers = [compare_sweeps(sweeps), compare_sweeps(sweeps[::-1])]
    assert answers[0] is not None
    assert answers[0] == answers[1]


def test_diverged_repeat_has_the_worst_score_of_all_sweeps() -> None:
    first = sweep("one", {"a": [0.71, 0.73, 0.70, math.nan]})
    first.trials["state"] = first.trials["state"].replace("failed", "diverged")
    answer = compare_sweeps(read(first, sweep("two", {"c": [0.72, 0.71, 0.20]})))
    assert answer is not None
    own = {cell.label: cell for cell in answer.cells}["one / a"]
    gap = np.mean([0.71, 0.73, 0.70, 0.20]) - np.mean([0.72, 0.71, 0.20])
    other = next(cell for cell in answer.cells if cell.difference is not None)
    assert other.difference is not None
    assert abs(other.difference.mean) == pytest.approx(abs(gap))
    assert (own.score.n, own.diverged) == (3, 1)


def search(of_sweep: SweepFrames) -> SweepFrames:
    """Add a search trial of the repeated setting of each cell, and a better one of another."""
    repeats = of_sweep.trials.assign(tuned="lr 1")
    first = repeats[repeats["repeat"] == 1].assign(role="search", repeat=0)
    others = first.assign(tuned="lr 2", number=first["number"] + 50, score=first["score"] - 0.01)
    found = pd.concat([repeats, first, others], ignore_index=True)
    return dataclasses.replace(of_sweep, trials=found)


def repeat_all(of_sweep: SweepFrames) -> SweepFrames:
    """Return a sweep in which a second setting of each cell was repeated, too."""
    trials = of_sweep.trials.assign(role="search", tuned="lr 1")
    others = trials.assign(tuned="lr 2", number=trials["number"] + 50)
    others["score"] -= 0.002 * others["repeat"]
    both = pd.concat([trials, others], ignore_index=True)
    return dataclasses.replace(of_sweep, trials=both)


@pytest.mark.parametrize("design", [search, repeat_all])
def test_error_of_a_selection_is_in_the_intervals_between_sweeps(
    design: Callable[[SweepFrames], SweepFrames],
) -> None:
    first, second = sweep("one", FIRST), sweep("two", SECOND)
    plain, selected = (compare_sweeps(read(each, second)) for each in (first, design(first)))
    assert plain is not None
    assert selected is not None
    gaps = [each.cells[2].difference for each in (plain, selected)]
    assert gaps[0] is not None
    assert gaps[1] is not None
    assert gaps[1].mean == pytest.approx(gaps[0].mean)
    assert gaps[1].low < gaps[0].low - 1e-4
    assert gaps[1].high >= gaps[0].high


def test_error_of_the_test_set_is_in_the_intervals_between_sweeps() -> None:
    first, second = sweep("one", FIRST), sweep("two", SECOND)
    plain = compare_sweeps(read(first, second))
    generator = np.random.default_rng(0)
    parts = {"one": generator.normal(0, 0.02, 30), "two": generator.normal(0, 0.02, 30)}
    known = [
        dataclasses.replace(
            each,
            blocks={
                (int(number), METRIC): (parts[each.name] + generator.normal(0, 1e-4, 30)).tolist()
                for number in each.trials["number"]
            },
        )
        for each in (first, second)
    ]
    wider = compare_sweeps(read(*known))
    assert plain is not None
    assert wider is not None
    assert math.isnan(plain.test_error)
    shared = math.sqrt(30 * np.var(parts["one"] - parts["two"], ddof=1))
    assert wider.test_error == pytest.approx(shared, rel=0.05)
    gaps = [each.cells[2].difference for each in (plain, wider)]
    assert gaps[0] is not None
    assert gaps[1] is not None
    assert gaps[1].high - gaps[1].mean > gaps[0].high - gaps[0].mean


def test_equal_cells_of_different_sweeps_are_rarely_told_apart() -> None:
    generator = np.random.default_rng(0)
    wrong = 0
    for _ in range(40):
        noisy = {cell: generator.normal(0.7, 0.02, 4) for cell in "ab"}
        quiet = {cell: generator.normal(0.7, 0.005, 3) for cell in "cd"}
        answer = compare_sweeps(read(sweep("one", noisy), sweep("two", quiet)))
        assert answer is not None
        wrong += len(answer.tied_labels) < 4
    assert wrong <= 6  # 2 expected at the level of 5 %; binomial: exceeded with probability 0.3 %
