"""Forecasts and decisions: coverage, regret, accuracy over separable pairs, back-tests."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from benchmarks.scaling_fit import SMALL, grid
from lab.errors import UserError
from lab.scaling.forecasting.back_tests import forecast_each_rung, leave_one_rung_out
from lab.scaling.forecasting.curves import Forecast, forecast_setting
from lab.scaling.forecasting.decisions import (
    decision_accuracy,
    regret,
    separable_pairs,
    wilson_interval,
)
from lab.scaling.forecasting.scoring import calibrate, score_forecasts
from lab.scaling.forecasting.trusted_budget import accuracy_by_budget, cheapest_trusted
from lab.scaling.law import FitError
from lab.scaling.predictions import predict_batch
from lab.scaling.solver.batch import fit_batch

BUDGETS = np.geomspace(1e12, 3e13, 5)


def seeds(mean: float, noise: float = 0.01, count: int = 4, seed: int = 0) -> np.ndarray:
    return mean + noise * np.random.default_rng(seed).standard_normal(count)


def forecast(setting: str, value: float, low: float = 0.0, high: float = math.inf) -> Forecast:
    return Forecast(
        setting=setting, budget=1e14, value=value, low=low, high=high, level=0.9, seeds=4
    )


def curve(budgets: np.ndarray, exponent: float = 0.3, factor: float = 1.0) -> np.ndarray:
    return 2 + factor * (budgets / 1e13) ** -exponent


def test_forecast_of_an_exact_curve_is_exact() -> None:
    found = forecast_setting("a", BUDGETS.repeat(2), curve(BUDGETS).repeat(2), 3e14)
    assert found.value == pytest.approx(float(curve(np.array(3e14))), rel=1e-4)
    assert found.high - found.low < 1e-3


def test_forecasts_of_ten_times_the_largest_budget_have_nominal_coverage() -> None:
    rng, draws = np.random.default_rng(0), 200
    budgets = BUDGETS.repeat(3)
    losses = curve(budgets) * np.exp(0.004 * rng.standard_normal((draws, 15)))
    batch = fit_batch(np.broadcast_to(np.log(budgets)[:, None], (draws, 15, 1)), losses)
    point = np.full((draws, 1), np.log(3e14))
    _, low, high = predict_batch(batch, point, 2, 0.9)
    new = curve(np.full(draws, 3e14)) * np.exp(0.004 / math.sqrt(2) * rng.standard_normal(draws))
    covered = int(((low <= new) & (new <= high)).sum())
    assert stats.binom.ppf(0.0005, draws, 0.85) <= covered <= stats.binom.ppf(0.9995, draws, 0.95)


def test_curves_of_two_budgets_and_of_rising_losses_are_refused() -> None:
    with pytest.raises(FitError, match="3 budgets or more"):
        forecast_setting("a", BUDGETS[:2].repeat(3), curve(BUDGETS[:2]).repeat(3), 1e14)
    with pytest.raises(FitError, match="no curve over budgets"):
        forecast_setting("a", BUDGETS, 1 / curve(BUDGETS), 1e14)


def test_only_separable_pairs_count() -> None:
    observed = {
        "a": seeds(3.0),
        "b": seeds(3.5, seed=1),
        "c": seeds(3.5, seed=2),
        "d": seeds(1)[:1],
    }
    assert separable_pairs(observed) == (("a", "b"), ("a", "c"))
    found = decision_accuracy({"a": 1.0, "b": 2.0, "c": 0.5, "d": 0.0}, observed)
    assert (found.right, found.pairs, found.share) == (1, 2, 0.5)
    none = decision_accuracy({"b": 1.0, "c": 2.0}, observed)
    assert (none.pairs, none.low, none.high) == (0, 0.0, 1.0)


def test_wilson_interval_is_that_of_scipy() -> None:
    for right, trials in ((0, 5), (4, 5), (17, 40)):
        expected = stats.binomtest(right, trials).proportion_ci(0.9, method="wilson")
        assert wilson_interval(right / trials, trials, 0.9) == pytest.approx(tuple(expected))


def test_interval_of_the_accuracy_covers_that_of_other_settings() -> None:
    rng, covered, truth = np.random.default_rng(0), 0, []
    draws = []
    for _ in range(100):
        means = rng.standard_normal(6)
        observed = {str(i): seeds(m, 0.05, seed=i) for i, m in enumerate(means)}
        predicted = {str(i): m + 0.7 * rng.standard_normal() for i, m in enumerate(means)}
        draws.append(decision_accuracy(predicted, observed))
        truth.append(draws[-1].share)
    mean = float(np.mean(truth))
    covered = sum(draw.low <= mean <= draw.high for draw in draws)
    assert covered / 100 >= 0.85


def test_regret_is_the_loss_that_the_choice_costs() -> None:
    observed = {"a": np.array([3.0]), "b": np.array([3.2])}
    assert regret({"a": 1.0, "b": 2.0}, observed) == 0.0
    assert regret({"a": 2.0, "b": 1.0}, observed) == pytest.approx(0.2)


def test_report_has_errors_coverage_and_the_baseline() -> None:
    observed = {"a": seeds(3.0), "b": seeds(3.5, seed=1)}
    made = [forecast("a", 3.1, 3.0 - 0.1, 3.2), forecast("b", 3.6, 3.55, 3.7), forecast("c", 1.0)]
    found = score_forecasts(made, observed, baseline={"a": 4.0, "b": 3.9})
    assert [error.covered for error in found.errors] == [True, False]
    assert found.errors[0].error == pytest.approx(3.1 - observed["a"].mean())
    assert (found.regret, found.decisions.share) == (0.0, 1.0)
    assert found.baseline_regret == pytest.approx(observed["b"].mean() - observed["a"].mean())
    assert found.baseline_decisions.share == 0.0
    record = calibrate(found.errors)
    assert (record.forecasts, record.covered, record.nominal) == (2, 0.5, 0.9)
    assert record.low < 0.5 < record.high
    with pytest.raises(UserError, match="needs runs of the settings"):
        score_forecasts(made[2:], observed, {})
    with pytest.raises(UserError, match="none has been scored"):
        calibrate([])


def scores() -> dict[float, dict[str, np.ndarray]]:
    """Losses of two settings whose order changes between the second and the third budget."""
    found = {}
    for i, budget in enumerate(BUDGETS):
        slow, fast = curve(budget, 0.1, 0.8), curve(budget, 0.5, 0.6)
        found[float(budget)] = {
            "slow": seeds(float(slow), 0.002, seed=2 * i),
            "fast": seeds(float(fast), 0.002, seed=2 * i + 1),
        }
    return found


def test_back_test_foresees_a_change_of_order_that_one_size_does_not() -> None:
    late = {budget: cells for budget, cells in scores().items() if budget < 6e12}
    target = 3e14
    late[target] = {
        "slow": seeds(float(curve(np.array(target), 0.1, 0.8)), 0.002),
        "fast": seeds(float(curve(np.array(target), 0.5, 0.6)), 0.002, seed=1),
    }
    (found,) = forecast_each_rung(late)
    assert found.budget == target
    assert found.report is not None
    assert found.report.decisions.share == 1.0
    assert found.report.baseline_decisions.share == (1.0 if _order_at_largest(late) else 0.0)


def _order_at_largest(cells: dict[float, dict[str, np.ndarray]]) -> bool:
    nearest = cells[sorted(cells)[-2]]
    return bool(nearest["fast"].mean() < nearest["slow"].mean())


def test_back_test_names_a_setting_that_cannot_be_forecast() -> None:
    rising = {b: {"a": 1 / cells["slow"]} for b, cells in scores().items()}
    found = forecast_each_rung(rising)
    assert [test.report for test in found] == [None, None]
    assert all("no curve over budgets" in test.problem for test in found)


def test_law_without_a_rung_predicts_it() -> None:
    points = grid(5, 5, 2)
    noise = 0.003 * np.random.default_rng(0).standard_normal(len(points))
    losses = SMALL.loss(points.parameters_n, points.tokens_n) * np.exp(noise)
    found = leave_one_rung_out(replace(points, losses_n=losses))
    assert len(found) == 25
    assert len({held.budget for held in found}) == 5
    assert np.mean([held.covered for held in found]) >= 0.7
    assert max(abs(np.log(held.predicted / held.observed)) for held in found) < 0.05


def test_cheapest_trusted_budget_is_that_from_which_all_decisions_hold() -> None:
    means = {"a": 3.0, "b": 3.2, "c": 3.4, "d": 3.6, "e": 3.8, "f": 4.0}
    right = {name: seeds(m, 0.01, seed=i) for i, (name, m) in enumerate(means.items())}
    wrong = {name: 7 - losses for name, losses in right.items()}
    rows = accuracy_by_budget({1e10: right, 1e11: wrong, 1e12: right, 1e13: right, 1e14: right})
    assert [row.accuracy.share for row in rows] == [1.0, 0.0, 1.0, 1.0]
    assert cheapest_trusted(rows, 0.6) == 1e12
    assert cheapest_trusted(rows, 0.99) is None
    with pytest.raises(UserError, match="two budgets or more, got 1"):
        accuracy_by_budget({1e10: right})
