"""Figures of a report with title and caption: scores, tuned parameters, training diagnostics."""

import pandas as pd

from lab.reporting import sentences, tuned_parameters
from lab.reporting.figures import health_plots, isolation, plots, svg, tuning_plots
from lab.reporting.figures.figure import Figure
from lab.reporting.stats import Answer
from lab.tracking.frames import SweepFrames

_COMPUTE = {  # title of the axis, unit
    "spent/flops": ("training compute", "FLOP"),
    "spent/tokens": ("tokens", "tokens"),
    "spent/seconds": ("training time", "s"),
}


def draw_scores(frames: SweepFrames, runs: pd.DataFrame) -> list[Figure]:
    """Return the figures of the scores over FLOPs, tokens and seconds; none without scores.

    Args:
        frames: frames of a sweep, or of several.
        runs: trials by which the settings are compared (`stats.scored_trials`).
    """
    if frames.metric.name not in frames.curves:
        return []
    return [
        Figure(
            name=f"score-{unit.lower()}", title=f"Score against {title}",
            caption=sentences.describe_curve(frames, runs, axis, unit), files=("curves.csv",),
            svg=svg.render_svg(plots.plot_curves(frames, runs, axis)),
        )
        for axis, (title, unit) in _COMPUTE.items()
        # On a shared device, the seconds of a trial depend on the other trials.
        if axis in frames.curves and (axis != "spent/seconds" or not frames.trials["shared"].any())
    ]  # fmt: skip


def draw_isolation(frames: SweepFrames, answer: Answer, runs: pd.DataFrame) -> list[Figure]:
    """Return the figure of each compared path with the others held fixed; none for a single path.

    Args:
        frames: frames of the sweep.
        answer: comparison of the cells.
        runs: trials by which the cells are compared (`stats.scored_trials`).
    """
    return [
        Figure(
            name=f"isolation-{each.path}",
            title=f"Score over {each.path}",
            caption=isolation.describe(each, answer.noise_sd),
            files=("settings.csv", "trials.csv"),
            svg=svg.render_svg(isolation.plot(frames, each)),
        )
        for each in isolation.isolate_paths(frames, runs)
    ]


def draw_tuning(frames: SweepFrames, answer: Answer) -> list[Figure]:
    """Return the figures of tuned parameters; none where no search trial has a score.

    Parallel coordinates of a single parameter would show what its own figure does.
    """
    paths = tuned_parameters.searched_paths(frames)
    figures = []
    if len(paths) > 1:
        figures.append(
            Figure(
                name="parallel",
                title="Tuned parameters of the search trials",
                caption=tuned_parameters.describe_parallel(frames),
                files=("trials.csv",),
                svg=svg.render_svg(tuning_plots.plot_parallel(frames)),
            )
        )
    if importance := tuned_parameters.rank_searched(frames):
        figures.append(
            Figure(
                name="importance",
                title="Importance",
                caption=tuned_parameters.describe_ranking(frames, importance),
                files=("importance.csv",),
                svg=svg.render_svg(tuning_plots.plot_importance(importance)),
            )
        )
    return figures + [
        Figure(
            name=f"tune-{path}",
            title=path,
            caption=sentences.describe_nuisance(frames, answer, path),
            files=("trials.csv",),
            svg=svg.render_svg(plots.plot_nuisance(frames, path)),
        )
        for path in paths
    ]


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
            files=("curves.csv",),
            svg=svg.render_svg(diagnostics),
        )
    ]
