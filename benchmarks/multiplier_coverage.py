"""Simulate intervals of compute multipliers: `python -m benchmarks.multiplier_coverage`.

Its output of 1,000 draws is reports/simulations/compute_multiplier.txt.

Two settings have the same learning curve, except that one of them needs a fraction of the other's
FLOPs for the same score. A simulated sweep measures both at several budgets with some seeds, with
normal noise and a part of it that a seed has at all budgets. The noise is given as the
share of the score's gain over the last doubling of the reference's budget. The table shows, for
each scenario:

- coverage: share of sweeps with an interval of `lab.reporting.compute` that contains the
  true fraction, where an end that cannot be given contains all values on its side;
- no limit: share of sweeps without a lower or without an upper end;
- width: median width of the intervals with two ends, in doublings of compute;
- bootstrap: coverage of the percentile bootstrap over seeds, which version 0.2.0 used;
- bound: share of sweeps in which the upper limit from scores during training, of the longest runs
  alone, is not below the true fraction. It is at least .95 in the worst case, which is simulated:
  scores during training are as good as those of shorter runs.
"""

import argparse
import math
from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lab.reporting.compute.learning_curves import ScorePoints
from lab.reporting.compute.test_inversion import Goal, bound_from_training, invert_test

Floats = NDArray[np.float64]
Curve = Callable[[Floats], Floats]  # score as a function of FLOPs / the reference's largest budget

_RESAMPLES = 200
_EVALUATIONS = np.arange(1, 9) / 8
_SHARED = 0.5  # standard deviation of the noise that all budgets share, relative to the other one


def main() -> None:
    """Print a table of all scenarios."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.multiplier_coverage", description=__doc__
    )
    parser.add_argument("--draws", type=int, default=1_000, help="sweeps a row (default: 1,000)")
    draws = parser.parse_args().draws
    rows = [
        {"curve": name, "budgets": f"{count} by {step:g}", "fraction": fraction}
        | {"noise": noise, "seeds": seeds}
        | measure(curve, step ** np.arange(1.0 - count, 1.0), fraction, noise, seeds, draws)
        for name, curve in CURVES.items()
        for count, step in ((3, 1.5), (3, 2.1), (5, 2))
        for fraction in (0.5, 0.8)
        for noise in (0.1, 0.5, 2.0)
        for seeds in (3, 4, 8)
    ]
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3f}".format, na_rep="-"))


CURVES: dict[str, Curve] = {
    "power law": lambda flops: -(flops**-0.15),
    "saturating": lambda flops: 1 - 0.3 * flops**-0.7,
    "sigmoid": lambda flops: 1 / (1 + (0.5 / flops) ** 1.5),
}


def measure(
    curve: Curve, budgets_K: Floats, fraction: float, noise: float, seeds: int, draws: int
) -> dict[str, float]:
    """Return the rates of one scenario.

    Args:
        curve: learning curve of the reference.
        budgets_K: budgets, relative to the largest one.
        fraction: FLOPs of the better setting for the score of the reference, relative to its own.
        noise: standard deviation between seeds, in units of the gain over the last doubling.
        seeds: number of seeds.
        draws: number of simulated sweeps.
    """
    rng = np.random.default_rng(0)
    deviation = noise * float(curve(np.ones(1))[0] - curve(np.full(1, 0.5))[0])
    covered = unlimited = boot = bounded = 0
    widths = []
    for _ in range(draws):
        best = _points(rng, curve(budgets_K / fraction), budgets_K, deviation, seeds)
        reference = _points(rng, curve(budgets_K), budgets_K, deviation, seeds)
        goal = Goal(flops=1.0, scores_R=reference.scores_RK[:, -1])
        found = invert_test(best, goal)
        covered += found.low <= fraction <= found.high
        if found.low == 0 or math.isinf(found.high):
            unlimited += 1
        else:
            widths.append(math.log2(found.high / found.low))
        boot += _is_in_bootstrap(rng, best, reference, fraction)
        during = curve(_EVALUATIONS / fraction)
        longest = _points(rng, during, _EVALUATIONS, deviation, seeds)
        bound = bound_from_training(longest, goal)
        bounded += bound is None or bound.factor >= fraction
    return {
        "coverage": covered / draws,
        "no limit": unlimited / draws,
        "width": float(np.median(widths)) if widths else math.nan,
        "bootstrap": boot / draws,
        "bound": bounded / draws,
    }


def _points(
    rng: np.random.Generator, scores_K: Floats, flops_K: Floats, deviation: float, seeds: int
) -> ScorePoints:
    own = rng.standard_normal((seeds, len(flops_K)))
    shared = _SHARED * rng.standard_normal((seeds, 1))
    scale = deviation / math.hypot(1, _SHARED)
    return ScorePoints(
        flops_K=flops_K,
        scores_RK=scores_K + scale * (own + shared),
        repeats=tuple(range(1, seeds + 1)),
    )


def _is_in_bootstrap(
    rng: np.random.Generator, best: ScorePoints, reference: ScorePoints, fraction: float
) -> bool:
    """Return whether the percentile bootstrap of the interpolated fraction contains the true one.

    A resample in which the score is not reached has an infinite fraction; one in which the first
    budget has a better score has the fraction 0.
    """
    seeds = len(best.repeats)
    drawn = rng.integers(seeds, size=(_RESAMPLES, seeds))
    curves = best.scores_RK[drawn].mean(axis=1)
    goals = reference.scores_RK[drawn, -1].mean(axis=1)
    above = curves >= goals[:, None]
    after = above.argmax(axis=1)
    before = np.maximum(after - 1, 0)
    rows, known = np.arange(_RESAMPLES), np.log(best.flops_K)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (goals - curves[rows, before]) / (curves[rows, after] - curves[rows, before])
        fractions = np.exp(known[before] + share * (known[after] - known[before]))
    fractions[after == 0] = 0.0
    fractions[~above.any(axis=1)] = math.inf
    fractions.sort()
    tail = _RESAMPLES // 40
    return bool(fractions[tail] <= fraction <= fractions[-tail - 1])


if __name__ == "__main__":
    main()
