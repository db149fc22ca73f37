"""Interactive figures of tuned parameters: parallel coordinates, importance and slices."""

import json
import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from lab.config.trial import Path
from lab.reporting import sentences
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
from lab.reporting.stats import Answer
from lab.tracking.frames import SweepFrames

FEWEST = 20  # scored search trials from which importance is computed; Watanabe et al. use 100
_MOST_TICKS = 8  # choices of a vertical axis that are named


def searched_trials(frames: SweepFrames) -> pd.DataFrame:
    """Return the search trials that have a score."""
    trials = frames.trials
    return trials[(trials["role"] == "search") & trials["score"].notna()]


def draw_tuning(frames: SweepFrames, answer: Answer) -> list[LiveFigure]:
    """Return the figures of tuned parameters; none where no search trial has a score."""
    trials = searched_trials(frames)
    paths = [path for path in frames.tune if path in trials]
    if trials.empty or not paths:
        return []
    figures = [_draw_slice(frames, answer, path) for path in paths]
    figures.insert(0, _draw_parallel(frames, trials, paths))
    importance = rank_searched(frames)
    if importance:
        figures.insert(1, _draw_importance(importance, len(trials)))
    return figures


def describe_importance(frames: SweepFrames) -> str:
    """Return why the report has no figure of importance; empty if it has one."""
    count, tuned = len(searched_trials(frames)), len(frames.tune)
    if not tuned or not count:
        return ""
    if tuned == 1:
        return "Importance compares tuned parameters; this sweep tunes one."
    if count < FEWEST:
        return (
            f"Importance (PED-ANOVA) needs {FEWEST} search trials with a score; the sweep has "
            f"{count}."
        )
    return ""


def rank_searched(frames: SweepFrames) -> dict[Path, float]:
    """Return the importance of the tuned parameters; empty where it cannot be computed.

    Scores count relative to the mean of their cell, so that cells do not appear as parameters.
    """
    trials = searched_trials(frames)
    paths = [path for path in frames.tune if path in trials]
    if len(paths) < 2 or len(trials) < FEWEST:
        return {}
    from lab.search.importance import rank_parameters  # here, since the import of Optuna takes 1 s

    complete = trials.dropna(subset=paths)
    relative = complete["score"] - complete.groupby("cell")["score"].transform("mean")
    return rank_parameters(
        {path: frames.tune[path] for path in paths},
        _rows(complete[paths]),
        relative.tolist(),
        maximize=frames.metric.direction == "maximize",
    )


def _draw_importance(importance: dict[Path, float], count: int) -> LiveFigure:
    first = next(iter(importance))
    paths = list(reversed(importance))
    trace: Json = {
        "type": "bar", "orientation": "h", "marker": {"color": "var(--mark)"},
        "x": numbers(importance[path] for path in paths), "y": [clean(path) for path in paths],
        "hovertemplate": "%{y}: %{x:.1%}<extra></extra>", "showlegend": False,
    }  # fmt: skip
    layout = base_layout("share of the importance", "", 120 + 40 * len(paths))
    layout["xaxis"]["range"] = [0, 1]
    listed = ", ".join(f"{path} {value:.0%}" for path, value in importance.items())
    return LiveFigure(
        name="live-importance",
        title="Importance",
        caption=f"{first} decides most about being among the best quarter of the {count} scored "
        f"search trials, by PED-ANOVA: {listed}. Scores count relative to the mean of their "
        f"setting.",
        traces=[trace],
        layout=layout,
    )


