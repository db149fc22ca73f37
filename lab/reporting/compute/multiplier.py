"""Compute multipliers: the FLOPs that one setting needs for the score of another one.

A multiplier with an interval needs scores at the ends of runs of several budgets: a score from the
middle of a run whose learning rate decays is worse than that of a run which ends there. The
interval inverts a test: it contains each factor m for which the difference between the scores of
the best setting at m C FLOPs and of the reference at C FLOPs is not significant. The scores at m C
FLOPs are interpolated over the logarithm of FLOPs, in each repeat separately, so the interval takes
account of scores that are correlated within a repeat (Fieller's method, for a curve in place of a
line). It is unbounded where the measured budgets do not limit the factor. The error of the
interpolation is unknown, so the interval contains those of two kinds of it, and budgets that are
far apart give none. `benchmarks.multiplier_coverage` simulates the coverage.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from scipy.interpolate import CubicHermiteSpline

from lab.reporting.intervals import LEVEL, Floats
from lab.reporting.compute.learning_curves import (
    ScorePoints,
    decays,
    end_points,
    reference_label,
    setting_labels,
    training_points,
)
from lab.tracking.frames import SweepFrames

_FEWEST_BUDGETS = 3
_WIDEST_STEP = 2.5  # largest ratio of neighboring budgets
_FACTORS = 1_000  # tested factors, equally spaced on a logarithmic scale


class _Factors(NamedTuple):
    """Estimate and limits of a factor (see `MultiplierInterval`)."""

    factor: float
    low: float
    high: float


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


@dataclass(frozen=True, kw_only=True)
class ComputeMultiplier:
    """A statement on the FLOPs that the best setting needs for the score of the reference.

    Attributes:
        best: label of the best setting, without the budget.
        reference: label of the reference setting, without the budget.
        flops: largest budget of the reference in FLOPs.
        value: interval, or upper limit.
    """

    best: str
    reference: str
    flops: float
    value: MultiplierInterval | MultiplierBound


def compute_multiplier(
    frames: SweepFrames, runs: pd.DataFrame, best: str
) -> ComputeMultiplier | None:
    """Return the compute multiplier of the best cell's setting against the reference setting.

    Args:
        frames: frames of the sweep.
        runs: trials by which the cells are compared (`stats.scored_trials`).
        best: label of the best cell.

    Returns:
        None if the settings are the same, have fewer than two repeats in common, or if their scores
        limit the multiplier on neither side.
    """
    labels, reference = setting_labels(frames, runs), reference_label(frames)
    name = str(labels[runs["cell"] == best].iloc[0])
    ours, theirs = runs[labels == name], runs[labels == reference]
    if name == reference or theirs.empty:
        return None
    pair = _common(end_points(frames, ours), end_points(frames, theirs))
    if pair is not None and _are_dense(pair[0].flops_K):
        interval = invert_test(*pair)
        found = None if interval.low == 0 and math.isinf(interval.high) else interval
        return _statement(name, reference, pair[1], found)
    ours, theirs = (runs[runs["cell"] == cell] for cell in (best, frames.reference))
    pair = _common(training_points(frames, ours), training_points(frames, theirs))
    if pair is None or not decays(ours):
        return None
    return _statement(name, reference, pair[1], bound_from_training(*pair))


def _are_dense(flops_K: Floats) -> bool:
    """Return whether budgets are many and close enough to interpolate scores between them."""
    return len(flops_K) >= _FEWEST_BUDGETS and bool(
        (flops_K[1:] <= _WIDEST_STEP * flops_K[:-1]).all()
    )


def _common(
    ours: ScorePoints | None, theirs: ScorePoints | None
) -> tuple[ScorePoints, ScorePoints] | None:
    """Return the points of both settings in their common repeats; None with fewer than two."""
    if ours is None or theirs is None:
        return None
    repeats = tuple(repeat for repeat in ours.repeats if repeat in theirs.repeats)
    return (ours.select(repeats), theirs.select(repeats)) if len(repeats) > 1 else None


def _statement(
    best: str,
    reference: str,
    theirs: ScorePoints,
    value: MultiplierInterval | MultiplierBound | None,
) -> ComputeMultiplier | None:
    flops = float(theirs.flops_K[-1])
    return (
        None
        if value is None
        else ComputeMultiplier(best=best, reference=reference, flops=flops, value=value)
    )


def invert_test(best: ScorePoints, reference: ScorePoints) -> MultiplierInterval:
    """Return the interval of factors at which the two settings do not differ significantly.

    Args:
        best: scores of the best setting at the ends of runs of several budgets.
        reference: scores of the reference in the same repeats; the last one is compared.
    """
    known = np.log(best.flops_K / reference.flops_K[-1])
    factors_M = np.linspace(known[0], known[-1], _FACTORS)
    by_spline = _invert(factors_M, _interpolate(known, best.scores_RK, factors_M), reference)
    straight_RM = np.stack([np.interp(factors_M, known, row) for row in best.scores_RK])
    by_lines = _invert(factors_M, straight_RM, reference)
    return MultiplierInterval(
        factor=by_spline.factor,
        low=min(by_spline.low, by_lines.low),
        high=max(by_spline.high, by_lines.high),
        budgets=len(known),
    )


def _invert(factors_M: Floats, scores_RM: Floats, reference: ScorePoints) -> _Factors:
    """Return the factors at which scores do not differ significantly from the reference's last.

    Args:
        factors_M: natural logarithms of the factors, increasing.
        scores_RM: scores of each repeat at these factors.
        reference: scores of the reference in the same repeats.
    """
    mean_M, half_M = _differences(scores_RM, reference, (1 + LEVEL) / 2)
    not_worse, not_better = mean_M + half_M >= 0, mean_M - half_M <= 0
    factors = np.exp(factors_M)
    low = factors[not_worse.argmax()] if not_worse.any() else factors[-1]
    high = factors[::-1][not_better[::-1].argmax()] if not_better.any() else factors[0]
    return _Factors(
        factor=_crossing(factors_M, mean_M),
        low=0.0 if not_worse[0] else float(min(low, high)),
        high=math.inf if not_better[-1] else float(max(low, high)),
    )


def _interpolate(known_K: Floats, scores_RK: Floats, points_M: Floats) -> Floats:
    """Return scores between known points, shape (R, M), by a cubic Hermite spline.

    Its slope at each point is that of the parabola through three neighboring points. Its error is
    of third order in their distance, so that the curvature of a learning curve biases a factor less
    than with straight lines. It is linear in the scores.
    """
    slopes_RK = np.gradient(scores_RK, known_K, axis=1, edge_order=2)
    return np.asarray(CubicHermiteSpline(known_K, scores_RK, slopes_RK, axis=1)(points_M))


def bound_from_training(best: ScorePoints, reference: ScorePoints) -> MultiplierBound | None:
    """Return the share of compute from which on the best setting is significantly better.

    Scores are not interpolated between evaluations. A run with that share as its budget would have
    a better score, because its learning rate would have decayed; so the share is an upper limit.

    Args:
        best: scores of the best setting at its evaluations.
        reference: scores of the reference in the same repeats; the last one is compared.

    Returns:
        None if it is not better before the end of its runs.
    """
    mean_K, half_K = _differences(best.scores_RK, reference, LEVEL)
    behind = np.nonzero(mean_K - half_K <= 0)[0]
    first = int(behind[-1]) + 1 if len(behind) else 0
    if first >= len(mean_K) - 1:
        return None
    return MultiplierBound(factor=float(best.flops_K[first] / reference.flops_K[-1]))


def _differences(
    scores_RM: Floats, reference: ScorePoints, probability: float
) -> tuple[Floats, Floats]:
    """Return means of paired differences from the reference's last score, and their half widths.

    Args:
        scores_RM: scores of each repeat at some amounts of compute.
        reference: scores of the reference in the same repeats.
        probability: probability of the quantile of the t distribution.
    """
    gaps_RM = scores_RM - reference.scores_RK[:, -1:]
    R = len(gaps_RM)
    quantile = float(stats.t.ppf(probability, R - 1))
    return gaps_RM.mean(axis=0), quantile * gaps_RM.std(axis=0, ddof=1) / math.sqrt(R)


def _crossing(factors_M: Floats, mean_M: Floats) -> float:
    """Return the first factor at which the mean difference becomes positive; NaN without one."""
    after = int((mean_M >= 0).argmax())
    if after == 0:
        return math.nan
    before = after - 1
    share = -mean_M[before] / (mean_M[after] - mean_M[before])
    return float(np.exp(factors_M[before] + share * (factors_M[after] - factors_M[before])))
