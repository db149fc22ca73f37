"""Compute multipliers: the FLOPs that one setting needs for the score of another one.

A multiplier with an interval needs scores at the ends of runs of several budgets: a score from the
middle of a run whose learning rate decays is worse than that of a run which ends there. Such scores
give an upper limit only.
"""

import math
from dataclasses import dataclass

import pandas as pd

from lab.reporting.compute.learning_curves import (
    ScorePoints,
    decays,
    end_points,
    reference_label,
    setting_labels,
    training_points,
)
from lab.reporting.compute.test_inversion import (
    Goal,
    MultiplierBound,
    MultiplierInterval,
    bound_from_training,
    invert_test,
)
from lab.reporting.intervals import Floats
from lab.tracking.frames import SweepFrames

_FEWEST_BUDGETS = 3
_WIDEST_STEP = 2.1  # largest ratio of neighboring budgets


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
    frames: SweepFrames, runs: pd.DataFrame, best: str, test_error: float = math.nan
) -> ComputeMultiplier | None:
    """Return the compute multiplier of the best cell's setting against the reference setting.

    Args:
        frames: frames of the sweep.
        runs: trials by which the cells are compared (`stats.scored_trials`).
        best: label of the best cell.
        test_error: standard error of a difference from the reference due to the finite test set;
            NaN if it is unknown.

    Returns:
        None if the settings are the same, have fewer than two repeats in common, or if their scores
        limit the multiplier on neither side.
    """
    labels, reference = setting_labels(frames, runs), reference_label(frames)
    name = str(labels[runs["cell"] == best].iloc[0])
    ours, theirs = runs[labels == name], runs[labels == reference]
    if name == reference or theirs.empty:
        return None
    pair = _common(end_points(frames, ours), end_points(frames, theirs), test_error)
    if pair is not None and _are_dense(pair[0].flops_K):
        interval = invert_test(*pair)
        found = None if interval.low == 0 and math.isinf(interval.high) else interval
        return _statement(name, reference, pair[1], found)
    ours, theirs = (runs[runs["cell"] == cell] for cell in (best, frames.reference))
    pair = _common(training_points(frames, ours), training_points(frames, theirs), test_error)
    if pair is None or not decays(ours):
        return None
    return _statement(name, reference, pair[1], bound_from_training(*pair))


def _are_dense(flops_K: Floats) -> bool:
    """Return whether budgets are many and close enough to interpolate scores between them."""
    return len(flops_K) >= _FEWEST_BUDGETS and bool(
        (flops_K[1:] <= _WIDEST_STEP * flops_K[:-1]).all()
    )


def _common(
    ours: ScorePoints | None, theirs: ScorePoints | None, test_error: float
) -> tuple[ScorePoints, Goal] | None:
    """Return the points of a setting, and the last ones of the reference, in common repeats.

    Returns:
        None with fewer than two common repeats.
    """
    if ours is None or theirs is None:
        return None
    repeats = tuple(repeat for repeat in ours.repeats if repeat in theirs.repeats)
    if len(repeats) < 2:
        return None
    goal = Goal(
        flops=float(theirs.flops_K[-1]),
        scores_R=theirs.select(repeats).scores_RK[:, -1],
        test_error=0.0 if math.isnan(test_error) else test_error,
    )
    return ours.select(repeats), goal


def _statement(
    best: str, reference: str, goal: Goal, value: MultiplierInterval | MultiplierBound | None
) -> ComputeMultiplier | None:
    if value is None:
        return None
    return ComputeMultiplier(best=best, reference=reference, flops=goal.flops, value=value)
