"""Pareto front of score and cost: the settings on it, and those that are not separable from it.

The settings are those that were repeated on several seeds. Their costs are exact, their scores have
errors. A setting is *dominated* if one that costs at most as much is significantly better. The
intervals of differences are simultaneous (`stats.compare_cells`, `intervals`), so that with a
probability of at least 95 % no setting is called dominated that is not. A setting whose mean alone
is dominated is *not separable* from the front.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from lab.config.metrics import Metric
from lab.reporting.compared_scores import diverged_repeats, fill_diverged, setting_names
from lab.reporting.finite_test_set import add_test_error, read_errors
from lab.reporting.intervals import Interval, block_means, difference_interval, t_interval
from lab.reporting.stats import Difference, compare_cells
from lab.tracking.frames import SweepFrames

Status = Literal["on the front", "not separable", "dominated"]


@dataclass(frozen=True, kw_only=True)
class FrontPoint:
    """A setting with its score and its cost.

    Attributes:
        label: name of the setting: that of its cell and, where cells have several settings, of its
            nuisance parameters.
        cell: label of its cell.
        cost: value of the second objective.
        score: mean score of its finished trials, with the 95 % interval.
        sd: standard deviation of these scores; NaN with fewer than two.
        diverged: number of its repeats that diverged.
        status: position relative to the front.
        rival: label of the setting that it is compared with: for one on the front the next cheaper
            one on the front, for others the best one that costs at most as much; empty for the
            cheapest setting on the front.
        difference: its mean minus that of the rival, over common repeats; None without a rival.
        is_better: whether it is significantly better than the rival; true without one.
    """

    label: str
    cell: str
    cost: float
    score: Interval
    sd: float
    diverged: int
    status: Status
    rival: str
    difference: Interval | None
    is_better: bool


@dataclass(frozen=True, kw_only=True)
class Front:
    """The settings by their cost, the cheapest first.

    Attributes:
        points: all settings that have a score.
        confirmed: whether the scores are those of repeats, not of single search trials.
    """

    points: tuple[FrontPoint, ...]
    confirmed: bool

    def with_status(self, status: Status) -> tuple[FrontPoint, ...]:
        """Return the settings with a status, the cheapest first."""
        return tuple(point for point in self.points if point.status == status)


def compute_front(frames: SweepFrames) -> Front | None:
    """Return the front of a sweep; None without a second objective, or without a score."""
    runs = _repeated_trials(frames)
    if frames.cost is None or runs.empty:
        return None
    names = _name_settings(frames, runs)
    diverged = diverged_repeats(frames, runs)
    by_setting = dict(zip(setting_names(runs), names, strict=True))
    named = runs.assign(original=runs["cell"], cell=names)
    diverged = diverged.assign(cell=setting_names(diverged).map(by_setting))
    finished = named.pivot_table(index="repeat", columns="cell", values="score", sort=False)
    table = fill_diverged(finished, runs, diverged, frames.metric)
    one_each = runs.groupby("cell")["tuned"].nunique().eq(1).all()
    difference = (
        compare_cells(frames, runs)
        if one_each and frames.compare
        else _difference_of_settings(frames, named, table)
    )
    costs = named.groupby("cell")["cost"].first()
    comparison = _Comparison(frames.metric, block_means(table), costs, difference)
    points = map(comparison.place, comparison.labels)
    errors, counts = read_errors(frames, named), diverged["cell"].value_counts()
    return Front(
        points=tuple(
            _describe(
                named[named["cell"] == point.label],
                point,
                errors.of_mean(point.label),
                int(counts.get(point.label, 0)),
            )
            for point in points
        ),
        confirmed=bool((runs["repeat"] > 0).all()),
    )


@dataclass(frozen=True, kw_only=True)
class _Compared:
    label: str
    cost: float
    status: Status
    rival: str
    difference: Interval | None
    is_better: bool


def _repeated_trials(frames: SweepFrames) -> pd.DataFrame:
    """Return the finished trials of the settings to compare.

    These are the repeats, or the trials of a search that repeats every setting, or else the trials
    of the search.
    """
    trials = frames.trials[frames.trials["score"].notna()]
    search = trials[trials["role"] == "search"]
    for found in (trials[trials["role"] == "repeat"], search[search["repeat"] > 0]):
        if len(found):
            return found
    return search


def _name_settings(frames: SweepFrames, runs: pd.DataFrame) -> "pd.Series[str]":
    """Return a name of each trial's setting: as short as the settings of its sweep allow."""
    cells, tuned = runs["cell"].astype(str), runs["tuned"].astype(str)
    if not frames.compare:
        return tuned.where(tuned != "", cells)
    if runs.groupby("cell")["tuned"].nunique().eq(1).all():
        return cells
    return (cells + " with " + tuned).where(tuned != "", cells)


