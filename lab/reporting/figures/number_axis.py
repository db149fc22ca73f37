"""A horizontal axis of numbers, which is logarithmic where they span a large range."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

_LOG = 4.0  # with a larger ratio of maximum to minimum the axis is logarithmic


def mark_numbers(axes: Axes, numbers: Sequence[float]) -> None:
    """Label the numbers on the x-axis, and make it logarithmic if their range is large."""
    if min(numbers) > 0 and max(numbers) / min(numbers) > _LOG:
        make_logarithmic(axes)
    axes.set_xticks(numbers, [f"{x:g}" for x in numbers])


def make_logarithmic(axes: Axes) -> None:
    """Make the x-axis logarithmic, with plain numbers as labels."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
