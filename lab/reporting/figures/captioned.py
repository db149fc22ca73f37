"""Figures of a report with title and caption: scores over compute, and training diagnostics."""

from lab.reporting import sentences
from lab.reporting.figures import health_plots, plots, svg
from lab.reporting.figures.figure import Figure
from lab.tracking.frames import SweepFrames

_COMPUTE = {  # title of the axis, unit
    "spent/flops": ("training compute", "FLOP"),
    "spent/tokens": ("tokens", "tokens"),
    "spent/seconds": ("training time", "s"),
}


def draw_scores(frames: SweepFrames) -> list[Figure]:
    """Return the figures of the scores over FLOPs, tokens and seconds; none without scores."""
    if frames.metric.name not in frames.curves:
        return []
    return [
        Figure(
            name=f"score-{unit.lower()}", title=f"Score against {title}",
            caption=sentences.describe_curve(frames, axis, unit),
            svg=svg.render_svg(plots.plot_curves(frames, axis)),
        )
        for axis, (title, unit) in _COMPUTE.items()
        # On a shared device, the seconds of a trial depend on the other trials.
        if axis in frames.curves and (axis != "spent/seconds" or not frames.trials["shared"].any())
    ]  # fmt: skip


def draw_health(frames: SweepFrames) -> list[Figure]:
    """Return the figure of the training diagnostics; none if none were recorded."""
    diagnostics = health_plots.plot_health(frames)
    if diagnostics is None:
        return []
    return [
        Figure(
            name="health",
            title="Training diagnostics",
            caption=sentences.describe_health(frames),
            svg=svg.render_svg(diagnostics),
        )
    ]
