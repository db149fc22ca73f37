"""Scores over compute: the points that compute multipliers use."""

import json
from collections.abc import Collection, Hashable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lab.config.labels import label
from lab.reporting.intervals import Floats
from lab.tracking import tags
from lab.tracking.frames import SweepFrames

BUDGET = tags.BUDGET_AMOUNT


@dataclass(frozen=True, kw_only=True)
class ScorePoints:
    """Scores of the repeats of a cell at several amounts of compute.

    Attributes:
        flops_K: training FLOPs, increasing.
        scores_RK: score of each repeat at each amount; larger is better.
        repeats: numbers of the repeats.
    """

    flops_K: Floats
    scores_RK: Floats
    repeats: tuple[int, ...]

    def select(self, repeats: tuple[int, ...]) -> "ScorePoints":
        """Return the points of the given repeats, in their order."""
        rows = [self.repeats.index(repeat) for repeat in repeats]
        return ScorePoints(flops_K=self.flops_K, scores_RK=self.scores_RK[rows], repeats=repeats)


def setting_labels(frames: SweepFrames, runs: pd.DataFrame) -> "pd.Series[str]":
    """Return the label of each run's compared values other than the budget.

    Args:
        frames: frames of the sweep.
        runs: trials of the sweep.
    """
    if BUDGET not in frames.compare:
        return runs["cell"]
    return label_settings(frames, runs, [path for path in frames.compare if path != BUDGET])


def label_settings(
    frames: SweepFrames, runs: pd.DataFrame, paths: Collection[str]
) -> "pd.Series[str]":
    """Return the label of each run's values at some paths; empty for none.

    Args:
        frames: frames of the sweep.
        runs: trials of the sweep.
        paths: compared paths, or parts of compared mappings.
    """
    rows = runs[list(paths)].to_dict("records")
    texts = [
        label({str(p): _find_value(frames, str(p), v) for p, v in row.items()}, frames.compare)
        for row in rows
    ]
    return pd.Series(texts, index=runs.index, dtype=object)


def reference_label(frames: SweepFrames) -> str:
    """Return the label of the reference's compared values other than the budget."""
    if BUDGET not in frames.compare:
        return frames.reference
    values = json.loads(frames.sweep[tags.REFERENCE])
    return label({path: v for path, v in values.items() if path != BUDGET}, frames.compare)


def _find_value(frames: SweepFrames, path: str, stored: object) -> object:
    """Return the compared value that the frames store as `stored` (lists and mappings as JSON)."""
    values = frames.compare.get(path, ())
    return next((v for v in values if stored in (v, json.dumps(v))), stored)


def end_points(frames: SweepFrames, runs: pd.DataFrame) -> ScorePoints | None:
    """Return the scores of one setting at the ends of runs of several budgets.

    These are the last scores of its trials if the sweep compares budgets. If the learning rate is
    constant, each evaluation is the end of a shorter run, so these are all evaluations.

    Args:
        frames: frames of the sweep.
        runs: compared trials of the setting.

    Returns:
        None if the setting has neither.
    """
    if BUDGET in frames.compare:
        points = runs.assign(flops=runs.groupby(BUDGET)["spent/flops"].transform("mean"))
        return _pivot(frames, points.rename(columns={"score": "value"}))
    return training_points(frames, runs) if _is_flat(runs) else None


def training_points(frames: SweepFrames, runs: pd.DataFrame) -> ScorePoints | None:
    """Return the scores of a cell at the evaluations after step 0.

    Args:
        frames: frames of the sweep.
        runs: compared trials of the cell.

    Returns:
        None if no evaluation has a score.
    """
    repeats = runs.set_index("number")["repeat"]
    curves = frames.curves[frames.curves["number"].isin(repeats.index)]
    curves = curves[(curves["spent/flops"] > 0) & curves[frames.metric.name].notna()]
    index = curves.groupby("number").cumcount()
    points = curves.assign(
        repeat=curves["number"].map(repeats),
        value=curves[frames.metric.name],
        flops=curves["spent/flops"].groupby(index).transform("mean"),
    )
    return _pivot(frames, points)


def _is_flat(runs: pd.DataFrame) -> bool:
    """Return whether the beginning of each run equals a shorter run (`Trial.extendable`)."""

    def values(name: str) -> set[Hashable]:
        return set(runs[name].dropna()) if name in runs else set()

    varying = any(values(str(name)) for name in runs if str(name).startswith("schedule/"))
    constant = values("schedule.kind") == {"constant"} and values("schedule.warmup") == {0}
    return constant and not varying and "two_stage" not in values("objective.kind")


def decays(runs: pd.DataFrame) -> bool:
    """Return whether the learning rate of all runs decays towards their end."""
    return "schedule.kind" in runs and not runs["schedule.kind"].isin({"constant"}).any()


def _pivot(frames: SweepFrames, points: pd.DataFrame) -> ScorePoints | None:
    """Return points with columns `repeat`, `flops` and `value`, of the complete repeats."""
    sign = 1.0 if frames.metric.direction == "maximize" else -1.0
    table = points.pivot_table(index="repeat", columns="flops", values="value").dropna()
    if table.empty:
        return None
    return ScorePoints(
        flops_K=np.asarray(table.columns, dtype=float),
        scores_RK=sign * table.to_numpy(dtype=float),
        repeats=tuple(int(repeat) for repeat in table.index),
    )
