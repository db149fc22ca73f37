"""95 % intervals of the mean of a cell and of the difference between two cells.

Differences are paired by repeat. Their intervals are Tukey's simultaneous intervals for a
randomised block design (a block is a repeat): with two cells this is the paired t interval; with
more cells the intervals hold for the comparison of the best cell with all others at once.
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
    """A mean and its 95 % interval.

    Attributes:
        mean: mean of the values; NaN if there are none.
        low: lower end of the interval; NaN if `n` is too small for an interval.
        high: upper end of the interval; NaN if `n` is too small for an interval.
        n: number of values.
    """

    mean: float
    low: float
    high: float
    n: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval exists and does not contain 0."""
        return self.low > 0 or self.high < 0


def t_interval(values: Floats) -> Interval:
    """Return the mean and two-sided t interval of independent `values`."""
    n = len(values)
    mean = float(np.mean(values)) if n else math.nan
    if n < 2:
        return Interval(mean=mean, low=math.nan, high=math.nan, n=n)
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Interval(mean=mean, low=mean - half, high=mean + half, n=n)


def paired_interval(table: pd.DataFrame, label: str, other: str) -> Interval:
    """Return the mean of `label` minus `other` over repeats, with Tukey's simultaneous interval.

    The standard deviation is that of the residuals of the model score = repeat + cell. The spread
    of scores may depend on the cell, so the standard deviation of this pair's differences is used
    if it is larger.

    Args:
        table: scores, one row per repeat and one column per cell; NaN if a trial did not finish.
        label: column of the minuend.
        other: column of the subtrahend.
    """
    gaps = (table[label] - table[other]).dropna().to_numpy(dtype=float)
    n, mean = len(gaps), float(np.mean(gaps)) if len(gaps) else math.nan
    residual, freedom = _residual_deviation(table)
    if n < 2 or freedom < 1 or label == other:
        return Interval(mean=mean, low=math.nan, high=math.nan, n=n)
    spread = max(math.sqrt(2) * residual, float(np.std(gaps, ddof=1)))
    half = _tukey_quantile(table.shape[1], freedom) * spread / math.sqrt(n)
    return Interval(mean=mean, low=mean - half, high=mean + half, n=n)


@cache
def _tukey_quantile(cells: int, freedom: int) -> float:
    """Return the quantile of the simultaneous interval; with two cells it equals that of t."""
    return float(stats.studentized_range.ppf(LEVEL, cells, freedom)) / math.sqrt(2)


def _residual_deviation(table: pd.DataFrame) -> tuple[float, int]:
    """Return the residual standard deviation and degrees of freedom of score = repeat + cell."""
    repeats, cells = np.nonzero(table.notna().to_numpy())
    scores = table.to_numpy(dtype=float)[repeats, cells]
    design = np.hstack([np.eye(len(table))[repeats], np.eye(table.shape[1])[cells]])
    solution, _, rank, _ = np.linalg.lstsq(design, scores, rcond=None)
    freedom = len(scores) - int(rank)
    squares = float(np.sum((scores - design @ solution) ** 2))
    return (math.sqrt(squares / freedom), freedom) if freedom else (math.nan, 0)


def smallest_detectable(table: pd.DataFrame) -> float:
    """Return the pooled standard deviation between repeats of the same cell.

    Args:
        table: scores, one row per repeat and one column per cell; NaN if a trial did not finish.
    """
    freedom = table.notna().sum() - 1
    squares = (table.var(ddof=1).fillna(0.0) * freedom.clip(lower=0)).sum()
    total = int(freedom.clip(lower=0).sum())
    return math.sqrt(float(squares) / total) if total else math.nan
