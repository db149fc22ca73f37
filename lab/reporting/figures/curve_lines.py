"""Draw the curves of all trials: one line of matplotlib for each cell, with gaps between trials.

A line for each trial would take seconds for each hundred trials. Long curves are drawn with fewer
points, so that the size of a figure is limited.
"""

import pandas as pd
from matplotlib.axes import Axes

from lab.tracking.frames import SweepFrames

_MOST_POINTS = 5_000  # of all trials; more are not seen at the width of a page


def plot_lines(
    axes: Axes, frames: SweepFrames, x: str, y: str, colors: dict[str, str], **style: object
) -> None:
    """Draw the curves of all trials in the colors of their cells; one point alone is a dot.

    Args:
        axes: axes to draw on.
        frames: frames of the sweep.
        x: column of `SweepFrames.curves` on the horizontal axis.
        y: column on the vertical axis.
        colors: color of each cell.
        style: properties of the lines (`matplotlib.lines.Line2D`).
    """
    points = _thin(frames.curves[["number", x, y]].dropna())
    points = points.assign(cell=points["number"].map(frames.trials.set_index("number")["cell"]))
    is_alone = ~points["number"].duplicated(keep=False)
    lines, alone = _separate(points[~is_alone]), points[is_alone]
    # A short line with round ends is a dot; markers take twice the space in an SVG file.
    dots = _separate(pd.concat([alone, alone.assign(**{x: alone[x] * (1 + 1e-6)})]))
    for cell, color in colors.items():
        line = lines[lines["cell"] == cell]
        axes.plot(line[x], line[y], color=color, **style)  # type: ignore[arg-type]
    for cell, color in colors.items():
        dot = dots[dots["cell"] == cell]
        axes.plot(dot[x], dot[y], color=color, lw=2, solid_capstyle="round")


def _separate(points: pd.DataFrame) -> pd.DataFrame:
    """Return the points by trial, with a gap after each."""
    gaps = points.drop_duplicates("number")[["number", "cell"]]
    return pd.concat([points, gaps]).sort_values("number", kind="stable")


def _thin(points: pd.DataFrame) -> pd.DataFrame:
    """Return each k-th point of every trial and its last one, with k for `_MOST_POINTS`."""
    every = max(1, -(-len(points) // _MOST_POINTS))
    trials = points.groupby("number")
    is_last = trials.cumcount(ascending=False) == 0
    return points[(trials.cumcount() % every == 0) | is_last]
