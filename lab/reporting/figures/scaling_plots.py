"""Figures of scaling laws: IsoFLOP profiles, residuals, and the trend of the learning rate."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from lab.reporting.figures.cell_colors import RAMP, ordered_colors
from lab.reporting.figures.svg import INK, STYLED, WIDTH, new_figure
from lab.reporting.scaling.analysis import FittedGroup
from lab.reporting.scaling.estimates import format_flops, format_number
from lab.reporting.scaling.isoflop_curves import IsoflopCurve, isoflop_curves
from lab.reporting.scaling.parameter_counts import BLOCKS
from lab.scaling.rate_trend import RateTrend

_LINE_POINTS = 50


@STYLED
def plot_isoflop(fitted: FittedGroup) -> Figure:
    """Plot the loss over N: a dot per run, and the law and the parabola of each budget.

    A diamond is the optimum of the law, with its interval where the runs limit it.
    """
    figure, axes = new_figure(4.2)
    for curve in isoflop_curves(fitted):
        _plot_curve(axes, curve)
    _scale_log(axes.xaxis, (1, 2, 5))
    axes.set_xlabel(f"N, {BLOCKS}")
    axes.set_ylabel(fitted.group.metric.name)
    axes.plot([], [], color=INK, lw=1.4, label="law")
    axes.plot([], [], color=INK, lw=1, ls=(0, (4, 3)), label="parabola")
    figure.legend(loc="outside lower left", ncols=5)
    return figure


def _plot_curve(axes: Axes, curve: IsoflopCurve) -> None:
    color = curve.color
    axes.plot(curve.run_sizes_n, curve.losses_n, "o", color=color, ms=4, mew=0)
    axes.plot(curve.sizes_S, curve.law_S, color=color, lw=1.4, label=format_flops(curve.budget))
    if curve.parabola_S is not None:
        axes.plot(curve.sizes_S, curve.parabola_S, color=color, lw=1, ls=(0, (4, 3)))
    size = curve.optimum.size
    if size.low > 0 and np.isfinite(size.high):
        ends = [[size.value - size.low], [size.high - size.value]]
        axes.errorbar(
            [size.value], [curve.optimum.allocation.loss], xerr=ends, fmt="D", color=color, ms=6,
            elinewidth=1.2, capsize=3,
        )  # fmt: skip


@STYLED
def plot_residuals(fitted: FittedGroup) -> Figure:
    """Plot the residuals of the log losses over N and over D, colored by budget."""
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    points, residuals = fitted.fit.points, 100 * fitted.fit.residuals_n
    budgets = np.unique(points.budgets_n)
    panels: Sequence[Axes] = figure.subplots(1, 2, sharey=True)
    for axes, name, values in zip(
        panels, ("N", "tokens D"), (points.parameters_n, points.tokens_n), strict=True
    ):
        axes.axhline(0, color=INK, lw=0.8, alpha=0.7)
        for budget, color in zip(budgets, ordered_colors(len(budgets)), strict=True):
            own = points.budgets_n == budget
            axes.plot(
                values[own], residuals[own], "o", color=color, ms=4, mew=0,
                label=format_flops(budget) if name == "N" else None,
            )  # fmt: skip
        _scale_log(axes.xaxis, (1, 3))
        axes.set_xlabel(name)
    panels[0].set_ylabel("law minus loss, %")
    figure.legend(loc="outside lower left", ncols=5)
    return figure


@STYLED
def plot_rates(trend: RateTrend) -> Figure:
    """Plot the best learning rate over N by horizon, and the trend with its interval."""
    figure, axes = new_figure(3.2)
    used = [optimum for optimum in trend.optima if not optimum.problem]
    sizes = np.array([optimum.predictors["parameters"] for optimum in used])
    tokens = np.array([optimum.predictors["tokens"] for optimum in used])
    dots = axes.scatter(
        sizes, [optimum.rate for optimum in used], c=np.log10(tokens), cmap=RAMP, s=26,
        edgecolors=INK, linewidths=0.5,
    )  # fmt: skip
    others = dict(zip(trend.names, trend.centers, strict=True))
    line = np.geomspace(sizes.min(), sizes.max(), _LINE_POINTS)
    rates = [trend.rate(**(others | {"parameters": float(size)})) for size in line]
    axes.plot(line, [rate.value for rate in rates], color=INK, lw=1.4, label="trend")
    if all(np.isfinite(rate.high) for rate in rates):
        lows, highs = [rate.low for rate in rates], [rate.high for rate in rates]
        axes.fill_between(line, lows, highs, color=INK, alpha=0.1, lw=0, label="its interval")
    _scale_log(axes.xaxis, (1, 2, 5))
    _scale_log(axes.yaxis, (1, 1.5, 2, 3, 5, 7))
    axes.set_xlabel(f"N, {BLOCKS}")
    axes.set_ylabel("best learning rate")
    figure.colorbar(dots, ax=axes, label="log10 of the tokens of the run")
    figure.legend(loc="outside lower left", ncols=3)
    return figure


def _scale_log(axis: Axis, multiples: Sequence[float]) -> None:
    """Make an axis logarithmic, with ticks at these multiples of the powers of ten."""
    set_scale = axis.axes.set_xscale if axis is axis.axes.xaxis else axis.axes.set_yscale
    set_scale("log")
    axis.set_major_locator(LogLocator(subs=multiples))
    axis.set_major_formatter(FuncFormatter(lambda value, _: format_number(value)))
    axis.set_minor_locator(NullLocator())
