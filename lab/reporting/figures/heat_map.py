"""The heat map of a sweep that compares two numeric settings."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from lab.reporting.figures.cell_colors import are_numeric
from lab.reporting.figures.svg import STYLED, new_figure
from lab.tracking.frames import SweepFrames


def is_two_way_grid(frames: SweepFrames) -> bool:
    """Return whether the sweep compares exactly two settings with numeric values."""
    return len(frames.compare) == 2 and all(are_numeric(v) for v in frames.compare.values())


@STYLED
def plot_heat_map(frames: SweepFrames, means: Mapping[str, float]) -> Figure:
    """Plot a heat map of the cells over the two compared settings.

    Args:
        frames: frames of a sweep that compares two numeric settings (`is_two_way_grid`).
        means: value of each cell, by label.
    """
    down, across = frames.compare
    rows, columns = (sorted(map(float, map(str, frames.compare[p]))) for p in (down, across))
    grid = np.full((len(rows), len(columns)), np.nan)
    figure, axes = new_figure(0.45 * len(rows) + 1.6)
    for cell, trials in frames.trials.groupby("cell"):
        i, j = (
            values.index(float(trials[path].iloc[0]))
            for path, values in ((down, rows), (across, columns))
        )
        grid[i, j] = means.get(str(cell), np.nan)
    axes.imshow(grid, cmap="cividis", aspect="auto", origin="lower")
    for (i, j), mean in np.ndenumerate(grid):
        if not np.isnan(mean):
            light = mean > (np.nanmin(grid) + np.nanmax(grid)) / 2
            axes.text(
                j, i, f"{mean:.4f}", ha="center", va="center", color="#111" if light else "#eee"
            )
    axes.grid(visible=False)
    axes.set_xticks(range(len(columns)), [f"{v:g}" for v in columns])
    axes.set_yticks(range(len(rows)), [f"{v:g}" for v in rows])
    axes.set_xlabel(across)
    axes.set_ylabel(down)
    return figure
