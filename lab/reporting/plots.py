"""Figures of the scores: over compute, by cell, and over a nuisance parameter.

Each function returns a new matplotlib figure and uses no global state. The style and the color of
axes and text are set in `svg`, the colors of the cells in `cell_colors`.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullLocator

from lab.config.trial import Path
from lab.reporting.cell_colors import are_numeric, cell_colors, cell_value
from lab.reporting.compute.learning_curves import best_so_far
from lab.reporting.heat_map import is_two_way_grid, plot_heat_map
from lab.reporting.intervals import Interval
from lab.reporting.stats import Answer, marginal_means, untrained_scores
from lab.reporting.svg import INK, STYLED, new_figure
from lab.tracking.frames import SweepFrames

_LOG = 4.0  # a numeric axis with a larger ratio of maximum to minimum is logarithmic
_AXES = {
    "spent/flops": ("training compute", "FLOP"),
    "spent/tokens": ("tokens read", ""),
    "spent/seconds": ("training time", "s"),
}


@STYLED
def plot_curves(frames: SweepFrames, axis: str) -> Figure:
    """Plot the score over `axis`: a thin line per trial, the best score so far in bold."""
    name = frames.metric.name
    colors = cell_colors(frames)
    figure, axes = new_figure(3.7)
    cells = frames.trials.set_index("number")["cell"]
    for number, curve in frames.curves.groupby("number"):
        points = curve[[axis, name]].dropna()
        axes.plot(points[axis], points[name], color=colors[cells[number]], lw=0.9, alpha=0.65)
    best = best_so_far(frames, axis)
    end = frames.curves[axis].max()
    axes.step(
        [*best[axis], end], [*best[name], best[name].iloc[-1]], where="post", color=INK, lw=2,
        label="best so far",
    )  # fmt: skip
    _plot_untrained(axes, untrained_scores(frames))
    title, unit = _AXES[axis]
    axes.set_xlabel(title)
    axes.xaxis.set_major_formatter(EngFormatter(unit))
    axes.set_ylabel(name)
    axes.set_xlim(left=0)
    for cell, color in colors.items():
        axes.plot([], [], color=color, lw=2, label=cell)
    _legend(figure, axes)
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
    positions = _set_up_cell_axis(frames, axes, list(colors))
    width = 0.012 * (max(positions.values()) - min(positions.values()) or 1.0)
    for cell in answer.cells:
        scores = runs.loc[runs["cell"] == cell.label, "score"]
        x, color = positions[cell.label], colors[cell.label]
        log = axes.get_xscale() == "log"
        offsets = _spread(len(scores))
        dots = x * 1.03**offsets if log else x + width * offsets
        axes.plot(dots, scores, "o", color=color, alpha=0.75, ms=4.5, mew=0)
        half = cell.score.high - cell.score.mean
        axes.errorbar(x, cell.score.mean, yerr=None if np.isnan(half) else half, fmt="_",
                      color=color, ms=16, mew=2, elinewidth=1.4, capsize=3)  # fmt: skip
    low, high = axes.get_ylim()
    start = untrained_scores(frames)
    if low - (high - low) < start.mean < high + (high - low):
        _plot_untrained(axes, start)
    elif not np.isnan(start.mean):  # on this axis the differences between cells would vanish
        axes.annotate(
            f"untrained: {start.mean:.4f}, outside the axis range",
            (0.01, 0.02),
            xycoords="axes fraction",
        )
    axes.set_ylabel(frames.metric.name)
    _legend(figure, axes)
    return figure


@STYLED
def plot_nuisance(frames: SweepFrames, path: Path) -> Figure:
    """Plot the search score over one nuisance parameter.

    The figure has a dot per search trial and a line through the best score of each bin. Crosses at
    the bottom mark trials without a score.
    """
    colors, distribution = cell_colors(frames), frames.tune[path]
    figure, axes = new_figure(2.9)
    search = frames.trials[frames.trials["role"] == "search"]
    numeric, binned = are_numeric(search[path]), marginal_means(frames, path)
    for cell, color in colors.items():
        trials, line = search[search["cell"] == cell], binned[binned["cell"] == cell]
        x = trials[path] if numeric else trials[path].astype(str)
        axes.plot(x, trials["score"], "o", color=color, ms=4.5, mew=0, alpha=0.7, label=cell)
        lost = x[trials["score"].isna()]
        bottom = axes.get_xaxis_transform()
        axes.plot(lost, np.full(len(lost), 0.03), "x", color=color, ms=5, transform=bottom)
        if numeric:
            axes.plot(line["value"], line["best"], color=color, lw=1.1, alpha=0.7)
    if distribution.get("log"):
        _log_axis(axes)
    axes.set_xlabel(path)
    axes.set_ylabel(frames.metric.name)
    _legend(figure, axes)
    return figure


def _legend(figure: Figure, axes: Axes) -> None:
    handles, names = axes.get_legend_handles_labels()
    if names:
        columns = max(1, 90 // (max(map(len, names)) + 6))
        figure.legend(handles, names, loc="outside lower left", ncols=columns)


def _plot_untrained(axes: Axes, line: Interval) -> None:
    if not np.isnan(line.mean):
        axes.axhline(line.mean, color=INK, lw=1, ls=(0, (4, 3)), alpha=0.7, label="untrained")
    if line.low < line.high:
        axes.axhspan(line.low, line.high, color=INK, alpha=0.10, lw=0)


def _set_up_cell_axis(frames: SweepFrames, axes: Axes, labels: list[str]) -> dict[str, float]:
    """Set up the x-axis and return the position of each cell: its numeric value or its index."""
    if len(frames.compare) == 1 and all(are_numeric(v) for v in frames.compare.values()):
        positions = {cell: cell_value(frames, cell) for cell in labels}
        axes.set_xlabel(next(iter(frames.compare)))
        if min(positions.values()) > 0 and max(positions.values()) / min(positions.values()) > _LOG:
            _log_axis(axes)
        axes.set_xticks(list(positions.values()), [f"{x:g}" for x in positions.values()])
        return positions
    axes.set_xticks(
        range(len(labels)),
        labels,
        rotation=20 if len(labels) > 4 else 0,
        ha="right" if len(labels) > 4 else "center",
    )
    axes.set_xlim(-0.6, len(labels) - 0.4)
    return {cell: float(i) for i, cell in enumerate(labels)}


def _log_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _spread(count: int) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    return np.linspace(-1, 1, count) if count > 1 else np.zeros(count)
