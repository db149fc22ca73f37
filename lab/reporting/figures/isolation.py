"""Isolation plots: the mean score over the values of one compared path, with the others fixed."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lab.config.labels import label
from lab.config.trial import Path
from lab.reporting.compute.learning_curves import label_settings
from lab.reporting.figures.category_axis import label_categories
from lab.reporting.figures.cell_colors import PALETTE, are_numeric, ordered_colors
from lab.reporting.figures.number_axis import mark_numbers
from lab.reporting.figures.svg import INK, STYLED, add_legend, new_figure
from lab.reporting.sentences import format_score
from lab.tracking.frames import SweepFrames

_MOST_LINES = len(PALETTE)


@dataclass(frozen=True, kw_only=True)
class Isolation:
    """Scores of the seeds by the value of one compared path and by the values of all others.

    Attributes:
        path: the path.
        means: means; a row for each value (a number or a label, in order), a column for each
            combination of the values of the other paths. NaN where a setting has no score.
        deviations: standard deviations between seeds, of the same form; NaN with one seed.
    """

    path: Path
    means: pd.DataFrame
    deviations: pd.DataFrame

    @property
    def lines(self) -> pd.DataFrame:
        """The means that are drawn, a column for each line.

        Instead of more lines than there are colors, it is the mean over the combinations that have
        all values.
        """
        if self.means.shape[1] <= _MOST_LINES:
            return self.means
        complete = self.means.dropna(axis=1)
        return complete.mean(axis=1).to_frame(f"mean over {complete.shape[1]} combinations")

    @property
    def effects(self) -> "pd.Series[float]":
        """Largest minus smallest mean of each combination with several values, in this order."""
        several = self.means.loc[:, self.means.count() > 1]
        return (several.max() - several.min()).sort_values(kind="stable")


def isolate_paths(frames: SweepFrames, runs: pd.DataFrame) -> list[Isolation]:
    """Return the scores by each compared path, if more than one path has several values.

    A path is left out if no line of it would have two values.

    Args:
        frames: frames of the sweep.
        runs: trials by which the cells are compared (`stats.scored_trials`).
    """
    varied = [path for path, values in frames.compare.items() if len(values) > 1]
    isolated = [_isolate(frames, runs, path) for path in varied] if len(varied) > 1 else []
    return [each for each in isolated if (each.lines.count() > 1).any()]


def _isolate(frames: SweepFrames, runs: pd.DataFrame, path: Path) -> Isolation:
    values = frames.compare[path]
    numeric = are_numeric(values)
    others = label_settings(frames, runs, [each for each in frames.compare if each != path])
    own = runs[path].astype(float) if numeric else label_settings(frames, runs, [path])
    labels = [label({path: each}, frames.compare) for each in values]
    order = sorted(own.unique()) if numeric else labels
    grouped = runs["score"].groupby([own, others])
    means, deviations = (
        table.unstack().reindex(index=order, columns=others.unique()).dropna(how="all")
        for table in (grouped.mean(), grouped.std())
    )
    return Isolation(path=path, means=means, deviations=deviations.reindex(means.index))


def describe(isolation: Isolation, noise_sd: float) -> str:
    """Return the caption: the smallest and the largest effect of the path, and what decides.

    Args:
        isolation: scores by the path.
        noise_sd: standard deviation between seeds (`Answer.noise_sd`).
    """
    effects = isolation.effects
    named = [f"{format_score(effects.iloc[at])} ({effects.index[at]})" for at in (0, -1)]
    drawn = (
        "Bars are ± one standard deviation over the seeds of a setting."
        if isolation.lines is isolation.means
        else "The line is the mean over the combinations that have a score at all values."
    )
    return (
        f"With the other compared settings fixed, the largest and the smallest mean over "
        f"{isolation.path} differ by {' to '.join(named[: len(effects)])}; the standard deviation "
        f"between seeds is {format_score(noise_sd)}. {drawn} The intervals of the answer decide "
        f"which settings differ, not this figure."
    )


@STYLED
def plot(frames: SweepFrames, isolation: Isolation) -> Figure:
    """Plot the mean score over the values of the path, a line for each combination of the others.

    Args:
        frames: frames of the sweep.
        isolation: scores by the path (`isolate_paths`).
    """
    figure, axes = new_figure(2.9)
    lines, values = isolation.lines, isolation.means.index
    numeric = are_numeric(values)
    positions = pd.Series(values if numeric else range(len(values)), index=values, dtype=float)
    if numeric:
        mark_numbers(axes, list(values))
    else:
        label_categories(figure, axes, list(values))
    for name, color in zip(lines, _line_colors(frames, isolation), strict=False):
        line = lines[name].dropna()
        x = positions[line.index].to_numpy()
        axes.plot(x, line, "s-", color=color, lw=1.2, ms=3.5, mew=0, label=name)
        if lines is isolation.means:
            # One path with gaps: error bars of matplotlib would double the size of the figure.
            sd = isolation.deviations[name].loc[line.index]
            ends = np.stack([line - sd, line + sd, sd * math.nan], axis=1)
            axes.plot(np.repeat(x, 3), ends.ravel(), color=color, lw=0.9)
    axes.locator_params(axis="y", nbins=4)
    axes.grid(visible=False, axis="x")
    axes.set_xlabel(isolation.path)
    axes.set_ylabel(frames.metric.name)
    add_legend(figure, *axes.get_legend_handles_labels())
    return figure


def _line_colors(frames: SweepFrames, isolation: Isolation) -> list[str]:
    """Return a color for each line: a ramp if the lines are the values of one number."""
    if isolation.lines is not isolation.means:
        return [INK]
    others = [values for path, values in frames.compare.items() if path != isolation.path]
    if len(others) == 1 and are_numeric(others[0]):
        return ordered_colors(len(others[0]))
    return list(PALETTE)
