"""Figures of all tuned parameters together: parallel coordinates and importance."""

import math

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lab.config.trial import Path
from lab.reporting import tuned_parameters
from lab.reporting.figures.category_axis import label_categories
from lab.reporting.figures.cell_colors import PALETTE, cell_colors
from lab.reporting.figures.svg import INK, STYLED, add_legend, new_figure
from lab.tracking.frames import SweepFrames


@STYLED
def plot_parallel(frames: SweepFrames) -> Figure:
    """Plot a line for each search trial over one vertical axis for each tuned parameter.

    The lines of a cell are one line of matplotlib, with a gap after each trial.
    """
    figure, panel = new_figure(3.4)
    axes = tuned_parameters.parallel_axes(frames)
    label_categories(figure, panel, [axis.short_name for axis in axes])
    cells = tuned_parameters.searched_trials(frames)["cell"].tolist()
    for cell, color in cell_colors(frames).items():
        own = [index for index, each in enumerate(cells) if each == cell]
        x = [place for _ in own for place in (*range(len(axes)), math.nan)]
        y = [height for i in own for height in (*(axis.heights[i] for axis in axes), math.nan)]
        panel.plot(x, y, "o-", color=color, lw=0.6, ms=3.5, mew=0, label=cell)
    for place, axis in enumerate(axes):
        panel.axvline(place, color=INK, lw=0.7)
        for height, text in axis.ticks:
            panel.annotate(text[:24], (place, height), xytext=(-5, 0), ha="right", va="center",
                           textcoords="offset points", fontsize=8)  # fmt: skip
    panel.set_yticks([])
    panel.spines[["left", "bottom"]].set_visible(False)
    panel.tick_params(length=0)
    panel.grid(visible=False)
    add_legend(figure, *panel.get_legend_handles_labels())
    return figure


@STYLED
def plot_importance(importance: dict[Path, float]) -> Figure:
    """Plot the importance of each tuned parameter, the largest at the top."""
    figure, axes = new_figure(0.7 + 0.3 * len(importance))
    paths = list(reversed(importance))
    bars = axes.barh(paths, [importance[path] for path in paths], color=PALETTE[0], height=0.6)
    axes.bar_label(bars, [f"{importance[path]:.0%}" for path in paths], padding=4)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("share of the importance")
    axes.grid(visible=False, axis="y")
    return figure
