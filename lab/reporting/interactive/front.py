"""Interactive Pareto front: mean score of each setting over its cost."""

import math

from lab.config.costs.second_objective import COSTS
from lab.reporting import sentences
from lab.reporting.figures.cell_colors import cell_colors
from lab.reporting.interactive.spec import (
    INK,
    Choice,
    Json,
    LiveFigure,
    base_layout,
    clean,
    numbers,
)
from lab.reporting.pareto.front import Front, FrontPoint, Status, compute_front
from lab.reporting.pareto.sentences import describe_front
from lab.tracking.frames import SweepFrames

_SYMBOLS: dict[Status, str] = {
    "on the front": "circle",
    "not separable": "diamond-open",
    "dominated": "x",
}
_SCALE = Choice(
    title="scale of the cost",
    options=(
        ("linear", {"layout": {"xaxis.type": "linear"}}),
        ("log", {"layout": {"xaxis.type": "log"}}),
    ),
)


def draw_front(frames: SweepFrames) -> LiveFigure | None:
    """Return the figure of the front; None for a sweep without one."""
    front = compute_front(frames)
    if frames.cost is None or front is None:
        return None
    cost = COSTS[frames.cost]
    title = cost.title + (f" ({cost.unit})" if cost.unit else "")
    return LiveFigure(
        name="live-front",
        title="Score against cost",
        caption=describe_front(frames, front, frames.cost),
        traces=[_step_trace(front), *_point_traces(frames, front)],
        layout=base_layout(title, frames.metric.name, 460),
        choices=(_SCALE,),
        files=("front.csv",),
    )


def _step_trace(front: Front) -> Json:
    members = front.with_status("on the front")
    return {
        "mode": "lines", "name": "Pareto front", "hoverinfo": "skip",
        "line": {"color": INK, "width": 1, "shape": "hv"},
        "x": numbers(point.cost for point in members),
        "y": numbers(point.score.mean for point in members),
    }  # fmt: skip


def _point_traces(frames: SweepFrames, front: Front) -> list[Json]:
    """Return a trace for each status that a setting has."""
    colors = cell_colors(frames)
    traces = []
    for status, symbol in _SYMBOLS.items():
        points = front.with_status(status)
        if not points:
            continue
        halves = [point.score.high - point.score.mean for point in points]
        traces.append(
            {
                "mode": "markers", "name": status,
                "marker": {"symbol": symbol, "size": 10,
                           "color": [colors[point.cell] for point in points]},
                "error_y": {"type": "data", "thickness": 1, "color": INK,
                            "array": [0.0 if math.isnan(half) else half for half in halves]},
                "text": [_describe(frames, point) for point in points],
                "cells": [clean(point.cell) for point in points],
                "hovertemplate": "%{text}<extra></extra>",
                "x": numbers(point.cost for point in points),
                "y": numbers(point.score.mean for point in points),
            }
        )  # fmt: skip
    return traces


def _describe(frames: SweepFrames, point: FrontPoint) -> str:
    """Return the hover text of a setting."""
    assert frames.cost is not None  # noqa: S101 - `draw_front` has checked it
    cost = COSTS[frames.cost]
    lines = [
        point.label,
        f"score {sentences.format_interval(point.score)}, {point.status}",
        f"{cost.title} {sentences.format_quantity(point.cost, cost.unit)}",
    ]
    if point.difference is not None:
        gap = sentences.format_interval(point.difference, signed=True)
        lines.append(f"differs from {point.rival} by {gap}")
    return "<br>".join(clean(line[:200]) for line in lines)
