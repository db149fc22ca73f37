"""Mean scores of the compared settings over compute, and the best of these means.

A setting is a cell with its compared nuisance parameters. Its mean is taken over the seeds at the
same evaluation of their runs, so that no single trial with a lucky seed is the best score.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lab.tracking.frames import SweepFrames

_BEYOND = 1.02  # a mean that is reached only at the end has a line and a band of some length


@dataclass(frozen=True, kw_only=True)
class MeanCurves:
    """Mean scores over one measure of compute.

    All tables have the columns setting (label of the cell), the measure of compute (mean over the
    seeds), mean, sd (NaN with one seed) and seeds.

    Attributes:
        settings: one row for each setting and evaluation.
        reference: the rows of the reference; none if no other setting is compared with it.
        best: the first mean by compute, and each one that is better than all with less compute.
        steps: `best` with its last row again beyond the end of the longest trial.
    """

    settings: pd.DataFrame
    reference: pd.DataFrame
    best: pd.DataFrame
    steps: pd.DataFrame


def mean_curves(frames: SweepFrames, runs: pd.DataFrame, axis: str) -> MeanCurves:
    """Return the means of the compared settings, at evaluations at which all seeds have a score.

    Args:
        frames: frames of a sweep, or of several.
        runs: trials by which the settings are compared (`stats.scored_trials`).
        axis: column of compute (`spent/flops`, ...).
    """
    settings = _average(frames, runs, axis)
    is_compared = settings["setting"].nunique() > 1
    best = _select_best(settings, axis, maximize=frames.metric.direction == "maximize")
    end = best.tail(1).assign(**{axis: _BEYOND * frames.curves[axis].max()})
    return MeanCurves(
        settings=settings,
        reference=settings[(settings["setting"] == frames.reference) & is_compared],
        best=best,
        steps=pd.concat([best, end], ignore_index=True),
    )


def _average(frames: SweepFrames, runs: pd.DataFrame, axis: str) -> pd.DataFrame:
    name, cells = frames.metric.name, runs.set_index("number")["cell"]
    curves = frames.curves[frames.curves["number"].isin(cells.index)]
    evaluation = curves.groupby("number").cumcount()
    points = pd.DataFrame(
        {
            "setting": curves["number"].map(cells),
            "evaluation": evaluation,
            axis: curves[axis],
            "score": curves[name],
        }
    ).dropna()
    grouped = points.groupby(["setting", "evaluation"], sort=False)
    means = grouped.agg(
        **{axis: (axis, "mean")},
        mean=("score", "mean"),
        sd=("score", "std"),
        seeds=("score", "size"),
    ).reset_index()
    return means[means["seeds"] == means["setting"].map(cells.value_counts())]


def _select_best(settings: pd.DataFrame, axis: str, *, maximize: bool) -> pd.DataFrame:
    # Many settings have a mean at the same amount, untrained ones at 0: the best of them counts.
    ordered = settings.sort_values([axis, "mean"], ascending=[True, not maximize], kind="stable")
    gains = ordered["mean"] if maximize else -ordered["mean"]
    return ordered[gains > gains.cummax().shift(fill_value=-np.inf)].reset_index(drop=True)
