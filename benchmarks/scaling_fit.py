"""Simulate fits of scaling laws: `python -m benchmarks.scaling_fit`.

Each draw is an experiment: runs at several sizes and budgets, with losses of a known surface and
noise. The table has one row per scenario:

- valid: share of draws in which the law was fitted; the others are refused. All other columns are
  over the valid draws;
- alpha, beta, E, allocation: coverage of the 90 % profile-likelihood intervals (empty where the
  surface is not the law);
- size, size_10: coverage of the compute-optimal size at the largest budget, and at ten times it;
- loss_10: coverage of the mean loss of two new runs at the optimum of ten times the largest budget
  (with outliers, the new runs have them too, and the interval is that of runs without);
- bootstrap: coverage of size_10 by the percentile bootstrap over runs, in 5 % of the draws;
- warned: share of draws with a warning of `lab.scaling.diagnostics`;
- silent: share of draws in which the interval of size_10 misses the truth without a warning;
- ratio, parabola: median of the estimated over the true size_10, by the law and by parabolas.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lab.errors import UserError
from lab.scaling.bootstrap import bootstrap_laws, bootstrap_optimal_sizes
from lab.scaling.diagnostics import ALARM, curvature_p_values, forecast_left_out
from lab.scaling.flops import Floats, proportional
from lab.scaling.law import FitError, Law, fit_law, laws_of, log_inputs
from lab.scaling.optimum import optimal_sizes
from lab.scaling.parabolas import fit_parabolas
from lab.scaling.predictions import predict_batch
from lab.scaling.profiles import law_interval_ends, optimal_size_ends
from lab.scaling.runs import Points
from lab.scaling.solver.batch import FitBatch, fit_batch
from lab.scaling.solver.huber import DELTA

Surface = Callable[[Floats, Floats], Floats]
Noise = Callable[[np.random.Generator, int, int], Floats]  # log losses, of shape (draws, runs)

LEVEL = 0.9
PER_TOKEN = proportional(6.0)
SMALL = Law(E=2.0, A=60.0, B=1500.0, alpha=0.35, beta=0.45)
UNEQUAL = Law(E=2.0, A=20.0, B=30_000.0, alpha=0.25, beta=0.65)
# Besiroglu et al. (2024), table 1.
CHINCHILLA = Law(E=1.8172, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658)
_SEED_NOISE = 0.005


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A kind of experiment.

    Attributes:
        points: sizes, tokens and budgets; losses are replaced.
        surface: expected loss.
        noise: noise of the log losses.
        law: the law, where the surface is one; None for surfaces that are not.
    """

    points: Points
    surface: Surface
    noise: Noise
    law: Law | None = None


def grid(budgets: int, sizes: int, seeds: int, spread: float = 4.0) -> Points:
    """Return runs at budgets from 1e12 to 1e14 FLOPs, with sizes around 2e5 (C / 1e13)^.5."""
    flops = np.repeat(np.geomspace(1e12, 1e14, budgets), sizes * seeds)
    factors = np.tile(np.repeat(np.geomspace(1 / spread, spread, sizes), seeds), budgets)
    parameters = 2e5 * np.sqrt(flops / 1e13) * factors
    tokens = flops / PER_TOKEN(parameters)
    return Points(
        parameters_n=parameters, tokens_n=tokens, losses_n=np.ones_like(flops), budgets_n=flops
    )


def chinchilla_grid() -> Points:
    """Return 240 runs over the ranges of Hoffmann et al.: 9 budgets, 44e6 to 16e9 parameters."""
    budgets = np.geomspace(6e18, 3e21, 9)
    rows = []
    for budget in budgets:
        middle = 0.1 * budget**0.5  # near the optimum
        low, high = max(44e6, middle / 6), min(16e9, middle * 6)
        rows += [(size, budget / (6 * size), budget) for size in np.geomspace(low, high, 27)]
    parameters, tokens, flops = np.array(rows[:240]).T
    return Points(
        parameters_n=parameters, tokens_n=tokens, losses_n=np.ones_like(flops), budgets_n=flops
    )


def seed_noise(deviation: float) -> Noise:
    """Return independent normal noise."""
    return lambda rng, draws, runs: deviation * rng.standard_normal((draws, runs))


def outliers(rng: np.random.Generator, draws: int, runs: int) -> Floats:
    """Return noise in which 6 % of the runs are worse by 5 % of their loss on average."""
    extra = (rng.random((draws, runs)) < 0.06) * rng.exponential(0.05, (draws, runs))
    return _SEED_NOISE * rng.standard_normal((draws, runs)) + extra


