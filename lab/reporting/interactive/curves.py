"""Interactive curves of the trials: the score, and the training losses."""

from collections.abc import Mapping

import pandas as pd

from lab.config.lookups import select_baselines
from lab.reporting import sentences
from lab.reporting.compute.mean_curves import MeanCurves, mean_curves
from lab.reporting.figures.cell_colors import cell_colors
from lab.reporting.interactive.spec import (
    INK,
    SOFT,
    Choice,
    Json,
    LiveFigure,
    base_layout,
    clean,
    describe_trial,
    numbers,
    run_path,
    trial_records,
)
from lab.reporting.shapes import untrained_by_shape
from lab.tracking.frames import SweepFrames

_AXES = {  # label of the button, title of the axis, unit
    "spent/flops": ("FLOPs", "training compute (FLOP)", "FLOP"),
    "spent/tokens": ("tokens", "tokens read", "tokens"),
    "spent/seconds": ("seconds", "training time (s)", "s"),
}
_DIGITS = 6  # of coordinates: more than a screen shows, and a third of the bytes
_SCALE = Choice(
    title="scale",
    options=(
        ("linear", {"layout": {"xaxis.type": "linear"}}),
        ("log", {"layout": {"xaxis.type": "log"}}),
    ),
)


def list_axes(frames: SweepFrames) -> list[str]:
    """Return the columns of compute; seconds on a shared device are not comparable."""
    shared = bool(frames.trials["shared"].any())
    return [
        axis for axis in _AXES if axis in frames.curves and not (shared and axis == "spent/seconds")
    ]


def draw_scores(
    frames: SweepFrames, runs: pd.DataFrame, groups: str = "settings"
) -> LiveFigure | None:
    """Return the figure of every trial's score over compute; None if no score was recorded.

    Args:
        frames: frames of a sweep, or of several.
        runs: trials by which the settings are compared (`stats.scored_trials`).
        groups: what the cells of the frames are.
    """
    name, axes = frames.metric.name, list_axes(frames)
    if name not in frames.curves or not axes:
        return None
    ends = {axis: float(frames.curves[axis].max()) for axis in axes}
    captions = {
        axis: f"{sentences.describe_curve(frames, runs, axis, _AXES[axis][2])} "
        f"{_describe(frames, groups)}"
        for axis in axes
    }
    traces = [
        *_trial_traces(frames, [name], axes),
        *_mean_traces(frames, {axis: mean_curves(frames, runs, axis) for axis in axes}),
        *(
            {
                "mode": "lines", "name": clean(label), "hoverinfo": "skip",
                "line": {"color": color, "dash": dash, "width": 1},
                "columns": {"x": {axis: numbers([0, ends[axis]]) for axis in axes},
                            "y": {name: numbers([score, score])}},
            }
            for label, score, color, dash in list_levels(frames)
        ),
    ]  # fmt: skip
    return LiveFigure(
        name="live-scores",
        title="Score of every trial",
        caption=captions[axes[0]],
        traces=traces,
        layout=base_layout(_AXES[axes[0]][1], name, 500),
        choices=(_axis_choice(axes, captions), _SCALE),
        files=("curves.csv",),
    )


def draw_losses(frames: SweepFrames, groups: str = "settings") -> LiveFigure | None:
    """Return the figure of every trial's training loss; None if no loss was recorded.

    Args:
        frames: frames of a sweep, or of several.
        groups: what the cells of the frames are.
    """
    losses = [
        str(name)
        for name in frames.curves
        if str(name).startswith("train/")
        and str(name).endswith("loss")
        and frames.curves[name].notna().any()
    ]
    axes = list_axes(frames)
    if not losses or not axes:
        return None
    losses.sort(key=lambda name: (name != "train/loss", name))
    options = [
        (name.removeprefix("train/").replace("_", " "),
         {"y": name, "layout": {"yaxis.title.text": clean(name)}})
        for name in losses
    ]  # fmt: skip
    return LiveFigure(
        name="live-losses",
        title="Training loss of every trial",
        caption=f"{sentences.describe_last_losses(frames, losses[0])} {_describe(frames, groups)}",
        traces=_trial_traces(frames, losses, axes),
        layout=base_layout(_AXES[axes[0]][1], losses[0]),
        choices=(
            *((Choice(title="loss", options=options),) if len(losses) > 1 else ()),
            _axis_choice(axes, {}),
            _SCALE,
        ),
        files=("curves.csv",),
    )


