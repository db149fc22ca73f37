"""Sampling error of the finite test set, and intervals that contain it.

All trials are scored on the same test set, so repeats on more seeds do not reduce its error. A
trial stores the contribution of each block of the test set to its score (`SweepFrames.blocks`). The
error of a mean over repeats is estimated from the part of the contributions that the repeats share,
their covariance: the part in which repeats differ is contained in the variance between seeds.
"""

import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pandas as pd
from scipy import stats

from lab.config.metrics import untrained_name
from lab.reporting.intervals import LEVEL, Floats, Interval
from lab.reporting.studentized_range import range_quantile
from lab.tracking.frames import SweepFrames


@dataclass(frozen=True, kw_only=True)
class TestSetErrors:
    """Standard errors of mean scores and of their differences due to the finite test set.

    Attributes:
        blocks: contributions to the score, one row for each repeat and one column for each block,
            by the label of the cell; without cells whose contributions are unknown.
        untrained: the same of the score at step 0.
    """

    __test__ = False  # pytest shall not collect this class

    blocks: dict[str, pd.DataFrame]
    untrained: dict[str, pd.DataFrame]

    def of_mean(self, label: str) -> float:
        """Return the standard error of a cell's mean score; NaN if it is unknown."""
        return shared_error(self.blocks[label]) if label in self.blocks else math.nan

    def of_difference(self, label: str, other: str) -> float:
        """Return the standard error of the difference between two cells; NaN if it is unknown."""
        return _difference_error(self.blocks.get(label), self.blocks.get(other))

    def of_gain(self, label: str) -> float:
        """Return the standard error of a cell's mean gain since step 0; NaN if it is unknown."""
        return _difference_error(self.blocks.get(label), self.untrained.get(label))


def _difference_error(first: pd.DataFrame | None, second: pd.DataFrame | None) -> float:
    if first is None or second is None or first.shape[1] != second.shape[1]:  # other test sets
        return math.nan
    return shared_error((first - second).dropna())


def read_errors(frames: SweepFrames, runs: pd.DataFrame) -> TestSetErrors:
    """Return the errors of the ranking metric for the compared trials.

    Args:
        frames: frames of the sweep.
        runs: trials by which the cells are compared (`stats.scored_trials`).
    """
    name = frames.metric.name
    return TestSetErrors(
        blocks=_read_contributions(frames, runs, name),
        untrained=_read_contributions(frames, runs, untrained_name(name)),
    )


def _read_contributions(
    frames: SweepFrames, runs: pd.DataFrame, name: str
) -> dict[str, pd.DataFrame]:
    """Return the contributions of a name in `SweepFrames.blocks` by repeat, for each cell."""
    by_cell = {}
    for label, group in runs.groupby("cell"):
        numbers = dict(zip(group["repeat"], group["number"], strict=True))
        rows = {repeat: frames.blocks.get((number, name), []) for repeat, number in numbers.items()}
        if len({len(row) for row in rows.values()}) == 1 and all(rows.values()):
            by_cell[str(label)] = pd.DataFrame.from_dict(rows, orient="index")
    return by_cell


def shared_error(contributions: pd.DataFrame) -> float:
    """Return the standard error of a sum over blocks, of the part that all repeats share.

    Args:
        contributions: one row for each repeat and one column for each block.

    Returns:
        NaN with fewer than two repeats or blocks.
    """
    values_RB = contributions.to_numpy(dtype=float)
    R, B = values_RB.shape
    if R < 2 or B < 2:
        return math.nan
    covariances_RR: Floats = B * np.cov(values_RB)
    shared = (covariances_RR.sum() - np.trace(covariances_RR)) / (R * (R - 1))
    return math.sqrt(max(0.0, float(shared)))


def add_test_error(interval: Interval, error: float, settings: int = 2) -> Interval:
    """Return an interval that contains the error of the test set in addition to that of the seeds.

    The distances of the ends from the mean are combined as the square root of their sum of squares
    (the method of variance estimates recovery, Zou and Donner 2008), so the result is never
    narrower.

    Args:
        interval: interval that contains the error of the seeds.
        error: standard error due to the test set; NaN if it is unknown.
        settings: number of settings for which the interval holds at once.
    """
    if math.isnan(error) or math.isnan(interval.low):
        return interval
    half = known_error_quantile(settings) * error
    return replace(
        interval,
        low=interval.mean - math.hypot(interval.mean - interval.low, half),
        high=interval.mean + math.hypot(interval.high - interval.mean, half),
    )


@cache
def known_error_quantile(settings: int) -> float:
    """Return half the width of a simultaneous interval for a known standard error of 1."""
    if settings == 2:
        return float(stats.norm.ppf((1 + LEVEL) / 2))
    return range_quantile(LEVEL, settings, math.inf) / math.sqrt(2)
