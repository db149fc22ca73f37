"""A horizontal axis of named categories, with labels that do not overlap."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.reporting.figures.svg import WIDTH

_CHARACTER = 0.075  # inches; width of a character of a label
_SLANTED = 20  # degrees
_SLANTED_CHARACTERS, _SLANTED_LABELS = 25, 10  # longest and most labels that can be slanted


def label_categories(figure: Figure, axes: Axes, labels: Sequence[str]) -> None:
    """Label the positions 0, 1, ... of the x-axis.

    The figure becomes higher if the labels must be vertical.
    """
    rotation = _rotate(labels)
    aligned = {0: "center", _SLANTED: "right", 90: "center"}[rotation]
    axes.set_xticks(range(len(labels)), labels, rotation=rotation, ha=aligned)
    if rotation == 90:
        figure.set_figheight(figure.get_figheight() + _CHARACTER * max(map(len, labels)))
    axes.set_xlim(-0.6, len(labels) - 0.4)


def _rotate(labels: Sequence[str]) -> int:
    """Return the angle in degrees at which labels below an axis do not overlap."""
    longest = max(map(len, labels))
    if _CHARACTER * (longest + 2) * len(labels) < WIDTH:
        return 0
    is_short = longest <= _SLANTED_CHARACTERS and len(labels) <= _SLANTED_LABELS
    return _SLANTED if is_short else 90