def list_levels(frames: SweepFrames) -> list[tuple[str, float, str, str]]:
    """Return label, score, color and dash of the untrained scores and the look-up tables."""
    levels = [
        (f"untrained, {label}" if label else "untrained", start.mean, INK, "dash")
        for label, start in untrained_by_shape(frames).items()
    ]
    for table, column in select_baselines(map(str, frames.trials), frames.metric.name).items():
        scores = sorted(set(frames.trials[column].dropna().round(4)))
        label = f"look-up: {table.replace('_', ' ')}"
        levels += [(label, float(score), SOFT, "dot") for score in scores]
    return levels


def _mean_traces(frames: SweepFrames, means: Mapping[str, MeanCurves]) -> list[Json]:
    """Return the mean of the reference, and the best mean with the deviation of its seeds.

    Args:
        frames: frames of a sweep, or of several.
        means: means by column of compute.
    """
    first = next(iter(means.values()))
    if first.best.empty:
        return []
    steps = {axis: each.steps for axis, each in means.items()}
    end: Json = {"line": {"color": INK, "shape": "hv", "width": 0}}
    traces = [
        end | {"showlegend": False} | _mean_columns(steps, -1),
        end | {"name": "± 1 sd", "fill": "tonexty", "fillcolor": INK, "opacity": 0.12}
        | _mean_columns(steps, 1),
        {"name": "best mean", "line": {"color": INK, "shape": "hv", "width": 2}}
        | _mean_columns(steps, 0),
    ]  # fmt: skip
    if len(first.reference):
        color = cell_colors(frames)[frames.reference]
        reference = {"name": "reference", "legendgroup": clean(frames.reference),
                     "line": {"color": color, "width": 3}}  # fmt: skip
        columns = _mean_columns({axis: each.reference for axis, each in means.items()}, 0)
        traces.append(reference | columns)
    return [{"mode": "lines", "hoverinfo": "skip"} | trace for trace in traces]


def _mean_columns(tables: Mapping[str, pd.DataFrame], deviations: float) -> Json:
    """Return the columns of a trace at a distance from means, in deviations of the seeds.

    With one seed, the distance is 0: Plotly would fill over a gap.
    """
    y = {axis: each["mean"] + deviations * each["sd"].fillna(0) for axis, each in tables.items()}
    return {
        "columns": {
            "x": {axis: numbers(each[axis]) for axis, each in tables.items()},
            "y": {axis: numbers(values) for axis, values in y.items()},
        }
    }


def _trial_traces(frames: SweepFrames, names: list[str], axes: list[str]) -> list[Json]:
    """Return a trace for each trial; the trials of a cell share an entry of the legend."""
    colors, curves = cell_colors(frames), dict(iter(frames.curves.groupby("number")))
    traces: list[Json] = []
    shown: set[str] = set()
    for trial in trial_records(frames):
        curve, cell = curves.get(trial["number"]), trial["cell"]
        if curve is None:
            continue
        curve = curve.dropna(subset=names, how="all")
        if curve.empty:
            continue
        traces.append(
            {
                "mode": "lines+markers", "name": clean(cell[:60]), "legendgroup": clean(cell),
                "showlegend": cell not in shown,
                "line": {"color": colors[cell], "width": 0.9},
                "marker": {"color": colors[cell], "size": 4},
                "text": describe_trial(trial),
                "hovertemplate": "%{fullData.text}<br>%{x:.4s}, %{y:.4f}<extra></extra>",
                "meta": {"trial": trial["number"], "run": run_path(frames, trial)},
                "columns": {"x": {axis: numbers(curve[axis], _DIGITS) for axis in axes},
                            "y": {name: numbers(curve[name], _DIGITS) for name in names}},
            }
        )  # fmt: skip
        shown.add(cell)
    return traces


def _describe(frames: SweepFrames, groups: str) -> str:
    drawn = frames.curves["number"].nunique()
    text = f"{drawn} trials have a curve; their colors are the {frames.trials['cell'].nunique()} "
    return f"{text}{groups}, which the legend shows and hides."


def _axis_choice(axes: list[str], captions: dict[str, str]) -> Choice:
    """Return the buttons of the horizontal axis; a caption replaces the figure's."""
    return Choice(
        title="axis",
        options=[
            (
                _AXES[axis][0],
                {"x": axis, "layout": {"xaxis.title.text": _AXES[axis][1]}}
                | ({"caption": captions[axis]} if captions else {}),
            )
            for axis in axes
        ],
    )
