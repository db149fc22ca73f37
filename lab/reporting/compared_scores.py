"""Scores that a comparison adds to those of the finished repeats.

They are the scores of diverged repeats, and those search scores that bound the error of a search.
"""

import pandas as pd

from lab.config.metrics import Metric
from lab.tracking.frames import SweepFrames


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
