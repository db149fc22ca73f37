"""Forecasts and decisions: coverage, regret, accuracy over separable pairs, back-tests."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from benchmarks.scaling_fit import SMALL
from lab.errors import UserError
from lab.scaling.forecasting.back_tests import leave_one_rung_out, leave_rung_out
from lab.scaling.forecasting.curves import curve_parameters, fit_curve, predict_curve
from lab.scaling.forecasting.decisions import (
    decision_accuracy,
    regret,
    separable_pairs,
    wilson_interval,
)
from lab.scaling.forecasting.designs import (
    Design,
    choose_law,
    forecast_designs,
    rank_at,
    ranking_budget,
)
from lab.scaling.forecasting.scoring import (
    Forecast,
    NothingToScoreError,
    calibrate,
    score_forecasts,
)
from lab.scaling.forecasting.trusted_budget import accuracy_by_budget, cheapest_trusted
from lab.scaling.law import FitError
from lab.scaling.predictions import Prediction, predict_batch
from lab.scaling.runs import Points, Run
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
    fitted = fit_curve(BUDGETS.repeat(2), curve(BUDGETS).repeat(2))
    assert curve_parameters(fitted)["gamma"] == pytest.approx(0.3, rel=1e-3)
    found = predict_curve(fitted, 3e14)
    assert found.loss == pytest.approx(float(curve(np.array(3e14))), rel=1e-4)
    low, high = found.mean_ends(1)
    assert high - low < 1e-3


def test_interval_that_the_runs_do_not_limit_stays_open() -> None:
    found = Prediction(loss=2.0, low=0.0, high=math.inf, noise=0.1, level=0.9)
    assert found.mean_ends(4) == (0.0, math.inf)


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
        fit_curve(BUDGETS[:2].repeat(3), curve(BUDGETS[:2]).repeat(3))
    with pytest.raises(FitError, match="no curve over budgets"):
        fit_curve(BUDGETS, 1 / curve(BUDGETS))


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
    assert regret({"b": 1.0}, observed) == pytest.approx(0.2)
    assert math.isnan(regret({"c": 1.0}, observed))


def test_report_has_errors_coverage_and_the_baseline() -> None:
    observed = {"a": seeds(3.0), "b": seeds(3.5, seed=1)}
    made = [forecast("a", 3.1, 3.0 - 0.1, 3.2), forecast("b", 3.6, 3.55, 3.7), forecast("c", 1.0)]
    found = score_forecasts(made, observed, baseline={"a": 4.0, "b": 3.9})
    assert [error.covered for error in found.errors] == [True, False]
    assert found.errors[0].error == pytest.approx(3.1 - observed["a"].mean())
    assert (found.regret, found.decisions.share) == (0.0, 1.0)
    assert found.baseline_regret == pytest.approx(observed["b"].mean() - observed["a"].mean())
    assert found.baseline_decisions.share == 0.0
    record = calibrate([found.errors[:1], found.errors[1:], ()])
    assert record is not None
    assert (record.forecasts, record.laws, record.covered, record.nominal) == (2, 2, 1, 0.9)
    assert record.low < 0.5 < record.high
    of_one_law = calibrate([found.errors])
    assert of_one_law is not None
    assert (of_one_law.low, of_one_law.high) == wilson_interval(0.5, 1, 0.9)
    with pytest.raises(NothingToScoreError, match="needs runs of the settings"):
        score_forecasts(made[2:], observed, {})
    assert calibrate([]) is None


def designs_of(points: Points, budgets: slice = slice(None)) -> list[Design]:
    """Return one design for each of five sizes, whose budgets are those of `points`."""
    rungs = np.unique(points.budgets_n)[budgets]
    found = []
    for size in np.unique(points.parameters_n):
        runs = tuple(
            Run(name="", parameters=n, tokens=d, budget=c, loss=loss)
            for n, d, loss, c in zip(
                points.parameters_n, points.tokens_n, points.losses_n, points.budgets_n, strict=True
            )
            if n == size and c in rungs
        )
        found.append(Design(name=f"{size:.0f}", group="", flops_per_token=6.0 * size, runs=runs))
    return found


def sized_points(noise: float = 0.003) -> Points:
    """Return runs of five sizes at five budgets, two seeds each, by the law `SMALL`."""
    sizes = np.geomspace(3e4, 6e5, 5)
    flops, parameters = (
        each.repeat(2)
        for each in map(np.ravel, np.meshgrid(np.geomspace(1e12, 1e14, 5), sizes, indexing="ij"))
    )
    tokens = flops / (6 * parameters)
    drawn = noise * np.random.default_rng(0).standard_normal(len(flops))
    losses = SMALL.loss(parameters, tokens) * np.exp(drawn)
    return Points(parameters_n=parameters, tokens_n=tokens, losses_n=losses, budgets_n=flops)


def test_designs_of_a_law_are_forecast_and_ranked_by_it() -> None:
    designs = designs_of(sized_points(), slice(0, 4))
    assert choose_law(designs) == "size_and_data"
    found = forecast_designs(designs, 1e14, "size_and_data")
    truth = [float(SMALL.loss(np.array(d.parameters), np.array(d.tokens))) for d in found.designs]
    values = [each.prediction.loss for each in found.designs]
    assert values == pytest.approx(truth, rel=0.01)
    assert np.argsort(values).tolist() == np.argsort(truth).tolist()
    assert found.laws[""].keys() == {"E", "A", "B", "alpha", "beta"}
    assert all(each.tokens == pytest.approx(1e14 / (6 * each.parameters)) for each in found.designs)


def test_designs_of_too_few_sizes_have_curves_of_their_own() -> None:
    points = sized_points(noise=0.0)
    designs = designs_of(points)[3:]
    assert choose_law(designs) == "curves"
    found = forecast_designs(designs, 1e15, "curves")
    assert found.laws.keys() == {design.name for design in designs}
    with pytest.raises(FitError, match=f"^{designs[0].name}: a curve over budgets needs"):
        forecast_designs([each.at_budgets([1e12]) for each in designs], 1e15, "curves")


def test_forecast_of_more_epochs_than_a_law_holds_for_has_a_warning() -> None:
    designs = [
        replace(each, runs=tuple(replace(run, epochs=run.tokens / 1e8) for run in each.runs))
        for each in designs_of(sized_points())
    ]
    found = forecast_designs(designs, 2e14, "size_and_data")
    epochs = [each.tokens / 1e8 for each in found.designs]
    assert [each.epochs for each in found.designs] == pytest.approx(epochs)
    warned = [each for each in found.warnings if "epochs" in each]
    assert len(warned) == sum(value > 4 for value in epochs) == 2
    assert warned[0].startswith(f"{designs[0].name}: {epochs[0]:.1f} epochs")


def test_baseline_ranks_at_the_largest_smaller_budget_with_most_designs() -> None:
    designs = designs_of(sized_points(noise=0.0))
    budgets = designs[0].budgets
    assert ranking_budget(designs, 1e15) == budgets[-1]
    assert ranking_budget(designs, budgets[0]) == budgets[0]
    lacking = [designs[0].at_budgets(budgets[:3]), *designs[1:]]
    assert ranking_budget(lacking, 1e15) == budgets[2]
    assert rank_at(lacking, budgets[3]).keys() == {each.name for each in designs[1:]}


def test_each_budget_is_forecast_from_the_others_and_from_smaller_ones() -> None:
    found = leave_one_rung_out(designs_of(sized_points()), "size_and_data")
    budgets = sorted({test.budget for test in found})
    assert [test.budget for test in found] == [*budgets, *budgets[2:4]]
    assert found[4].others == tuple(budgets[:4])
    assert found[5].others == tuple(budgets[:2])
    reports = [test.report for test in found if test.report is not None]
    assert len(reports) >= 6
    errors = [error for report in reports for error in report.errors]
    assert len(errors) == 5 * len(reports)
    assert np.mean([error.covered for error in errors]) >= 0.7
    assert max(abs(error.relative) for error in errors) < 0.05


def test_law_without_a_budget_predicts_it() -> None:
    points = sized_points()
    largest = float(points.budgets_n.max())
    found = leave_rung_out(points, largest)
    assert [held.parameters for held in found] == sorted(set(points.parameters_n))
    assert {held.budget for held in found} == {largest}
    assert sum(held.covered for held in found) >= 4
    assert max(abs(np.log(held.predicted / held.observed)) for held in found) < 0.02
    assert leave_rung_out(points.take(points.budgets_n == largest), largest) == ()


def test_back_test_foresees_a_change_of_order_that_one_budget_does_not() -> None:
    """The smaller size is better at small budgets, and the law knows that it will not stay so."""
    sizes, budgets = np.geomspace(3e4, 3e6, 5), np.geomspace(1e12, 1e15, 6)
    flops, parameters = (
        each.repeat(3) for each in map(np.ravel, np.meshgrid(budgets, sizes, indexing="ij"))
    )
    tokens = flops / (6 * parameters)
    noise = 0.001 * np.random.default_rng(0).standard_normal(len(flops))
    losses = SMALL.loss(parameters, tokens) * np.exp(noise)
    designs = designs_of(
        Points(parameters_n=parameters, tokens_n=tokens, losses_n=losses, budgets_n=flops)
    )
    kept = [each.at_budgets([*budgets[:4], budgets[5]]) for each in designs]
    largest = leave_one_rung_out(kept, "size_and_data")[4]
    assert largest.report is not None
    assert largest.report.decisions.share > largest.report.baseline_decisions.share
    assert largest.report.regret <= largest.report.baseline_regret


def test_back_test_names_a_design_that_cannot_be_forecast() -> None:
    rising = tuple(
        Run(name="", parameters=1.0, tokens=b, budget=b, loss=float(1 / curve(b))) for b in BUDGETS
    )
    design = Design(name="a", group="", flops_per_token=1.0, runs=(*rising, *rising))
    found = leave_one_rung_out([design], "curves")
    assert [test.report for test in found] == [None] * 7
    assert all("no curve over budgets" in test.problem for test in found[:5])
    (alone,) = leave_one_rung_out([design.at_budgets(BUDGETS[:1])], "curves")
    assert alone.problem == "its designs have runs at no other budget"


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
