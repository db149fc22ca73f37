"""Which runs are fitted, and the trend of the learning rate."""

import math

import numpy as np
import pytest

from lab.errors import UserError
from lab.scaling.hygiene import plateau_end, select_runs
from lab.scaling.rate_trend import RateOptimum, best_rate, fit_rate_trend
from lab.scaling.runs import Run, points_of


def run(name: str, **changes: object) -> Run:
    values = {"parameters": 1e5, "tokens": 1e7, "budget": 6e12, "loss": 3.0} | changes
    return Run(name=name, **values)


def test_each_unfit_run_is_excluded_with_its_reason() -> None:
    runs = [
        run("kept", untrained=9.0, plateau_end=1e6, epochs=4.0),
        run("diverged", diverged=True, loss=math.nan),
        run("without loss", loss=math.inf),
        run("mid-decay", cooled_down=False),
        run("five epochs", epochs=5.0),
        run("untrained", untrained=3.0),
        run("on the plateau", plateau_end=2e7),
        run("never left", plateau_end=math.inf),
    ]
    found = select_runs(runs)
    assert [each.name for each in found.kept] == ["kept"]
    reasons = {each.run.name: each.reason for each in found.excluded}
    assert len(reasons) == len(runs) - 1
    for name, word in {
        "diverged": "diverged",
        "without loss": "loss is inf",
        "mid-decay": "not cooled down",
        "five epochs": "5.0 epochs",
        "untrained": "no better than untrained",
        "on the plateau": "before its plateau",
        "never left": "has not left its plateau",
    }.items():
        assert word in reasons[name]
    assert len(points_of(found.kept)) == 1


def test_runs_of_one_trunk_are_a_group_and_other_runs_are_their_own() -> None:
    assert points_of([run("a"), run("b")]).groups_n is None
    trunks = ["x", "", "y", "x", ""]
    points = points_of([run(str(n), trunk=trunk) for n, trunk in enumerate(trunks)])
    assert points.groups_n is not None
    assert points.groups_n.tolist() == [0, 1, 2, 0, 3]
    kept = points.take(np.array([0, 3])).groups_n
    assert kept is not None
    assert kept.tolist() == [0, 0]


def test_plateau_ends_where_the_loss_stays_below_it() -> None:
    tokens = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert plateau_end(tokens, np.array([7.0, 6.0, 7.0, 5.0, 4.0]), 7.0, 0.5) == 4.0
    assert plateau_end(tokens, np.full(5, 5.0), 7.0, 0.5) == 1.0
    assert plateau_end(tokens, np.full(5, 6.9), 7.0, 0.5) == math.inf


def optimum(size: float, tokens: float, noise: float = 0.0) -> RateOptimum:
    rate = 0.3 * size**-0.4 * tokens**-0.1 * math.exp(noise)
    return RateOptimum(predictors={"parameters": size, "tokens": tokens}, rate=rate, problem="")


def test_vertex_of_a_parabola_is_the_best_rate_and_edges_are_named() -> None:
    rates = np.geomspace(1e-4, 1e-2, 7)
    losses = np.exp(1 + 0.02 * np.log(rates / 1.3e-3) ** 2)
    found = best_rate({"parameters": 1e5}, np.repeat(rates, 2), np.repeat(losses, 2))
    assert found.problem == ""
    assert found.rate == pytest.approx(1.3e-3)
    assert best_rate({}, rates[:3], losses[:3]).problem == "minimum at the edge of the rates"
    assert best_rate({}, rates[:2], losses[:2]).problem.startswith("2 rates")
    assert best_rate({}, rates, 1 / losses).problem
    diverged = np.where(rates > 5e-3, np.nan, losses)
    assert best_rate({}, rates, diverged).rate == pytest.approx(1.3e-3)


def test_trend_recovers_the_exponents_of_size_and_horizon() -> None:
    optima = [optimum(n, d) for n in (1e4, 1e5, 1e6) for d in (1e7, 1e8)]
    trend = fit_rate_trend(optima, ["parameters", "tokens"])
    assert trend.exponent("parameters").value == pytest.approx(-0.4)
    assert trend.exponent("tokens").value == pytest.approx(-0.1)
    found = trend.rate(parameters=1e7, tokens=1e9)
    assert found.value == pytest.approx(optimum(1e7, 1e9).rate)
    assert found.low == pytest.approx(found.high)


def test_interval_of_the_trend_has_nominal_coverage() -> None:
    rng, covered = np.random.default_rng(0), 0
    truth = optimum(1e7, 1e7).rate
    for _ in range(400):
        noise = 0.1 * rng.standard_normal(5)
        optima = [optimum(n, 1e7, e) for n, e in zip(np.geomspace(1e4, 1e6, 5), noise, strict=True)]
        found = fit_rate_trend(optima, ["parameters"]).rate(parameters=1e7)
        covered += found.low <= truth * math.exp(0.1 * rng.standard_normal()) <= found.high
    assert 0.85 <= covered / 400 <= 0.95


def test_trend_of_two_sizes_or_of_one_batch_is_refused() -> None:
    two = [optimum(n, d) for n in (1e4, 1e5) for d in (1e7, 1e8)]
    with pytest.raises(UserError, match="3 sizes or more, got 2"):
        fit_rate_trend(two, ["parameters"])
    one_horizon = [optimum(n, 1e7) for n in (1e4, 1e5, 1e6)]
    with pytest.raises(UserError, match="3 points determine 2 of its 3 coefficients"):
        fit_rate_trend(one_horizon, ["parameters", "tokens"])
    exact = fit_rate_trend([optimum(n, n) for n in (1e4, 1e5, 1e6)], ["parameters"])
    with pytest.raises(UserError, match="needs parameters"):
        exact.rate(batch=8.0)