def _draw_parallel(frames: SweepFrames, trials: pd.DataFrame, paths: list[Path]) -> LiveFigure:
    """Return a line for each search trial over one vertical axis for each parameter."""
    colors, name = cell_colors(frames), frames.metric.name
    axes = {
        path: _scale(trials[path], bool(frames.tune[path].get("log"))) for path in paths
    } | {name: _scale(trials["score"], log=False)}  # fmt: skip
    columns = [*paths, name]
    traces: list[Json] = []
    shown: set[str] = set()
    for index, trial in enumerate(_rows(trials)):
        cell = trial["cell"]
        traces.append(
            {
                "mode": "lines+markers", "name": clean(cell[:60]), "legendgroup": clean(cell),
                "showlegend": cell not in shown, "opacity": 0.7,
                "line": {"color": colors[cell], "width": 1.3},
                "marker": {"color": colors[cell], "size": 6},
                "text": _describe_point(trial, paths),
                "hovertemplate": "%{text}<extra></extra>",
                "meta": {"trial": trial["number"], "run": run_path(frames, trial)},
                "x": list(range(len(columns))),
                "y": numbers(axes[column][0][index] for column in columns),
            }
        )  # fmt: skip
        shown.add(cell)
    traces += [_tick_trace(x, axes[column][1]) for x, column in enumerate(columns)]
    layout = base_layout("", "", 460)
    layout["xaxis"] |= {
        "tickvals": list(range(len(columns))), "showgrid": True,
        "ticktext": [clean(each.rpartition(".")[2][:24]) for each in columns],
        "range": [-0.45, len(columns) - 0.75], "gridcolor": "var(--soft)",
    }  # fmt: skip
    layout["yaxis"] |= {"showticklabels": False, "showgrid": False, "range": [-0.05, 1.05]}
    scores = trials["score"].to_numpy(dtype=float)
    best = trials.iloc[
        int(scores.argmax() if frames.metric.direction == "maximize" else scores.argmin())
    ]
    return LiveFigure(
        name="live-parallel",
        title="Tuned parameters of the search trials",
        caption=f"A line is one of {len(trials)} search trials with a score. The best score, "
        f"{sentences.format_score(best['score'])}, has {best['tuned']} ({best['cell']}).",
        traces=traces,
        layout=layout,
    )


def _scale(values: "pd.Series[float]", log: bool) -> tuple[list[float], list[tuple[float, str]]]:
    """Return each value's height in [0, 1] and the ticks of the axis, heights with texts."""
    if not are_numeric(values):
        texts = [_text(value) for value in values]
        known = sorted(set(texts))
        heights = {text: i / max(1, len(known) - 1) for i, text in enumerate(known)}
        return [heights[text] for text in texts], [
            (heights[text], text) for text in known[:_MOST_TICKS]
        ]
    log = log and float(values.min()) > 0
    scaled = [math.log(value) if log else float(value) for value in values]
    low, high = min(scaled), max(scaled)
    span = high - low or 1.0
    ends = dict.fromkeys((float(values.min()), float(values.max())))
    ticks = [(((math.log(end) if log else end) - low) / span, f"{end:.4g}") for end in ends]
    return [(value - low) / span for value in scaled], ticks


def _tick_trace(x: int, ticks: list[tuple[float, str]]) -> Json:
    return {
        "mode": "text", "hoverinfo": "skip", "showlegend": False, "textposition": "middle left",
        "x": [x - 0.02] * len(ticks), "y": numbers(height for height, _ in ticks),
        "text": [clean(text[:24]) for _, text in ticks], "textfont": {"size": 11},
    }  # fmt: skip


def _rows(trials: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in trials.to_dict("records")]


def _describe_point(trial: Json, paths: list[Path]) -> str:
    values = "<br>".join(clean(f"{path}: {_text(trial[path])}"[:200]) for path in paths)
    return f"{describe_trial(trial)}<br>{values}"


def _draw_slice(frames: SweepFrames, answer: Answer, path: Path) -> LiveFigure:
    """Return the search scores over one parameter."""
    layout = base_layout(path, frames.metric.name, 380)
    if frames.tune[path].get("log"):
        layout["xaxis"]["type"] = "log"
    return LiveFigure(
        name=f"live-slice-{path}",
        title=path,
        caption=sentences.describe_nuisance(frames, answer, path),
        traces=list(_slice_traces(frames, path)),
        layout=layout,
    )


def _slice_traces(frames: SweepFrames, path: Path) -> Iterator[Json]:
    """Yield the dots of each cell's search trials, and crosses for those without a score."""
    trials = frames.trials[(frames.trials["role"] == "search") & frames.trials[path].notna()]
    numeric = are_numeric(trials[path])
    low, high = float(trials["score"].min()), float(trials["score"].max())
    bottom = low - 0.06 * (high - low)
    for cell, color in cell_colors(frames).items():
        for lost in (False, True):
            own = trials[(trials["cell"] == cell) & (trials["score"].isna() == lost)]
            if own.empty:
                continue
            records = _rows(own)
            yield {
                "mode": "markers", "name": clean(cell[:60]), "legendgroup": clean(cell),
                "showlegend": not lost,
                "marker": {"color": color, "opacity": 0.75, "size": 8,
                           "symbol": "x-thin-open" if lost else "circle"},
                "text": [describe_trial(trial) for trial in records],
                "hovertemplate": "%{text}<extra></extra>",
                "customdata": [run_path(frames, trial) for trial in records],
                "x": numbers(own[path]) if numeric else [clean(_text(v)) for v in own[path]],
                "y": numbers([bottom] * len(own) if lost else own["score"]),
            }  # fmt: skip


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)