def shared_seeds(rng: np.random.Generator, draws: int, runs: int) -> Floats:
    """Return noise of which 30 % of the variance is common to all runs of one of two seeds."""
    common = rng.standard_normal((draws, 2))[:, np.arange(runs) % 2]
    own = rng.standard_normal((draws, runs))
    return np.asarray(_SEED_NOISE * (np.sqrt(0.7) * own + np.sqrt(0.3) * common))


def chosen_rates(rng: np.random.Generator, draws: int, runs: int) -> Floats:
    """Return noise with the cost of a learning rate that one run each chose among four.

    Rates differ by factors of two, the best one is anywhere between two of them, and the log loss
    rises by .02 times the square of the log ratio to the best rate (in reports/isoflop: .006 in the
    median of sizes and budgets). Pairs of runs, the repeats of a size and budget, have one rate.
    """
    best = np.log(2) * rng.uniform(-0.5, 0.5, (draws, runs // 2, 1))
    cost = 0.02 * (np.log(2) * (np.arange(4) - 1.5) - best) ** 2
    found = (cost + _SEED_NOISE * rng.standard_normal(cost.shape)).argmin(axis=2)
    chosen = np.take_along_axis(cost, found[:, :, None], axis=2)[:, :, 0]
    return np.repeat(chosen, 2, axis=1) + _SEED_NOISE * rng.standard_normal((draws, runs))


def third_term(factor: float) -> Surface:
    """Return the law plus a term that grows with the parameters per token, as overfitting does."""
    return lambda n, d: SMALL.loss(n, d) + factor * (n / d / 0.05) ** 0.5


def plateau(level: float) -> Surface:
    """Return the law, with the loss of a predictor that has learned nothing as its upper limit."""
    return lambda n, d: np.asarray(np.minimum(SMALL.loss(n, d), level))


def untuned_rates(parameters: Floats, tokens: Floats) -> Floats:
    """Return the law with a learning rate that was tuned at the smallest size only."""
    return SMALL.loss(parameters, tokens) * np.exp(0.004 * np.log(parameters / 1.6e4) ** 2)


def _right(points: Points, law: Law, noise: Noise) -> Scenario:
    return Scenario(points=points, surface=law.loss, noise=noise, law=law)


def _wrong(surface: Surface) -> Scenario:
    return Scenario(points=grid(5, 6, 2), surface=surface, noise=seed_noise(_SEED_NOISE))


SCENARIOS: dict[str, Scenario] = {
    "seed noise": _right(grid(5, 6, 2), SMALL, seed_noise(_SEED_NOISE)),
    "one seed, 25 runs": _right(grid(5, 5, 1), SMALL, seed_noise(_SEED_NOISE)),
    "three times the noise": _right(grid(5, 6, 2), SMALL, seed_noise(3 * _SEED_NOISE)),
    "outliers": _right(grid(5, 6, 2), SMALL, outliers),
    "seeds shared by all runs": _right(grid(5, 6, 2), SMALL, shared_seeds),
    "rates chosen by one run of each": _right(grid(5, 6, 2), SMALL, chosen_rates),
    "unequal exponents": _right(grid(5, 6, 2), UNEQUAL, seed_noise(_SEED_NOISE)),
    "Chinchilla, 240 runs": _right(chinchilla_grid(), CHINCHILLA, seed_noise(0.01)),
    "third term of 10 % of the loss": _wrong(third_term(0.5)),
    "third term of 1 % of the loss": _wrong(third_term(0.05)),
    "plateau of half of the runs": _wrong(plateau(4.2)),
    "plateau of a tenth of the runs": _wrong(plateau(5.3)),
    "rates tuned at one size": _wrong(untuned_rates),
}


def main() -> None:
    """Simulate the scenarios that the table lacks, print their rows and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling_fit", description=__doc__)
    parser.add_argument("--draws", type=int, default=1_000, help="draws a row (default: 1,000)")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("reports/simulations/scaling_fit.csv"),
        help="CSV file of the table; rows of as many draws that it has are kept, so delete it to "
        "simulate them again (default: %(default)s)",
    )
    arguments = parser.parse_args()
    output: Path = arguments.output
    table = pd.read_csv(output, index_col="scenario") if output.exists() else pd.DataFrame()
    for name, scenario in SCENARIOS.items():
        if name in table.index and table.loc[name, "draws"] == arguments.draws:
            continue
        rates = pd.DataFrame([measure(scenario, arguments.draws)], index=[name]).round(3)
        print(rates.to_string(), flush=True)
        table = pd.concat([table.drop(name, errors="ignore"), rates])
        table = table.loc[[each for each in SCENARIOS if each in table.index]]
        table.to_csv(output, index_label="scenario")


def measure(scenario: Scenario, draws: int, *, bootstrap: bool = True) -> dict[str, float]:
    """Return the rates of one scenario."""
    rng, points = np.random.default_rng(0), scenario.points
    expected = scenario.surface(points.parameters_n, points.tokens_n)
    losses = expected * np.exp(scenario.noise(rng, draws, len(points)))
    inputs = np.broadcast_to(log_inputs(points), (draws, len(points), 2))
    batch = fit_batch(inputs, losses)
    valid = np.flatnonzero(batch.valid_K())
    row = {"runs": float(len(points)), "draws": float(draws), "valid": len(valid) / draws}
    if not len(valid):
        return row
    batch, losses, inputs = batch.take(valid), losses[valid], inputs[valid]
    largest = float(points.budgets_n.max())
    target, truth = 10 * largest, {c: _true_size(scenario, c) for c in (largest, 10 * largest)}
    if scenario.law is not None:
        for name, (low, high) in law_interval_ends(batch, LEVEL).items():
            row[name] = float(np.mean(_covered(low, high, getattr(scenario.law, name))))
    for name, flops in (("size", largest), ("size_10", target)):
        ends = optimal_size_ends(batch, flops, PER_TOKEN, LEVEL)
        covered = _covered(*ends, truth[flops])
        row[name] = float(np.mean(covered))
    row["loss_10"] = float(np.mean(_new_runs(scenario, batch, rng, truth[target], target)))
    if bootstrap and scenario.law is not None:
        row["bootstrap"] = _bootstrap(points, losses[: draws // 20], rng, truth[target])
    warned = curvature_p_values(batch) < ALARM / 2
    out = points.budgets_n == largest
    warned |= forecast_left_out(inputs, losses, out, batch.exponents_Kp, DELTA)[2] < ALARM / 2
    row["warned"], row["silent"] = float(np.mean(warned)), float(np.mean(~warned & ~covered))
    sizes = optimal_sizes(laws_of(batch), target, PER_TOKEN)
    row["ratio"] = float(np.nanmedian(sizes)) / truth[target]
    row["parabola"] = _parabolas(points, losses, target) / truth[target]
    return row


def _covered(low: Floats, high: Floats, truth: float) -> NDArray[np.bool_]:
    return np.asarray((low <= truth) & (truth <= high))


def _true_size(scenario: Scenario, flops: float) -> float:
    """Return the size of the smallest expected loss, by a fine grid."""
    if scenario.law is not None:
        laws = {name: np.array([value]) for name, value in vars(scenario.law).items()}
        return float(optimal_sizes(laws, flops, PER_TOKEN)[0])
    middle = np.sqrt(flops)
    sizes = np.geomspace(1e-4 * middle, middle, 200_001)
    return float(sizes[scenario.surface(sizes, flops / PER_TOKEN(sizes)).argmin()])


def _new_runs(
    scenario: Scenario, batch: FitBatch, rng: np.random.Generator, size: float, flops: float
) -> Floats:
    """Return whether the mean of two new runs at an optimum is in its interval, for each draw."""
    count = len(batch.logs_Kn)
    tokens = flops / PER_TOKEN(np.array([size]))
    point = np.broadcast_to(np.log([size, tokens[0]]), (count, 2))
    _, low, high = predict_batch(batch, point, 2, LEVEL)
    mean = scenario.surface(np.array([size]), tokens) * np.exp(
        scenario.noise(rng, count, 2).mean(axis=1)
    )
    return np.asarray((low <= mean) & (mean <= high), dtype=float)


def _bootstrap(points: Points, losses_Kn: Floats, rng: np.random.Generator, truth: float) -> float:
    covered = []
    for losses in losses_Kn:
        try:
            fit = fit_law(replace(points, losses_n=losses), starts=2)
        except FitError:
            continue
        boot = bootstrap_laws(fit, rng, 200)
        sizes = bootstrap_optimal_sizes(boot, 10 * float(points.budgets_n.max()), PER_TOKEN)
        low, high = np.quantile(sizes, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        covered.append(low <= truth <= high)
    return float(np.mean(covered)) if covered else np.nan


def _parabolas(points: Points, losses_Kn: Floats, flops: float) -> float:
    """Return the median optimal size by parabolas."""
    sizes = []
    for losses in losses_Kn:
        try:
            sizes.append(fit_parabolas(replace(points, losses_n=losses)).size_at(flops))
        except UserError:
            continue
    return float(np.median(sizes)) if sizes else np.nan


if __name__ == "__main__":
    main()
