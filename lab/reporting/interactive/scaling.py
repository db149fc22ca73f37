"""Interactive IsoFLOP profiles of a fitted law."""

from collections.abc import Iterator

import numpy as np

from lab.reporting.interactive.spec import (
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
from lab.reporting.scaling import law_sentences
from lab.reporting.scaling.analysis import FittedGroup
from lab.reporting.scaling.estimates import format_estimate, format_flops
from lab.reporting.scaling.isoflop_curves import IsoflopCurve, isoflop_curves
from lab.reporting.scaling.parameter_counts import BLOCKS
from lab.reporting.scaling.section import ScalingSection
from lab.tracking.frames import SweepFrames

_SCALE = Choice(
    title="scale of N",
    options=(
        ("log", {"layout": {"xaxis.type": "log"}}),
        ("linear", {"layout": {"xaxis.type": "linear"}}),
    ),
)


def draw_laws(frames: SweepFrames, section: ScalingSection | None) -> dict[str, list[LiveFigure]]:
    """Return the figures of the laws by the key of their part: `law-1`, ..."""
    if section is None:
        return {}
    return {
        f"law-{number}": [_draw(frames, law.result, number)]
        if isinstance(law.result, FittedGroup)
        else []
        for number, law in enumerate(section.laws, 1)
    }


def _draw(frames: SweepFrames, fitted: FittedGroup, number: int) -> LiveFigure:
    layout = base_layout(f"N, {BLOCKS}", fitted.group.metric.name, 460)
    layout["xaxis"]["type"] = "log"
    traces = [trace for curve in isoflop_curves(fitted) for trace in _budget_traces(frames, curve)]
    return LiveFigure(
        name=f"live-isoflop-{number}",
        title="IsoFLOP profiles",
        caption=law_sentences.describe_profiles(fitted),
        traces=traces,
        layout=layout,
        choices=(_SCALE,),
        files=("end_points.csv", "isoflop.csv", "optima.csv"),
    )


def _budget_traces(frames: SweepFrames, curve: IsoflopCurve) -> Iterator[Json]:
    """Yield the runs, the law, the parabola and the optimum of one budget."""
    name = format_flops(curve.budget)
    shared = {"name": name, "legendgroup": name}
    trials = {trial["number"]: trial for trial in trial_records(frames)}
    yield {
        **shared, "mode": "markers", "marker": {"color": curve.color, "size": 7},
        "text": [describe_trial(trials[end.number]) for end in curve.ends],
        "hovertemplate": "%{text}<extra></extra>",
        "customdata": [run_path(frames, trials[end.number]) for end in curve.ends],
        "cells": [clean(trials[end.number]["cell"]) for end in curve.ends],
        "x": numbers(curve.run_sizes_n), "y": numbers(curve.losses_n),
    }  # fmt: skip
    for losses, dash, label in (
        (curve.law_S, "solid", "law"),
        (curve.parabola_S, "dash", "parabola"),
    ):
        if losses is not None:
            yield {
                **shared, "mode": "lines", "showlegend": False, "hoverinfo": "text",
                "line": {"color": curve.color, "width": 1.5, "dash": dash},
                "text": clean(f"{label} at {name}"),
                "x": numbers(curve.sizes_S), "y": numbers(losses),
            }  # fmt: skip
    size = curve.optimum.size
    optimum: Json = {
        **shared, "mode": "markers", "showlegend": False,
        "marker": {"color": curve.color, "symbol": "diamond", "size": 11},
        "text": clean(f"optimum at {name}: N {format_estimate(size)}"),
        "hovertemplate": "%{fullData.text}<extra></extra>",
        "x": numbers([size.value]), "y": numbers([curve.optimum.allocation.loss]),
    }  # fmt: skip
    if size.low > 0 and np.isfinite(size.high):
        optimum["error_x"] = {
            "type": "data", "symmetric": False, "color": curve.color,
            "array": numbers([size.high - size.value]),
            "arrayminus": numbers([size.value - size.low]),
        }  # fmt: skip
    yield optimum
