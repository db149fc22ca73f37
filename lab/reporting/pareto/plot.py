"""Figure of the Pareto front: score over cost."""

import math

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from lab.config.costs.second_objective import COSTS, CostName
from lab.reporting.figures.cell_colors import cell_colors
from lab.reporting.figures.svg import INK, STYLED, new_figure
from lab.reporting.pareto.front import Front, Status
from lab.tracking.frames import SweepFrames

_MARKERS: dict[Status, str] = {"on the front": "o", "not separable": "D", "dominated": "x"}
_LOG = 4.0  # an axis with a larger ratio of maximum to minimum is logarithmic
_NAMED = 12  # with more settings, names would overlap
_LONGEST = 40  # characters of a name


@STYLED
def plot_front(frames: SweepFrames, front: Front, cost: CostName) -> Figure:
    """Plot mean and 95 % interval of each setting over its cost, and the front as steps."""
    colors = cell_colors(frames)
    figure, axes = new_figure(3.7)
    members = front.with_status("on the front")
    axes.step([p.cost for p in members], [p.score.mean for p in members], where="post",
              color=INK, lw=1, alpha=0.7)  # fmt: skip
    for point in front.points:
        half = point.score.high - point.score.mean
        axes.errorbar(
            point.cost, point.score.mean, yerr=None if math.isnan(half) else half,
            fmt=_MARKERS[point.status], color=colors[point.cell], ms=6, elinewidth=1.2, capsize=3,
        )  # fmt: skip
        if len(front.points) <= _NAMED:
            axes.annotate(point.label[:_LONGEST], (point.cost, point.score.mean), fontsize=7,
                          xytext=(5, 4), textcoords="offset points")  # fmt: skip
    for status, marker in _MARKERS.items():
        axes.plot([], [], marker, color=INK, label=status)
    costs = [point.cost for point in front.points]
    if max(costs) / min(costs) > _LOG:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(EngFormatter(COSTS[cost].unit))
    axes.set_xlabel(COSTS[cost].title)
    axes.set_ylabel(frames.metric.name)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=3)
    return figure
