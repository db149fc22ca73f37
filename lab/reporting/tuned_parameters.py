"""Tuned parameters of a sweep: its search trials, axes for their values, and importance."""

import json
import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lab.config.trial import Path
from lab.reporting import sentences
from lab.reporting.figures.cell_colors import are_numeric
from lab.tracking.frames import SweepFrames

FEWEST = 20  # scored search trials from which importance is computed; Watanabe et al. use 100
_MOST_TICKS = 8  # choices of a vertical axis that are named


@dataclass(frozen=True, kw_only=True)
class ParallelAxis:
    """A vertical axis of parallel coordinates.

    Attributes:
        name: tuned parameter, or name of the ranking metric.
        heights: position of each trial's value, from 0 to 1; NaN without a value.
        ticks: height and text of some values.
    """

    name: str
    heights: list[float]
    ticks: list[tuple[float, str]]

    @property
    def short_name(self) -> str:
        """Last part of the dotted path."""
        return self.name.rpartition(".")[2][:24]


def searched_trials(frames: SweepFrames) -> pd.DataFrame:
    """Return the search trials that have a score."""
    trials = frames.trials
    return trials[(trials["role"] == "search") & trials["score"].notna()]


def searched_paths(frames: SweepFrames) -> list[Path]:
    """Return the tuned parameters with values; none where no search trial has a score."""
    trials = searched_trials(frames)
    return [] if trials.empty else [path for path in frames.tune if path in trials]


def parallel_axes(frames: SweepFrames) -> list[ParallelAxis]:
    """Return an axis for each tuned parameter, and one for the score, of `searched_trials`."""
    trials = searched_trials(frames)
    axes = [
        _scale(path, trials[path], log=bool(frames.tune[path].get("log")))
        for path in searched_paths(frames)
    ]
    return [*axes, _scale(frames.metric.name, trials["score"], log=False)]


def describe_parallel(frames: SweepFrames) -> str:
    """Return the caption of the parallel coordinates: number of trials, and the best of them."""
    trials = searched_trials(frames)
    scores = trials["score"].to_numpy(dtype=float)
    best = trials.iloc[
        int(scores.argmax() if frames.metric.direction == "maximize" else scores.argmin())
    ]
    return (
        f"A line is one of {len(trials)} search trials with a score. The best score, "
        f"{sentences.format_score(best['score'])}, has {best['tuned']} ({best['cell']})."
    )


def describe_importance(frames: SweepFrames) -> str:
    """Return why the report has no figure of importance; empty if it has one, or tunes nothing."""
    count, tuned = len(searched_trials(frames)), len(frames.tune)
    if not tuned or not count:
        return ""
    if tuned == 1:
        return "Importance compares tuned parameters; this sweep tunes one."
    if count < FEWEST:
        return (
            f"Importance (PED-ANOVA) needs {FEWEST} search trials with a score; the sweep has "
            f"{count}."
        )
    return ""


def rank_searched(frames: SweepFrames) -> dict[Path, float]:
    """Return the importance of the tuned parameters; empty where it cannot be computed.

    Scores count relative to the mean of their cell, so that cells do not appear as parameters.
    """
    trials = searched_trials(frames)
    paths = [path for path in frames.tune if path in trials]
    if len(paths) < 2 or len(trials) < FEWEST:
        return {}
    from lab.search.importance import rank_parameters  # here, since the import of Optuna takes 1 s

    complete = trials.dropna(subset=paths)
    relative = complete["score"] - complete.groupby("cell")["score"].transform("mean")
    return rank_parameters(
        {path: frames.tune[path] for path in paths},
        list_rows(complete[paths]),
        relative.tolist(),
        maximize=frames.metric.direction == "maximize",
    )


def describe_ranking(frames: SweepFrames, importance: dict[Path, float]) -> str:
    """Return the caption of the importance of each parameter.

    Args:
        frames: frames of the sweep.
        importance: what `rank_searched` returns; not empty.
    """
    first = next(iter(importance))
    listed = ", ".join(f"{path} {value:.0%}" for path, value in importance.items())
    return (
        f"{first} decides most about being among the best quarter of the "
        f"{len(searched_trials(frames))} scored search trials, by PED-ANOVA: {listed}. Scores "
        f"count relative to the mean of their setting."
    )


def list_rows(trials: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the trials as mappings from the names of columns."""
    return [{str(name): value for name, value in row.items()} for row in trials.to_dict("records")]


def format_setting(value: object) -> str:
    """Return the value of a tuned parameter as text."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _scale(name: str, values: "pd.Series[float]", *, log: bool) -> ParallelAxis:
    if not are_numeric(values):
        texts = [format_setting(value) for value in values]
        choices = sorted(set(texts))
        places = {text: i / max(1, len(choices) - 1) for i, text in enumerate(choices)}
        return ParallelAxis(
            name=name,
            heights=[places[text] for text in texts],
            ticks=[(places[text], text) for text in choices[:_MOST_TICKS]],
        )
    log = log and float(values.min()) > 0
    scaled = [math.log(value) if log else float(value) for value in values]
    known = [value for value in scaled if not math.isnan(value)]
    low, high = min(known), max(known)
    span = high - low or 1.0
    ends = dict.fromkeys((float(values.min()), float(values.max())))
    ticks = [(((math.log(end) if log else end) - low) / span, f"{end:.4g}") for end in ends]
    heights = [(value - low) / span for value in scaled]
    return ParallelAxis(name=name, heights=heights, ticks=ticks)
