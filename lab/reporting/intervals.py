"""95 % intervals of the mean of a cell and of the difference between two cells.

The interval of a difference is the paired t interval if there are only two cells, and the interval
of Games and Howell (1976) otherwise. The latter holds for all pairs of cells at once and allows
each cell its own variance: it has the quantile of the studentized range with Welch's degrees of
freedom, rounded down to tenths, so that quantiles can be cached (one takes .1 s).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from lab.reporting.studentized_range import range_quantile

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


def difference_interval(
    table: pd.DataFrame, label: str, other: str, settings: int | None = None
) -> Interval:
    """Return the mean of `label` minus `other` over common repeats, with a simultaneous interval.

    Args:
        table: scores, one row per repeat and one column per cell; NaN if a trial did not finish.
        label: column of the minuend.
        other: column of the subtrahend.
        settings: number of means whose differences the interval covers at once; null for the number
            of columns.
    """
    gaps = (table[label] - table[other]).dropna().to_numpy(dtype=float)
    n, mean = len(gaps), float(np.mean(gaps)) if len(gaps) else math.nan
    if n < 2 or label == other:
        return Interval(mean=mean, low=math.nan, high=math.nan, n=n)
    family = settings or table.shape[1]
    if family == 2:
        return t_interval(gaps)
    columns = [table[name].dropna() for name in (label, other)]
    half = _half_width(family, columns, (n, n))
    return Interval(mean=mean, low=mean - half, high=mean + half, n=n)


def unpaired_difference(
    table: pd.DataFrame, label: str, other: str, settings: int | None = None
) -> Interval:
    """Return the mean of `label` minus that of `other`, with the interval of Games and Howell.

    The two columns need no common repeats, and may have different numbers of them.

    Args:
        table: scores, one row per repeat and one column per cell; NaN where there is no score.
        label: column of the minuend.
        other: column of the subtrahend.
        settings: number of means whose differences the interval covers at once; null for the number
            of columns.
    """
    columns = [table[name].dropna() for name in (label, other)]
    first, second = map(len, columns)
    mean = float(columns[0].mean() - columns[1].mean())
    if min(first, second) < 2:
        return Interval(mean=mean, low=math.nan, high=math.nan, n=min(first, second))
    half = _half_width(settings or table.shape[1], columns, (first, second))
    return Interval(mean=mean, low=mean - half, high=mean + half, n=min(first, second))


def difference_over_settings(
    difference: Callable[[str, str], Interval],
    best: tuple[str, str],
    settings: tuple[Sequence[str], Sequence[str]],
    *,
    maximize: bool,
) -> Interval:
    """Return the difference between the best settings of two cells, all of which were repeated.

    Of the simultaneous intervals of all pairs of settings, those between the settings of cell i
    and one setting j' of cell j are considered. Their largest upper end bounds best(i) - mu(j'),
    hence best(i) - best(j), whatever setting represents cell i; and likewise from below.

    Args:
        difference: function that returns the interval of the difference between two settings, for
            all settings of all cells at once.
        best: settings that represent the two cells.
        settings: all settings of the two cells.
        maximize: whether larger scores are better.
    """
    gap = difference(*best)
    if math.isnan(gap.low):
        return gap
    of_first = [difference(each, best[1]) for each in settings[0]]
    of_second = [difference(best[0], each) for each in settings[1]]
    lows, highs = (of_second, of_first) if maximize else (of_first, of_second)
    # A setting with fewer than two common repeats has no interval: it may be the best one.
    low = min(-math.inf if math.isnan(each.low) else each.low for each in lows)
    high = max(math.inf if math.isnan(each.high) else each.high for each in highs)
    return replace(gap, low=low, high=high)


def add_search_error(
    gap: Interval,
    table: pd.DataFrame,
    cells: tuple[str, str],
    runners_up: Mapping[str, float],
    settings: int | None = None,
    *,
    maximize: bool,
) -> Interval:
    """Widen the interval of a difference by the error of a selection by one search trial a setting.

    The best setting of a cell is either the selected one or one whose search score was at most
    that of the runner-up r. In the second case its mean is at most r plus the error of one
    trial. With the mean scores x of the selected settings, best(i) - best(j) is therefore at most
    max(x(i) - x(j) + h, r(i) - x(j) + h'), where h' is half of the interval of the difference
    between one trial of cell i and the mean of cell j; the lower end follows by exchanging i and
    j. The noise of a search trial is assumed to be that of the cell's repeats.

    Args:
        gap: interval of the difference between the selected settings (`difference_interval`).
        table: scores of the repeats, one row per repeat and one column per cell.
        cells: columns of the minuend and of the subtrahend.
        runners_up: second-best score among the search trials, by cell; a cell without one has no
            error of selection.
        settings: number of means whose differences the interval covers at once; null for the number
            of columns.
        maximize: whether larger scores are better.
    """
    if math.isnan(gap.low):
        return gap
    family = settings or table.shape[1]
    sign = 1 if maximize else -1
    low, high = (gap.low, gap.high) if maximize else (-gap.high, -gap.low)
    columns = [sign * table[cell].dropna() for cell in cells]

    def most(one: int, other: int) -> float:
        """Return the largest difference if the best setting of the first cell was not selected."""
        score = sign * runners_up.get(cells[one], -sign * math.inf)
        if math.isinf(score):
            return score
        pair, counts = (columns[one], columns[other]), (1, len(columns[other]))
        return score - float(columns[other].mean()) + _half_width(family, pair, counts)

    low, high = min(low, -most(1, 0)), max(high, most(0, 1))
    low, high = (low, high) if maximize else (-high, -low)
    return replace(gap, low=low, high=high)


def _half_width(
    family: int, columns: Sequence["pd.Series[float]"], counts: tuple[int, int]
) -> float:
    """Return half of the Games-Howell interval of the difference between two means.

    Args:
        family: number of means whose differences the intervals cover at once.
        columns: scores from which the variance of each mean is estimated.
        counts: numbers of scores that the two means are taken over.
    """
    squares = [
        float(column.var(ddof=1)) / count for column, count in zip(columns, counts, strict=True)
    ]  # squared standard errors
    error = math.sqrt(sum(squares))
    if not error:
        return 0.0
    freedom = error**4 / sum(
        square**2 / (len(column) - 1) for square, column in zip(squares, columns, strict=True)
    )
    return _studentized_range(family, math.floor(10 * freedom + 1e-6)) / math.sqrt(2) * error


@cache
def _studentized_range(means: int, tenths: int) -> float:
    """Return the quantile of the range of `means` means, with degrees of freedom in tenths."""
    return range_quantile(LEVEL, means, tenths / 10)


def block_means(table: pd.DataFrame) -> "pd.Series[float]":
    """Return the mean of each column, adjusted for missing repeats.

    These are the least-squares means of the model score = repeat + cell. Without missing scores
    they are the plain means. A cell whose run of a low-scoring repeat is missing gains nothing.

    Args:
        table: scores, one row per repeat and one column per cell; NaN if a trial did not finish.
    """
    repeats, cells = np.nonzero(table.notna().to_numpy())
    scores = table.to_numpy(dtype=float)[repeats, cells]
    design = np.hstack([np.eye(len(table))[repeats], np.eye(table.shape[1])[cells]])
    solution = np.linalg.lstsq(design, scores, rcond=None)[0]
    adjusted = solution[: len(table)].mean() + solution[len(table) :]
    return pd.Series(adjusted, index=table.columns)


def pooled_deviation(table: pd.DataFrame) -> float:
    """Return the pooled standard deviation between repeats of the same cell.

    Args:
        table: scores, one row per repeat and one column per cell; NaN if a trial did not finish.
    """
    freedom = table.notna().sum() - 1
    squares = (table.var(ddof=1).fillna(0.0) * freedom.clip(lower=0)).sum()
    total = int(freedom.clip(lower=0).sum())
    return math.sqrt(float(squares) / total) if total else math.nan
