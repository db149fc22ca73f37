"""Figures of the scores: over compute, by cell, and over a nuisance parameter.

Each function returns a new matplotlib figure and uses no global state. The style and the color of
axes and text are set in `svg`, the colors of the cells in `cell_colors`.
"""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from lab.config.lookups import select_baselines
from lab.config.trial import Path
from lab.reporting.compute.mean_curves import mean_curves
from lab.reporting.figures.category_axis import label_categories
from lab.reporting.figures.cell_colors import are_numeric, cell_colors, cell_value
from lab.reporting.figures.curve_lines import plot_lines
from lab.reporting.figures.heat_map import is_two_way_grid, plot_heat_map
from lab.reporting.figures.number_axis import make_logarithmic, mark_numbers
from lab.reporting.figures.svg import INK, STYLED, add_legend, new_figure
from lab.reporting.shapes import label_starts, untrained_by_shape
from lab.reporting.stats import Answer, last_search_trials, marginal_means
from lab.reporting.yardsticks import untrained_score
from lab.tracking.frames import SweepFrames

_DASHED, _DOTTED = (0, (4, 3)), (0, (1, 2))
_DIGITS = 4  # scores of a look-up table that are equal in these have one line
_MOST_DISTANT = 8  # untrained scores outside of an axis that are listed
_AXES = {
    "spent/flops": ("training compute", "FLOP"),
    "spent/tokens": ("tokens read", ""),
    "spent/seconds": ("training time", "s"),
}


@STYLED
def plot_curves(frames: SweepFrames, runs: pd.DataFrame, axis: str) -> Figure:
    """Plot the score over `axis`: a thin curve per trial, the best mean of a setting in bold.

    Args:
        frames: frames of a sweep, or of several.
        runs: trials by which the settings are compared (`stats.scored_trials`).
        axis: column of compute (`spent/flops`, ...).
    """
    name = frames.metric.name
    colors = cell_colors(frames)
    figure, axes = new_figure(3.7)
    plot_lines(axes, frames, axis, name, colors, lw=0.7)
    _plot_means(axes, frames, runs, axis)
    _plot_yardsticks(axes, frames)
    title, unit = _AXES[axis]
    axes.set_xlabel(title)
    axes.xaxis.set_major_formatter(EngFormatter(unit))
    axes.set_ylabel(name)
    axes.set_xlim(left=0)
    for cell, color in colors.items():
        axes.plot([], [], color=color, lw=2, label=cell)
    add_legend(figure, *axes.get_legend_handles_labels())
    return figure


@STYLED
def plot_cells(frames: SweepFrames, answer: Answer, runs: pd.DataFrame) -> Figure:
    """Plot the score by cell: a dot per repeat, the mean and its 95 % interval.

    A sweep over two numeric settings (`is_two_way_grid`) gives a heat map of the means.
    """
    if is_two_way_grid(frames):
        return plot_heat_map(frames, {cell.label: cell.score.mean for cell in answer.cells})
    colors = cell_colors(frames)
    figure, axes = new_figure(3.3)
    positions = _set_up_cell_axis(frames, figure, axes, list(colors))
    width = 0.012 * (max(positions.values()) - min(positions.values()) or 1.0)
    for cell in answer.cells:
        scores = runs.loc[runs["cell"] == cell.label, "score"]
        x, color = positions[cell.label], colors[cell.label]
        log = axes.get_xscale() == "log"
        offsets = _spread(len(scores))
        dots = x * 1.03**offsets if log else x + width * offsets
        axes.plot(dots, scores, "o", color=color, ms=4, mew=0)
        half = cell.score.high - cell.score.mean
        axes.errorbar(x, cell.score.mean, yerr=None if np.isnan(half) else half, fmt="_",
                      color=color, ms=16, mew=2, elinewidth=1.4, capsize=3)  # fmt: skip
    _plot_yardsticks_by_cell(axes, frames, runs, positions)
    axes.set_ylabel(frames.metric.name)
    add_legend(figure, *axes.get_legend_handles_labels())
    return figure


@STYLED
def plot_nuisance(frames: SweepFrames, path: Path) -> Figure:
    """Plot the search score over one nuisance parameter.

    The figure has a dot per search trial and a line through the best score of each bin. Crosses at
    the bottom mark trials without a score.
    """
    colors, distribution = cell_colors(frames), frames.tune[path]
    figure, axes = new_figure(2.9)
    search = last_search_trials(frames)
    numeric, binned = are_numeric(search[path]), marginal_means(frames, path)
    for cell, color in colors.items():
        trials, line = search[search["cell"] == cell], binned[binned["cell"] == cell]
        x = trials[path] if numeric else trials[path].astype(str)
        axes.plot(x, trials["score"], "o", color=color, ms=4, mew=0, label=cell)
        lost = x[trials["score"].isna()]
        bottom = axes.get_xaxis_transform()
        axes.plot(lost, np.full(len(lost), 0.03), "x", color=color, ms=5, transform=bottom)
        if numeric:
            axes.plot(line["value"], line["best"], color=color, lw=0.8)
    if distribution.get("log"):
        make_logarithmic(axes)
    axes.set_xlabel(path)
    axes.set_ylabel(frames.metric.name)
    add_legend(figure, *axes.get_legend_handles_labels())
    return figure


