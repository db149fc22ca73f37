"""Scores over compute: the best score so far, and the compute multiplier of the best cell.

A score from the middle of a trial is taken before the learning rate has decayed, so it is worse
than the score of a trial with a budget that ends there. Both results are computed from such
scores: they understate small budgets, and the multiplier overstates the compute needed.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lab.reporting.intervals import LEVEL, Floats
from lab.tracking.frames import SweepFrames

_DRAWS = 1_000


@dataclass(frozen=True, kw_only=True)
class ComputeMultiplier:
    """FLOPs that the best cell needs for the reference's final score, relative to the reference's.

    Attributes:
        share: fraction of the reference's FLOPs; inf if the score is not reached, NaN if the
            fraction is undefined.
        low: lower end of the 95 % bootstrap interval of `share`; NaN with fewer than two repeats.
        high: upper end of the interval; may be inf.
    """

    share: float
    low: float
    high: float


def best_so_far(frames: SweepFrames, axis: str) -> pd.DataFrame:
    """Return the best score so far over `axis` (`spent/flops`, ...), over all trials.

    Returns:
        Columns `axis` and the ranking metric; one row for each improvement.
    """
    name = frames.metric.name
    points = frames.curves[[axis, name]].dropna().sort_values(axis, kind="stable")
    maximize = frames.metric.direction == "maximize"
    best = points[name].cummax() if maximize else points[name].cummin()
    return points.assign(**{name: best}).drop_duplicates(name).reset_index(drop=True)


def compute_multiplier(
    frames: SweepFrames, runs: pd.DataFrame, best: str, reference: str
) -> ComputeMultiplier:
    """Return the fraction of the reference's compute that `best` needs for the same final score.

    The mean curve of `best` is interpolated linearly between evaluations. Scores before the end of
    a trial are taken before the learning rate has decayed, so the true fraction is smaller. The
    interval is a percentile bootstrap over the repeats that both cells have in common.

    Args:
        frames: frames of the sweep.
        runs: trials by which the cells are compared (`stats.scored_trials`).
        best: label of the best cell.
        reference: label of the reference cell.
    """
    name = frames.metric.name
    curves = {
        number: curve[["spent/flops", name]].dropna().to_numpy(dtype=float)
        for number, curve in frames.curves.groupby("number")
    }
    best_runs, reference_runs = (
        runs[runs["cell"] == cell].set_index("repeat") for cell in (best, reference)
    )
    common = [repeat for repeat in best_runs.index if repeat in reference_runs.index]
    paths = [curves[best_runs["number"][repeat]] for repeat in common]
    goals = reference_runs["score"].reindex(common).to_numpy(dtype=float)
    budgets = reference_runs["spent/flops"].reindex(common).to_numpy(dtype=float)
    if not common:
        return ComputeMultiplier(share=math.nan, low=math.nan, high=math.nan)
    sign = 1.0 if frames.metric.direction == "maximize" else -1.0

    def compute_share(drawn: NDArray[np.intp]) -> float:
        goal = float(np.mean(goals[drawn]))
        return _flops_to_reach([paths[i] for i in drawn], goal, sign) / float(
            np.mean(budgets[drawn])
        )

    n = len(common)
    estimate = compute_share(np.arange(n))
    if n < 2:
        return ComputeMultiplier(share=estimate, low=math.nan, high=math.nan)
    generator = np.random.default_rng(0)
    draws = np.sort([compute_share(generator.integers(n, size=n)) for _ in range(_DRAWS)])
    tail = int(_DRAWS * (1 - LEVEL) / 2)
    return ComputeMultiplier(share=estimate, low=float(draws[tail]), high=float(draws[-tail - 1]))


def _flops_to_reach(paths: list[Floats], goal: float, sign: float) -> float:
    """Return the FLOPs at which the mean of `paths` (FLOPs, score) first reaches `goal`."""
    grid = np.unique(np.concatenate([path[:, 0] for path in paths]))
    grid = grid[grid <= min(path[-1, 0] for path in paths) * (1 + 1e-9)]
    mean = np.mean([np.interp(grid, path[:, 0], path[:, 1]) for path in paths], axis=0)
    reached = np.nonzero(sign * (mean - goal) >= 0)[0]
    if not len(reached):
        return math.inf
    i = int(reached[0])
    if i == 0:  # the reference ends no better than untrained: the fraction is undefined
        return math.nan
    fraction = (goal - mean[i - 1]) / (mean[i] - mean[i - 1])
    return float(grid[i - 1] + fraction * (grid[i] - grid[i - 1]))
