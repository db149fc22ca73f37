"""Figures of a report. Each function returns a new matplotlib figure and uses no global state.

The data colors are legible on light and dark backgrounds and distinguishable with color vision
deficiencies (Okabe and Ito; a ramp from blue to orange if the compared value is a number). The
style and the color of axes and text are set in `svg`.
"""

from collections.abc import Iterable, Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullLocator

from lab.config.trial import Path
from lab.reporting.compute_multiplier import best_so_far
from lab.reporting.intervals import Interval
from lab.reporting.stats import Answer, marginal_means, untrained_scores
from lab.reporting.svg import INK, STYLED
from lab.tracking.frames import SweepFrames

# Palette of Okabe and Ito, then Tol's "muted" palette. With more cells than this, a ramp is used.
_COLORS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C8C8C",
    "#882255", "#44AA99", "#7A68C9", "#999933", "#AA4466",
)  # fmt: skip
_RAMP = LinearSegmentedColormap.from_list("lab", ["#4363D8", "#C2569B", "#F0A030"])
_WIDE = 7.6  # inches
_LOG = 4.0  # a numeric axis with a larger ratio of maximum to minimum is logarithmic
_AXES = {
    "spent/flops": ("training compute", "FLOP"),
    "spent/tokens": ("tokens read", ""),
    "spent/seconds": ("training time", "s"),
}

_HEALTH = (  # panel title; its lines: metric, label in the legend, line style
    ("replaced tokens", (("health/replacement_rate", "replaced", "-"),)),
    ("recall of replaced tokens", (("health/recall_replaced", "recall", "-"),)),
    (
        "discriminator loss",
        (
            ("train/discriminator_loss", "loss", "-"),
            ("health/majority_loss", "always predicting 'original'", ":"),
        ),
    ),
    (
        "token prediction loss",
        (("train/generator_loss", "generator", "-"), ("train/mlm_loss", "encoder", ":")),
    ),
    ("generator accuracy", (("health/generator_accuracy", "accuracy", "-"),)),
    (
        "gradient norm",
        (
            ("health/grad_norm_discriminator", "discriminator", "-"),
            ("health/grad_norm_encoder", "encoder", "-"),
            ("health/grad_norm_generator", "generator", ":"),
        ),
    ),
    # Scheduled settings; recorded only by trials in which the setting changes.
    ("window length (tokens)", (("schedule/length", "length", "-"),)),
    ("batch size (windows)", (("schedule/batch", "batch", "-"),)),
    ("mask probability", (("schedule/mask_prob", "mask_prob", "-"),)),
    ("weight of the discriminator's loss", (("schedule/disc_weight", "disc_weight", "-"),)),
    ("sampling temperature", (("schedule/temperature", "temperature", "-"),)),
)


@STYLED
def plot_curves(frames: SweepFrames, axis: str) -> Figure:
    """Plot the score over `axis`: a thin line per trial, the best score so far in bold."""
    name = frames.metric.name
    colors = _colors(frames)
    figure, axes = _figure(3.7)
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
    colors = _colors(frames)
    figure, axes = _figure(3.3)
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
    colors, distribution = _colors(frames), frames.tune[path]
    figure, axes = _figure(2.9)
    search = frames.trials[frames.trials["role"] == "search"]
    numeric, binned = _numeric(search[path]), marginal_means(frames, path)
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


@STYLED
def plot_health(frames: SweepFrames) -> Figure | None:
    """Plot the training diagnostics over compute, or return None if none were recorded."""
    panels = [
        (title, [line for line in lines if line[0] in frames.curves])
        for title, lines in _HEALTH
        if any(metric in frames.curves for metric, _, _ in lines)
    ]
    if not panels:
        return None
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(_WIDE, 2.0 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False)
    colors = _colors(frames)
    cells = frames.trials.set_index("number")["cell"]
    for axes, (title, lines) in zip(grid.flat, panels, strict=False):
        for metric, _, style in lines:
            for number, curve in frames.curves.groupby("number"):
                points = curve[["spent/flops", metric]].dropna()
                axes.plot(points["spent/flops"], points[metric], style, color=colors[cells[number]],
                          lw=0.8, alpha=0.7)  # fmt: skip
        _finish_panel(axes, title, lines)
    for axes in list(grid.flat)[len(panels) :]:
        axes.remove()
    figure.supxlabel("training compute, FLOP", fontsize=9)
    handles = [mpl.lines.Line2D([], [], color=color, lw=2) for color in colors.values()]
    figure.legend(handles, list(colors), loc="outside lower left", ncols=4)
    return figure


def _finish_panel(axes: Axes, title: str, lines: Sequence[tuple[str, str, str]]) -> None:
    axes.set_title(title)
    axes.xaxis.set_major_formatter(EngFormatter("", sep=""))
    if len(lines) > 1:
        for _, name, style in lines:
            axes.plot([], [], style, color=INK, lw=0.8, label=name)
        axes.margins(y=0.2)  # room for the legend
        axes.legend(fontsize=7)


def is_two_way_grid(frames: SweepFrames) -> bool:
    """Return whether the sweep compares exactly two settings with numeric values."""
    return len(frames.compare) == 2 and all(_numeric(v) for v in frames.compare.values())


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
    figure, axes = _figure(0.45 * len(rows) + 1.6)
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


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDE, height), layout="constrained")
    return figure, figure.subplots()


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


def _colors(frames: SweepFrames) -> dict[str, str]:
    """Return a color for each cell, in the order of the search space."""
    labels = list(dict.fromkeys(frames.trials["cell"]))
    ordered = len(frames.compare) == 1 and all(_numeric(v) for v in frames.compare.values())
    if not ordered and len(labels) <= len(_COLORS):
        return dict(zip(labels, _COLORS, strict=False))
    if len(labels) == 1:
        return {labels[0]: _COLORS[0]}
    ramp = _RAMP(np.linspace(0, 1, len(labels)))
    if ordered:
        labels.sort(key=lambda cell: float(_value(frames, cell)))
    return {cell: to_hex(color) for cell, color in zip(labels, ramp, strict=True)}


def _value(frames: SweepFrames, cell: str) -> float:
    (path,) = frames.compare
    return float(frames.trials.loc[frames.trials["cell"] == cell, path].iloc[0])


def _set_up_cell_axis(frames: SweepFrames, axes: Axes, labels: list[str]) -> dict[str, float]:
    """Set up the x-axis and return the position of each cell: its numeric value or its index."""
    if len(frames.compare) == 1 and all(_numeric(v) for v in frames.compare.values()):
        positions = {cell: _value(frames, cell) for cell in labels}
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


def _numeric(values: Iterable[object]) -> bool:
    return all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