def _plot_means(axes: Axes, frames: SweepFrames, runs: pd.DataFrame, axis: str) -> None:
    """Draw the mean of the reference, and the best mean with the deviation of its seeds."""
    means = mean_curves(frames, runs, axis)
    if len(means.reference):
        x, y = means.reference[axis], means.reference["mean"]
        axes.plot(x, y, color=cell_colors(frames)[frames.reference], lw=2.4, label="reference")
    if len(means.best):
        x, y, sd = (means.steps[name] for name in (axis, "mean", "sd"))
        axes.step(x, y, where="post", color=INK, lw=2, label="best mean")
        axes.fill_between(x, y - sd, y + sd, step="post", color=INK, alpha=0.12, lw=0)


def _plot_yardsticks(axes: Axes, frames: SweepFrames) -> None:
    """Draw the untrained score of each shape, with its interval, and those of look-up tables."""
    for label, start in untrained_by_shape(frames).items():
        name = f"untrained, {label}" if label else "untrained"
        axes.axhline(start.mean, color=INK, lw=1, ls=_DASHED, alpha=0.7, label=name)
        if start.low < start.high:
            axes.axhspan(start.low, start.high, color=INK, alpha=0.10, lw=0)
    for name, score in _lookup_lines(frames.trials, frames.metric.name):
        _plot_lookup(axes, name, score)


def _plot_yardsticks_by_cell(
    axes: Axes, frames: SweepFrames, runs: pd.DataFrame, positions: Mapping[str, float]
) -> None:
    """Draw the yardsticks that are near the scores of cells; name the others in a corner.

    On an axis with distant lines, the differences between cells would vanish. If shapes differ, the
    untrained score of each cell is a mark of its own.

    Args:
        axes: axes with the scores of cells.
        frames: frames of the sweep.
        runs: trials by which the cells are compared.
        positions: position of each cell on the x-axis.
    """
    low, high = axes.get_ylim()
    near = (low - (high - low), high + (high - low))
    distant = []
    starts = {
        label: score for label in positions if not math.isnan(score := untrained_score(runs, label))
    }
    if label_starts(runs).nunique() <= 1 and starts:
        common = sum(starts.values()) / len(starts)
        if near[0] < common < near[1]:
            axes.axhline(common, color=INK, lw=1, ls=_DASHED, alpha=0.7, label="untrained")
        else:
            distant.append(f"untrained: {common:.4f}")
    else:
        marks = {label: score for label, score in starts.items() if near[0] < score < near[1]}
        x = [positions[label] for label in marks]
        axes.plot(x, list(marks.values()), "x", color=INK, ms=7, alpha=0.7, label="untrained")
        distant += _describe_distant({c: v for c, v in starts.items() if c not in marks})
    for name, score in _lookup_lines(runs, frames.metric.name):
        if near[0] < score < near[1]:
            _plot_lookup(axes, name, score)
        else:
            distant.append(f"{name}: {score:.4f}")
    if distant:
        text = "\n".join(["outside the axis range:", *distant])
        axes.annotate(text, (0.01, 0.02), xycoords="axes fraction", fontsize=7)


def _describe_distant(starts: Mapping[str, float]) -> list[str]:
    """Return the untrained scores of cells outside of the axis: each one, or the range of many."""
    if len(starts) <= _MOST_DISTANT:
        return [f"untrained, {cell}: {score:.4f}" for cell, score in starts.items()]
    scores = starts.values()
    return [f"untrained, {len(starts)} settings: {min(scores):.4f} to {max(scores):.4f}"]


def _plot_lookup(axes: Axes, name: str, score: float) -> None:
    """Draw a thin line with its name at the left end, where curves begin untrained."""
    axes.axhline(score, color=INK, lw=0.8, ls=_DOTTED, alpha=0.7)
    axes.annotate(
        name, (0.005, score), xycoords=axes.get_yaxis_transform(), ha="left", va="bottom",
        fontsize=7, alpha=0.8,
    )  # fmt: skip


def _lookup_lines(trials: pd.DataFrame, metric: str) -> list[tuple[str, float]]:
    """Return a label and each different score of the look-up tables of a metric."""
    return [
        (f"look-up: {table.replace('_', ' ')}", score)
        for table, name in select_baselines(map(str, trials), metric).items()
        for score in sorted(set(trials[name].dropna().round(_DIGITS)))
    ]


def _set_up_cell_axis(
    frames: SweepFrames, figure: Figure, axes: Axes, labels: list[str]
) -> dict[str, float]:
    """Set up the x-axis and return the position of each cell: its numeric value or its index.

    The figure becomes higher if the labels must be vertical.
    """
    if len(frames.compare) == 1 and all(are_numeric(v) for v in frames.compare.values()):
        positions = {cell: cell_value(frames, cell) for cell in labels}
        axes.set_xlabel(next(iter(frames.compare)))
        mark_numbers(axes, list(positions.values()))
        return positions
    label_categories(figure, axes, labels)
    return {cell: float(i) for i, cell in enumerate(labels)}


def _spread(count: int) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    return np.linspace(-1, 1, count) if count > 1 else np.zeros(count)
