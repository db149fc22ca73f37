"""Scores over compute: the best line, and the compute that the best cell saves.

A score taken in the middle of a run is taken before its learning rate has decayed and is worse
than that of a run planned to end there. The best line and the compute multiplier read such
scores, hence understate cheap budgets, and the multiplier overstates the compute needed.
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
    """Share of the reference's FLOPs at which the best cell reaches the reference's end score.

    `share` and both ends of its bootstrap interval may be inf: never reached. The ends are NaN
    with fewer than two repeats.
    """

    share: float
    low: float
    high: float


def best_so_far(frames: SweepFrames, axis: str) -> pd.DataFrame:
    """Return the best score so far over `axis` (`spent/flops`, ...), any trial, any time of it.

    Returns:
        columns `axis` and the ranking metric, one row where the line improves.
    """
    name = frames.metric.name
    points = frames.curves[[axis, name]].dropna().sort_values(axis, kind="stable")
    upwards = frames.metric.direction == "maximize"
    running = points[name].cummax() if upwards else points[name].cummin()
    return points.assign(**{name: running}).drop_duplicates(name).reset_index(drop=True)


def compute_multiplier(
    frames: SweepFrames, runs: pd.DataFrame, best: str, reference: str
) -> ComputeMultiplier:
    """Return how much of the reference's compute `best` needs for the reference's end score.

    The mean curve of `best` is interpolated linearly between scored points. Its scores on the
    way are taken before the learning rate has decayed, so the true share is smaller. The
    interval is a percentile bootstrap over repeats, drawn together for both cells.
    """
    name = frames.metric.name
    curves = {
        number: curve[["spent/flops", name]].dropna().to_numpy(dtype=float)
        for number, curve in frames.curves.groupby("number")
    }
    mine, theirs = (runs[runs["cell"] == cell].set_index("repeat") for cell in (best, reference))
    common = [repeat for repeat in mine.index if repeat in theirs.index]
    paths = [curves[mine["number"][repeat]] for repeat in common]
    goals = theirs["score"].reindex(common).to_numpy(dtype=float)
    budgets = theirs["spent/flops"].reindex(common).to_numpy(dtype=float)
    if not common:
        return ComputeMultiplier(share=math.nan, low=math.nan, high=math.nan)
    sign = 1.0 if frames.metric.direction == "maximize" else -1.0

    def share(drawn: NDArray[np.intp]) -> float:
        goal = float(np.mean(goals[drawn]))
        return _reach([paths[i] for i in drawn], goal, sign) / float(np.mean(budgets[drawn]))

    n = len(common)
    whole = share(np.arange(n))
    if n < 2:
        return ComputeMultiplier(share=whole, low=math.nan, high=math.nan)
    chance = np.random.default_rng(0)
    draws = np.sort([share(chance.integers(n, size=n)) for _ in range(_DRAWS)])
    tail = int(_DRAWS * (1 - LEVEL) / 2)
    return ComputeMultiplier(share=whole, low=float(draws[tail]), high=float(draws[-tail - 1]))


def _reach(paths: list[Floats], goal: float, sign: float) -> float:
    """Return the compute at which the mean of `paths` (compute, score) first reaches `goal`."""
    grid = np.unique(np.concatenate([path[:, 0] for path in paths]))
    grid = grid[grid <= min(path[-1, 0] for path in paths) * (1 + 1e-9)]
    mean = np.mean([np.interp(grid, path[:, 0], path[:, 1]) for path in paths], axis=0)
    above = np.nonzero(sign * (mean - goal) >= 0)[0]
    if not len(above):
        return math.inf
    i = int(above[0])
    if i == 0:  # the reference learned nothing: no share of its compute says anything
        return math.nan
    part = (goal - mean[i - 1]) / (mean[i] - mean[i - 1])
    return float(grid[i - 1] + part * (grid[i] - grid[i - 1]))
