"""Intervals: coverage where the law is right, warnings where it is wrong, and their identities."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from benchmarks.scaling_fit import SCENARIOS, SMALL, grid, measure, third_term
from lab.scaling.bootstrap import (
    bootstrap_laws,
    bootstrap_optimal_sizes,
    decide_size,
    percentile_interval,
    resample_within,
)
from lab.scaling.diagnostics import check_fit, leave_largest_out
from lab.scaling.flops import proportional
from lab.scaling.law import LawFit, fit_law
from lab.scaling.optimum import optimal_allocation
from lab.scaling.predictions import predict_losses
from lab.scaling.profiles import law_intervals, optimal_size_intervals

DRAWS = 150
SIX = proportional(6.0)


@pytest.fixture(scope="module")
def fit() -> LawFit:
    points = grid(5, 6, 2)
    noise = np.random.default_rng(7).standard_normal(len(points))
    losses = SMALL.loss(points.parameters_n, points.tokens_n) * np.exp(0.005 * noise)
    return fit_law(replace(points, losses_n=losses))


@pytest.mark.parametrize("name", ["seed noise", "outliers"])
def test_intervals_of_a_right_law_have_nominal_coverage(name: str) -> None:
    found = measure(SCENARIOS[name], DRAWS, bootstrap=False)
    # Accepted are shares that a coverage of .85 to .95 gives in 999 of 1,000 simulations.
    low, high = (stats.binom.ppf(q, DRAWS, p) / DRAWS for q, p in ((0.0005, 0.85), (0.9995, 0.95)))
    for quantity in ("alpha", "beta", "E", "allocation", "size", "size_10", "loss_10"):
        assert low <= found[quantity] <= high, quantity
    assert found["valid"] == 1.0
    assert found["warned"] <= stats.binom.ppf(0.9995, DRAWS, 0.05) / DRAWS


@pytest.mark.parametrize("name", ["third term of 10 % of the loss", "rates tuned at one size"])
def test_wrong_law_gets_a_warning(name: str) -> None:
    found = measure(SCENARIOS[name], DRAWS // 3)
    assert found["warned"] >= 0.9
    assert found["silent"] <= 0.1


def test_parabolas_are_biased_where_the_exponents_differ_and_the_law_is_not() -> None:
    found = measure(SCENARIOS["unequal exponents"], 40, bootstrap=False)
    assert found["ratio"] == pytest.approx(1.0, abs=0.03)
    assert found["parabola"] < 0.85


def test_profile_of_the_optimal_size_contains_the_estimate_and_widens_with_the_budget(
    fit: LawFit,
) -> None:
    widths = []
    budgets = np.array([1e13, 1e14, 1e15])
    for flops, found in zip(budgets, optimal_size_intervals(fit, budgets, SIX), strict=True):
        assert found.low < found.value < found.high
        assert found.value == pytest.approx(optimal_allocation(fit.law, flops, SIX).parameters)
        widths.append(np.log(found.high / found.low))
    assert widths == sorted(widths)


def test_intervals_contain_each_other_by_level(fit: LawFit) -> None:
    narrow, wide = law_intervals(fit, 0.5), law_intervals(fit, 0.95)
    for name, inner in narrow.items():
        assert wide[name].low < inner.low < inner.value < inner.high < wide[name].high


def test_interval_of_exact_losses_is_a_point() -> None:
    points = grid(5, 6, 1)
    exact = fit_law(replace(points, losses_n=SMALL.loss(points.parameters_n, points.tokens_n)))
    found = law_intervals(exact)["allocation"]
    assert found.high - found.low < 0.01
    assert found.value == pytest.approx(SMALL.allocation, rel=1e-3)


def test_prediction_at_a_run_has_the_noise_of_a_run(fit: LawFit) -> None:
    points = fit.points
    middle = len(points) // 2
    place = float(points.parameters_n[middle]), float(points.tokens_n[middle])
    (found,) = predict_losses(fit, *(np.array([value]) for value in place))
    assert found.loss == pytest.approx(float(fit.law.loss(*map(np.array, place))))
    (low, high), many = found.mean_ends(1), found.mean_ends(10_000)
    half = np.log(high / low) / 2
    expected = stats.t.ppf(0.95, len(points) - 5) * fit.deviation
    assert expected < half < 1.3 * expected
    assert np.log(many[1] / many[0]) / 2 < 0.5 * half
    assert many == pytest.approx((found.low, found.high), rel=1e-4)


def test_bootstrap_is_stratified_and_agrees_with_the_profile(fit: LawFit) -> None:
    rng, budgets = np.random.default_rng(0), fit.points.budgets_n
    index = resample_within(budgets, rng, 20)
    assert (budgets[index] == budgets).all()
    assert len(np.unique(index[0])) < len(budgets)
    boot = bootstrap_laws(fit, rng, 200)
    assert boot.failed <= 0.05
    sizes = bootstrap_optimal_sizes(boot, 1e15, SIX)
    (profile,) = optimal_size_intervals(fit, np.array([1e15]), SIX)
    ends = percentile_interval(sizes, profile.value, 0.9)
    assert 0.6 < np.log(ends.high / ends.low) / np.log(profile.high / profile.low) < 1.7


def test_runs_of_one_trunk_are_resampled_together() -> None:
    rng = np.random.default_rng(0)
    budgets, trunks = np.repeat([1.0, 2.0, 4.0], 5), np.tile(np.arange(5), 3)
    index = resample_within(budgets, rng, 2_000, trunks)
    assert (budgets[index] == budgets).all()
    drawn = trunks[index].reshape(-1, 3, 5)
    assert (drawn == drawn[:, :1]).all(), "all budgets of a trunk are those of one other trunk"
    counts = np.bincount(drawn[:, 0].ravel(), minlength=5) / drawn[:, 0].size
    assert counts == pytest.approx(np.full(5, 0.2), abs=0.02)
    assert len({tuple(row) for row in drawn[:, 0].tolist()}) > 1_000


def test_each_budget_is_resampled_uniformly_if_a_trunk_lacks_one() -> None:
    budgets = np.array([1.0, 1.0, 2.0, 2.0, 2.0])
    trunks = np.array([0, 2, 0, 1, 2])
    index = resample_within(budgets, np.random.default_rng(0), 4_000, trunks)
    assert (budgets[index] == budgets).all()
    for slot, choices in enumerate([2, 2, 3, 3, 3]):
        shares = np.unique(index[:, slot], return_counts=True)[1] / len(index)
        assert shares == pytest.approx(np.full(choices, 1 / choices), abs=0.03)


def test_decision_names_the_size_next_to_the_optimum(fit: LawFit) -> None:
    boot = bootstrap_laws(fit, np.random.default_rng(0), 100)
    shares = decide_size(boot, fit.points, 1e13, SIX)
    assert sum(row.share for row in shares) == pytest.approx(1.0)
    best = max(shares, key=lambda row: row.share)
    optimum = optimal_allocation(SMALL, 1e13, SIX).parameters
    nearest = min(shares, key=lambda row: abs(np.log(row.parameters / optimum)))
    assert abs(np.log(best.parameters / nearest.parameters)) < np.log(1.8)


def test_leave_largest_out_forecasts_the_largest_budget(fit: LawFit) -> None:
    left = leave_largest_out(fit)
    assert left.law is not None
    assert left.budget == pytest.approx(1e14)
    assert abs(left.error) < 0.02
    assert check_fit(fit) == ()


def test_warnings_of_a_wrong_law_are_sentences() -> None:
    points = grid(5, 6, 2)
    noise = 0.005 * np.random.default_rng(0).standard_normal(len(points))
    losses = third_term(0.5)(points.parameters_n, points.tokens_n) * np.exp(noise)
    found = check_fit(fit_law(replace(points, losses_n=losses)))
    assert found
    assert all("budget" in text or "residuals are curved" in text for text in found)
