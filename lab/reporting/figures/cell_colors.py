"""Colors of the cells of a sweep, equal in all figures of its report.

The colors are distinguishable with color vision deficiencies: Okabe and Ito's palette, or a ramp
from blue to orange if the compared value is a number. Some are darker or lighter than there, so
that all have a contrast of 3:1 or more (WCAG 2.1, 1.4.11) with both backgrounds of a page.
"""

from collections.abc import Iterable

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_hex

from lab.tracking.frames import SweepFrames

# Palette of Okabe and Ito, then Tol's "muted" palette. With more cells than this, a ramp is used.
PALETTE = (
    "#0072B2", "#C58700", "#009E73", "#CC79A7", "#499CCA", "#D55E00", "#8C8C8C",
    "#94516C", "#41A392", "#7A68C9", "#989833", "#AA4466",
)  # fmt: skip
RAMP = LinearSegmentedColormap.from_list("lab", ["#4363D8", "#C2569B", "#C98526"])


def cell_colors(frames: SweepFrames) -> dict[str, str]:
    """Return a color for each cell, in the order of the search space."""
    labels = list(dict.fromkeys(frames.trials["cell"]))
    ordered = len(frames.compare) == 1 and all(are_numeric(v) for v in frames.compare.values())
    if not ordered and len(labels) <= len(PALETTE):
        return dict(zip(labels, PALETTE, strict=False))
    if len(labels) == 1:
        return {labels[0]: PALETTE[0]}
    ramp = RAMP(np.linspace(0, 1, len(labels)))
    if ordered:
        labels.sort(key=lambda cell: float(cell_value(frames, cell)))
    return {cell: to_hex(color) for cell, color in zip(labels, ramp, strict=True)}


def ordered_colors(count: int) -> list[str]:
    """Return colors from blue to orange for values in order."""
    return [to_hex(color) for color in RAMP(np.linspace(0, 1, count))]


def cell_value(frames: SweepFrames, cell: str) -> float:
    """Return the compared number of a cell, in a sweep that compares one numeric setting."""
    (path,) = frames.compare
    return float(frames.trials.loc[frames.trials["cell"] == cell, path].iloc[0])


def are_numeric(values: Iterable[object]) -> bool:
    """Return whether all values are numbers; truth values are none."""
    return all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