def _difference_of_settings(
    frames: SweepFrames, named: pd.DataFrame, table: pd.DataFrame
) -> Difference:
    """Return the intervals of differences between settings, for all pairs of them at once."""
    errors = read_errors(frames, named)

    def difference(label: str, other: str) -> Interval:
        gap = difference_interval(table, label, other)
        return add_test_error(gap, errors.of_difference(label, other), table.shape[1])

    return difference


class _Comparison:
    """Positions of settings relative to the front.

    Args:
        metric: metric that ranks the trials.
        means: mean scores by setting, adjusted for missing repeats.
        costs: costs by setting.
        difference: function that gives the interval of the difference between two settings.

    Attributes:
        labels: all settings, the cheapest first, and of equal cost the best first.
    """

    def __init__(
        self,
        metric: Metric,
        means: "pd.Series[float]",
        costs: "pd.Series[float]",
        difference: Difference,
    ) -> None:
        from lab.search.pareto import find_front  # here, since the import of Optuna takes 1 s

        self._sign = 1 if metric.direction == "maximize" else -1
        self._means, self._costs = self._sign * means, costs
        self._difference = difference
        self.labels = sorted(
            map(str, means.index), key=lambda each: (costs[each], -self._means[each], each)
        )
        points = [(float(self._means[each]), float(costs[each])) for each in self.labels]
        self._front = [self.labels[n] for n in find_front(points, ["maximize", "minimize"])]

    def place(self, label: str) -> _Compared:
        """Return the position of a setting, and its difference from its rival."""
        if label in self._front:
            position = self._front.index(label)
            return self._compare(
                label, self._front[position - 1] if position else "", "on the front"
            )
        rivals = [each for each in self.labels if each != label and self._is_at_most(each, label)]
        dominated = any(self._is_better(each, label) for each in rivals)
        best = max(rivals, key=lambda each: self._means[each])
        return self._compare(label, best, "dominated" if dominated else "not separable")

    def _compare(self, label: str, rival: str, status: Status) -> _Compared:
        return _Compared(
            label=label,
            cost=float(self._costs[label]),
            status=status,
            rival=rival,
            difference=self._difference(label, rival) if rival else None,
            is_better=not rival or self._is_better(label, rival),
        )

    def _is_at_most(self, label: str, other: str) -> bool:
        return bool(self._costs[label] <= self._costs[other])

    def _is_better(self, label: str, other: str) -> bool:
        """Return whether a setting is significantly better than another one."""
        gap = self._difference(label, other)
        return gap.low > 0 if self._sign > 0 else gap.high < 0


def _describe(runs: pd.DataFrame, point: _Compared, error: float, diverged: int) -> FrontPoint:
    scores = runs["score"].to_numpy(dtype=float)
    return FrontPoint(
        label=point.label,
        cell=str(runs["original"].iloc[0]),
        cost=point.cost,
        score=add_test_error(t_interval(scores), error),
        sd=float(np.std(scores, ddof=1)) if len(scores) > 1 else math.nan,
        diverged=diverged,
        status=point.status,
        rival=point.rival,
        difference=point.difference,
        is_better=point.is_better,
    )
