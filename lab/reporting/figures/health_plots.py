"""The figure of the training diagnostics: one panel for each diagnostic, over compute."""

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from lab.reporting.figures.cell_colors import cell_colors
from lab.reporting.figures.curve_lines import plot_lines
from lab.reporting.figures.svg import INK, STYLED, WIDTH, add_legend
from lab.tracking.frames import SweepFrames

_HEALTH = (  # panel title; its lines: metric, label in the legend, line style
    ("training loss", (("train/loss", "loss", "-"),)),
    ("replaced tokens", (("health/replacement_rate", "replaced", "-"),)),
    ("recall of replaced tokens", (("health/recall_replaced", "recall", "-"),)),
    (
        "discriminator loss",
        (
            ("train/discriminator_loss", "loss", "-"),
            ("health/majority_loss", "uninformed (rate of replacement)", ":"),
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
    figure = Figure(figsize=(WIDTH, 2.0 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False)
    colors = cell_colors(frames)
    for axes, (title, lines) in zip(grid.flat, panels, strict=False):
        for metric, _, style in lines:
            plot_lines(axes, frames, "spent/flops", metric, colors, ls=style, lw=0.6)
        _finish_panel(axes, title, lines)
    for axes in list(grid.flat)[len(panels) :]:
        axes.remove()
    grid[-1, 0].set_xlabel("training compute, FLOP")
    handles = [mpl.lines.Line2D([], [], color=color, lw=2) for color in colors.values()]
    add_legend(figure, handles, list(colors))
    return figure


def _finish_panel(axes: Axes, title: str, lines: Sequence[tuple[str, str, str]]) -> None:
    axes.set_title(title)
    axes.xaxis.set_major_formatter(EngFormatter("", sep=""))
    if len(lines) > 1:
        for _, name, style in lines:
            axes.plot([], [], style, color=INK, lw=0.8, label=name)
        axes.margins(y=0.2)  # room for the legend
        axes.legend(fontsize=7)
