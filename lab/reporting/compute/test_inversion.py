"""Limits of the compute that one setting needs for a score of another one, by inverting a test.

The interval contains each factor m for which the difference between the scores of the best setting
at m C FLOPs and of the reference at C FLOPs is not significant. The scores at m C FLOPs are
interpolated over the logarithm of FLOPs, in each repeat separately, so the interval takes account
of scores that are correlated within a repeat (Fieller's method, for a curve in place of a line). It
is unbounded where the measured budgets do not limit the factor. The difference between two kinds of
interpolation counts as its error. `benchmarks.multiplier_coverage` simulates the coverage.

Letters: R repeats, K amounts of compute with a score, M factors.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.interpolate import CubicHermiteSpline

from lab.reporting.compute.learning_curves import ScorePoints
from lab.reporting.intervals import LEVEL, Floats

_FACTORS = 1_000  # tested factors, equally spaced on a logarithmic scale


@dataclass(frozen=True, kw_only=True)
class Goal:
    """Scores that the best setting is to reach.

    Attributes:
        flops: training FLOPs of the reference.
        scores_R: score of the reference in each repeat; larger is better.
        test_error: standard error of a difference from them due to the finite test set.
    """

    flops: float
    scores_R: Floats
    test_error: float = 0.0


@dataclass(frozen=True, kw_only=True)
class MultiplierInterval:
    """Estimate and 95 % interval of the factor between the FLOPs of two settings.

    Attributes:
        factor: FLOPs with which the best setting reaches the reference's score at its largest
            budget, divided by that budget; NaN if it is outside of the measured budgets.
        low: lower end of the interval; 0 if there is none.
        high: upper end of the interval; infinite if there is none.
        budgets: number of budgets of the best setting.
    """

    factor: float
    low: float
    high: float
    budgets: int


@dataclass(frozen=True, kw_only=True)
class MultiplierBound:
    """Upper 95 % limit of the factor between the FLOPs of two settings, from one budget.

    Attributes:
        factor: share of the reference's FLOPs from which on all scores of the best setting are
            significantly better than the reference's last score.
    """

    factor: float


def invert_test(best: ScorePoints, goal: Goal) -> MultiplierInterval:
    """Return the interval of factors at which the two settings do not differ significantly.

    Args:
        best: scores of the best setting at the ends of runs of several budgets.
        goal: scores of the reference in the same repeats.
    """
    known = np.log(best.flops_K / goal.flops)
    factors_M = np.linspace(known[0], known[-1], _FACTORS)
    scores_RM = _interpolate(known, best.scores_RK, factors_M)
    straight_RM = np.stack([np.interp(factors_M, known, row) for row in best.scores_RK])
    mean_M, half_M = _differences(scores_RM, goal, (1 + LEVEL) / 2)
    half_M = half_M + np.abs((scores_RM - straight_RM).mean(axis=0))
    low, high = _limits(np.exp(factors_M), mean_M + half_M >= 0, mean_M - half_M <= 0)
    return MultiplierInterval(
        factor=_crossing(factors_M, mean_M), low=low, high=high, budgets=len(known)
    )


def _limits(
    factors_M: Floats, not_worse_M: NDArray[np.bool_], not_better_M: NDArray[np.bool_]
) -> tuple[float, float]:
    """Return the first factor that is not significantly worse and the last that is not better.

    The limits are 0 and infinite if these are the first and the last of all factors.
    """
    low = factors_M[not_worse_M.argmax()] if not_worse_M.any() else factors_M[-1]
    high = factors_M[::-1][not_better_M[::-1].argmax()] if not_better_M.any() else factors_M[0]
    return (
        0.0 if not_worse_M[0] else float(min(low, high)),
        math.inf if not_better_M[-1] else float(max(low, high)),
    )


def _interpolate(known_K: Floats, scores_RK: Floats, points_M: Floats) -> Floats:
    """Return scores between known points, shape (R, M), by a cubic Hermite spline.

    Its slope at each point is that of the parabola through three neighboring points. Its error is
    of third order in their distance, so that the curvature of a learning curve biases a factor less
    than with straight lines. It is linear in the scores.
    """
    slopes_RK = np.gradient(scores_RK, known_K, axis=1, edge_order=2)
    return np.asarray(CubicHermiteSpline(known_K, scores_RK, slopes_RK, axis=1)(points_M))


def bound_from_training(best: ScorePoints, goal: Goal) -> MultiplierBound | None:
    """Return the share of compute from which on the best setting is significantly better.

    Scores are not interpolated between evaluations. A run with that share as its budget would have
    a better score, because its learning rate would have decayed; so the share is an upper limit.

    Args:
        best: scores of the best setting at its evaluations.
        goal: scores of the reference in the same repeats.

    Returns:
        None if it is not better before the end of its runs.
    """
    mean_K, half_K = _differences(best.scores_RK, goal, LEVEL)
    behind = np.nonzero(mean_K - half_K <= 0)[0]
    first = int(behind[-1]) + 1 if len(behind) else 0
    if first >= len(mean_K) - 1:
        return None
    return MultiplierBound(factor=float(best.flops_K[first] / goal.flops))


def _differences(scores_RM: Floats, goal: Goal, probability: float) -> tuple[Floats, Floats]:
    """Return means of paired differences from the goal, and their half widths.

    Args:
        scores_RM: scores of each repeat at some amounts of compute.
        goal: scores of the reference in the same repeats.
        probability: probability of the quantile of the t distribution.
    """
    gaps_RM = scores_RM - goal.scores_R[:, None]
    R = len(gaps_RM)
    errors_M = gaps_RM.std(axis=0, ddof=1) / math.sqrt(R)
    test_half = stats.norm.ppf(probability) * goal.test_error
    return gaps_RM.mean(axis=0), np.hypot(stats.t.ppf(probability, R - 1) * errors_M, test_half)


def _crossing(factors_M: Floats, mean_M: Floats) -> float:
    """Return the first factor at which the mean difference becomes positive; NaN without one."""
    after = int((mean_M >= 0).argmax())
    if after == 0:
        return math.nan
    before = after - 1
    share = -mean_M[before] / (mean_M[after] - mean_M[before])
    return float(np.exp(factors_M[before] + share * (factors_M[after] - factors_M[before])))
