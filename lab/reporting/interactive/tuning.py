"""Interactive figures of tuned parameters: parallel coordinates, importance and slices."""

from collections.abc import Iterator

from lab.config.trial import Path
from lab.reporting import sentences, tuned_parameters
from lab.reporting.figures.cell_colors import are_numeric, cell_colors
from lab.reporting.interactive.spec import (
    Json,
    LiveFigure,
    base_layout,
    clean,
    describe_trial,
    numbers,
    run_path,
)
from lab.reporting.stats import Answer, last_search_trials
from lab.reporting.tuned_parameters import ParallelAxis, format_setting, list_rows
from lab.tracking.frames import SweepFrames


def draw_tuning(frames: SweepFrames, answer: Answer) -> list[LiveFigure]:
    """Return the figures of tuned parameters; none where no search trial has a score."""
    paths = tuned_parameters.searched_paths(frames)
    if not paths:
        return []
    importance = tuned_parameters.rank_searched(frames)
    return [
        _draw_parallel(frames, paths),
        *([_draw_importance(frames, importance)] if importance else ()),
        *(_draw_slice(frames, answer, path) for path in paths),
    ]


def _draw_importance(frames: SweepFrames, importance: dict[Path, float]) -> LiveFigure:
    paths = list(reversed(importance))
    trace: Json = {
        "type": "bar", "orientation": "h", "marker": {"color": "var(--mark)"},
        "x": numbers(importance[path] for path in paths), "y": [clean(path) for path in paths],
        "hovertemplate": "%{y}: %{x:.1%}<extra></extra>", "showlegend": False,
    }  # fmt: skip
    layout = base_layout("share of the importance", "", 120 + 40 * len(paths))
    layout["xaxis"]["range"] = [0, 1]
    return LiveFigure(
        name="live-importance",
        title="Importance",
        caption=tuned_parameters.describe_ranking(frames, importance),
        traces=[trace],
        layout=layout,
        files=("importance.csv",),
    )


def _draw_parallel(frames: SweepFrames, paths: list[Path]) -> LiveFigure:
    """Return a line for each search trial over one vertical axis for each parameter."""
    colors, axes = cell_colors(frames), tuned_parameters.parallel_axes(frames)
    traces: list[Json] = []
    shown: set[str] = set()
    for index, trial in enumerate(list_rows(tuned_parameters.searched_trials(frames))):
        cell = trial["cell"]
        traces.append(
            {
                "mode": "lines+markers", "name": clean(cell[:60]), "legendgroup": clean(cell),
                "showlegend": cell not in shown,
                "line": {"color": colors[cell], "width": 1},
                "marker": {"color": colors[cell], "size": 6},
                "text": _describe_point(trial, paths),
                "hovertemplate": "%{fullData.text}<extra></extra>",
                "meta": {"trial": trial["number"], "run": run_path(frames, trial)},
                "x": list(range(len(axes))),
                "y": numbers(axis.heights[index] for axis in axes),
            }
        )  # fmt: skip
        shown.add(cell)
    traces += [_tick_trace(x, axis) for x, axis in enumerate(axes)]
    layout = base_layout("", "", 460)
    layout["xaxis"] |= {
        "tickvals": list(range(len(axes))), "showgrid": True,
        "ticktext": [clean(axis.short_name) for axis in axes],
        "range": [-0.45, len(axes) - 0.75], "gridcolor": "var(--soft)",
    }  # fmt: skip
    layout["yaxis"] |= {"showticklabels": False, "showgrid": False, "range": [-0.05, 1.05]}
    return LiveFigure(
        name="live-parallel",
        title="Tuned parameters of the search trials",
        caption=tuned_parameters.describe_parallel(frames),
        traces=traces,
        layout=layout,
        files=("trials.csv",),
    )


def _tick_trace(x: int, axis: ParallelAxis) -> Json:
    return {
        "mode": "text", "hoverinfo": "skip", "showlegend": False, "textposition": "middle left",
        "x": [x - 0.02] * len(axis.ticks), "y": numbers(height for height, _ in axis.ticks),
        "text": [clean(text[:24]) for _, text in axis.ticks], "textfont": {"size": 11},
    }  # fmt: skip


def _describe_point(trial: Json, paths: list[Path]) -> str:
    values = "<br>".join(clean(f"{path}: {format_setting(trial[path])}"[:200]) for path in paths)
    return f"{describe_trial(trial)}<br>{values}"


def _draw_slice(frames: SweepFrames, answer: Answer, path: Path) -> LiveFigure:
    """Return the search scores over one parameter."""
    values = last_search_trials(frames)[path].dropna()
    names = [] if are_numeric(values) else [format_setting(value) for value in values]
    layout = base_layout(path, frames.metric.name, 380, names)
    if frames.tune[path].get("log"):
        layout["xaxis"]["type"] = "log"
    return LiveFigure(
        name=f"live-slice-{path}",
        title=path,
        caption=sentences.describe_nuisance(frames, answer, path),
        traces=list(_slice_traces(frames, path)),
        layout=layout,
        files=("trials.csv",),
    )


def _slice_traces(frames: SweepFrames, path: Path) -> Iterator[Json]:
    """Yield the dots of each cell's search trials, and crosses for those without a score."""
    trials = last_search_trials(frames).dropna(subset=path)
    numeric = are_numeric(trials[path])
    low, high = float(trials["score"].min()), float(trials["score"].max())
    bottom = low - 0.06 * (high - low)
    for cell, color in cell_colors(frames).items():
        for lost in (False, True):
            own = trials[(trials["cell"] == cell) & (trials["score"].isna() == lost)]
            if own.empty:
                continue
            records, values = list_rows(own), own[path]
            yield {
                "mode": "markers", "name": clean(cell[:60]), "legendgroup": clean(cell),
                "showlegend": not lost,
                "marker": {"color": color, "size": 7,
                           "symbol": "x-thin-open" if lost else "circle"},
                "text": [describe_trial(trial) for trial in records],
                "hovertemplate": "%{text}<extra></extra>",
                "customdata": [run_path(frames, trial) for trial in records],
                "x": numbers(values) if numeric else [clean(format_setting(v)) for v in values],
                "y": numbers([bottom] * len(own) if lost else own["score"]),
            }  # fmt: skip
