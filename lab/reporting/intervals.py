"""Intervals at 95 %: of one setting's repeats, and of the difference between two settings.

A difference is taken within repeats and carries Tukey's simultaneous interval for randomised
blocks: with two settings that is the paired t interval, with more it holds for the best against
all others at once.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean with its 95 % interval; the ends are NaN where n is too small for one."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval exists and lies on one side of 0."""
        return self.low > 0 or self.high < 0


def t_interval(values: Floats) -> Interval:
    """Return mean and two-sided t interval of independent `values`."""
    n = len(values)
    mean = float(np.mean(values)) if n else math.nan
    if n < 2:
        return Interval(mean=mean, low=math.nan, high=math.nan, n=n)
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Interval(mean=mean, low=mean - half, high=mean + half, n=n)


def paired_interval(table: pd.DataFrame, label: str, other: str) -> Interval:
    """Return `label` minus `other` within repeats, with Tukey's simultaneous 95 % interval.

    The noise is the residual of repeat + cell. Where the spread of this pair's own differences
    is larger (spread depends on the configuration), that is used: never the narrower.

    Args:
        table: scores, repeats x cells, NaN where a trial did not finish.
    """
    gaps = (table[label] - table[other]).dropna().to_numpy(dtype=float)
    n, mean = len(gaps), float(np.mean(gaps)) if len(gaps) else math.nan
    noise, freedom = _residual(table)
    if n < 2 or freedom < 1 or label == other:
        return Interval(mean=mean, low=math.nan, high=math.nan, n=n)
    spread = max(math.sqrt(2) * noise, float(np.std(gaps, ddof=1)))
    half = _tukey(table.shape[1], freedom) * spread / math.sqrt(n)
    return Interval(mean=mean, low=mean - half, high=mean + half, n=n)


@cache
def _tukey(cells: int, freedom: int) -> float:
    """Return the quantile that takes the place of t's; with two cells it is t's."""
    return float(stats.studentized_range.ppf(LEVEL, cells, freedom)) / math.sqrt(2)


def _residual(table: pd.DataFrame) -> tuple[float, int]:
    """Return standard deviation and degrees of freedom left by score = repeat + cell."""
    repeats, cells = np.nonzero(table.notna().to_numpy())
    scores = table.to_numpy(dtype=float)[repeats, cells]
    design = np.hstack([np.eye(len(table))[repeats], np.eye(table.shape[1])[cells]])
    solution, _, rank, _ = np.linalg.lstsq(design, scores, rcond=None)
    freedom = len(scores) - int(rank)
    left = float(np.sum((scores - design @ solution) ** 2))
    return (math.sqrt(left / freedom), freedom) if freedom else (math.nan, 0)


def smallest_detectable(table: pd.DataFrame) -> float:
    """Return the pooled standard deviation between repeats of the same cell."""
    freedom = table.notna().sum() - 1
    squares = (table.var(ddof=1).fillna(0.0) * freedom.clip(lower=0)).sum()
    total = int(freedom.clip(lower=0).sum())
    return math.sqrt(float(squares) / total) if total else math.nan
