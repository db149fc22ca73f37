"""Scores by which cells are compared, and the intervals of their differences.

Beside the scores of the finished repeats they are those of diverged repeats, and those search
scores that bound the error of a search.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from lab.config.metrics import Metric
from lab.reporting.intervals import (
    Interval,
    add_search_error,
    block_means,
    difference_interval,
    difference_over_settings,
    unpaired_difference,
)
from lab.tracking.frames import SweepFrames


@dataclass(frozen=True, kw_only=True)
class ComparedScores:
    """Scores of the repeats of one sweep, or of several.

    Attributes:
        table: scores, one row per repeat and one column per setting. The settings are those that
            represent the cells, or all settings if each of them was repeated. A diverged repeat has
            the worst of all compared scores.
        selected: column of the setting that represents each cell, by the label of the cell.
        candidates: columns of all settings of each cell, by the label of the cell.
        runners_up: scores of the second-best search trials (`runner_up_scores`), by column; empty
            for sweeps that repeat every setting.
        sweeps: name of the sweep of each column. Repeats of different sweeps are not paired: equal
            numbers need not mean equal seeds.
        settings: number of settings for whose differences the intervals hold at once.
        maximize: whether larger scores are better.
    """

    table: pd.DataFrame
    selected: Mapping[str, str]
    candidates: Mapping[str, Sequence[str]]
    runners_up: Mapping[str, float]
    sweeps: Mapping[str, str]
    settings: int
    maximize: bool

    def difference(self, label: str, other: str) -> Interval:
        """Return the interval of the difference between two cells.

        It contains the error of the seeds and of the selection of nuisance parameters, and holds
        for all pairs of cells at once.
        """
        best = (self.selected[label], self.selected[other])
        settings = (self.candidates[label], self.candidates[other])
        gap = difference_over_settings(self._between, best, settings, maximize=self.maximize)
        return add_search_error(
            gap, self.table, best, self.runners_up, self.settings, maximize=self.maximize
        )

    def means(self) -> "pd.Series[float]":
        """Return the mean of each cell, adjusted for missing repeats within its sweep."""
        means: dict[str, float] = {}
        for sweep in dict.fromkeys(self.sweeps.values()):
            cells = {c: name for c, name in self.selected.items() if self.sweeps[name] == sweep}
            of_sweep = block_means(self.table[list(cells.values())].dropna(how="all"))
            means |= {cell: float(of_sweep[name]) for cell, name in cells.items()}
        return pd.Series(means, dtype=float)

    def _between(self, first: str, second: str) -> Interval:
        paired = self.sweeps[first] == self.sweeps[second]
        interval = difference_interval if paired else unpaired_difference
        return interval(self.table, first, second, self.settings)


def read_scores(
    frames: SweepFrames, runs: pd.DataFrame, scored: pd.DataFrame | None = None
) -> ComparedScores:
    """Return the scores of a sweep.

    Args:
        frames: frames of the sweep.
        runs: trials by which the cells are compared (`stats.scored_trials`).
        scored: trials of which a diverged one has the worst score; null for those of the sweep
            (`all_scored`).
    """
    crossed = crossed_trials(frames)
    scored = all_scored(frames, runs) if scored is None else scored
    if crossed.empty:
        table = fill_diverged(
            score_table(runs), scored, diverged_repeats(frames, runs), frames.metric
        )
        selected = {str(cell): str(cell) for cell in table}
        candidates, settings = {cell: [cell] for cell in selected}, table.shape[1]
    else:
        named = crossed.assign(cell=setting_names(crossed))
        diverged = named[named["state"] == "diverged"]
        finished = score_table(named[named["score"].notna()])
        table = fill_diverged(finished, scored, diverged, frames.metric)
        selected = dict(zip(runs["cell"].map(str), setting_names(runs), strict=True))
        by_name = dict(zip(named["cell"], crossed["cell"].map(str), strict=True))
        candidates = {
            cell: [str(name) for name in table if by_name[name] == cell] for cell in selected
        }
        settings = len(by_name)
    return ComparedScores(
        table=table,
        selected=selected,
        candidates=candidates,
        runners_up=runner_up_scores(frames, runs) if crossed.empty else {},
        sweeps={str(name): frames.name for name in table},
        settings=settings,
        maximize=frames.metric.direction == "maximize",
    )


def all_scored(frames: SweepFrames, runs: pd.DataFrame) -> pd.DataFrame:
    """Return the finished repeats of all settings, of which a comparison selects.

    Args:
        frames: frames of the sweep.
        runs: trials by which the cells are compared.
    """
    crossed = crossed_trials(frames)
    return runs if crossed.empty else crossed[crossed["score"].notna()]


def crossed_trials(frames: SweepFrames) -> pd.DataFrame:
    """Return the search trials of a sweep that repeats every setting; empty for other sweeps."""
    trials = frames.trials
    return trials[(trials["role"] == "search") & (trials["repeat"] > 0)]


def score_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the scores, one row per repeat and one column per cell."""
    return runs.pivot_table(index="repeat", columns="cell", values="score", sort=False)


def diverged_repeats(frames: SweepFrames, runs: pd.DataFrame) -> pd.DataFrame:
    """Return the diverged trials that would be compared if they had finished.

    They are repeats, on other seeds, of the settings of the compared trials.
    """
    trials = frames.trials
    compared = pd.MultiIndex.from_frame(runs[["cell", "tuned", "role"]])
    same = pd.MultiIndex.from_frame(trials[["cell", "tuned", "role"]]).isin(compared)
    return trials[same & (trials["state"] == "diverged") & (trials["repeat"] > 0)]


def fill_diverged(
    finished: pd.DataFrame, runs: pd.DataFrame, diverged: pd.DataFrame, metric: Metric
) -> pd.DataFrame:
    """Return the scores by repeat and cell, where a diverged trial has the worst of all scores.

    Args:
        finished: scores of the finished trials, one row per repeat and one column per cell.
        runs: compared trials.
        diverged: diverged trials of the same settings.
        metric: metric that ranks the trials.
    """
    scores = pd.concat([runs["score"], runs["untrained"]])
    worst = scores.min() if metric.direction == "maximize" else scores.max()
    table = finished.copy()
    for repeat, cell in zip(diverged["repeat"], diverged["cell"], strict=True):
        table.loc[repeat, cell] = worst
    return table


def setting_names(trials: pd.DataFrame) -> "pd.Series[str]":
    """Return a name of the cell and nuisance parameters of each trial."""
    return trials["cell"].astype(str) + "\n" + trials["tuned"].astype(str)


def runner_up_scores(frames: SweepFrames, runs: pd.DataFrame) -> dict[str, float]:
    """Return the best score among the search trials of the settings that were not selected.

    If the search has ended trials early, their final scores are unknown, and the best score of all
    search trials takes its place.

    Args:
        frames: frames of the sweep.
        runs: compared trials, which have the selected setting of each cell.

    Returns:
        Scores by cell, for the cells with a search trial of another setting.
    """
    trials = frames.trials
    search = trials[(trials["role"] == "search") & (trials["repeat"] == 0)]
    selected = dict(zip(runs["cell"], runs["tuned"], strict=True))
    scores = {}
    for label, group in search.groupby("cell", sort=False):
        others = group[group["tuned"] != selected.get(label)]
        known = (group if (group["state"] == "stopped").any() else others)["score"].dropna()
        if len(known):
            best = known.max() if frames.metric.direction == "maximize" else known.min()
            scores[str(label)] = float(best)
    return scores
