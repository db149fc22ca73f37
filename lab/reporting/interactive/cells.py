"""Interactive dot plot of the cells: scores of the trials, means and their intervals."""

import math

import numpy as np
import pandas as pd

from lab.reporting import sentences, yardsticks
from lab.reporting.figures.cell_colors import cell_colors
from lab.reporting.interactive.curves import list_levels
from lab.reporting.interactive.spec import (
    Json,
    LiveFigure,
    base_layout,
    clean,
    describe_trial,
    numbers,
    run_path,
)
from lab.reporting.stats import Answer, Cell
from lab.tracking.frames import SweepFrames


def draw_cells(frames: SweepFrames, answer: Answer, runs: pd.DataFrame) -> LiveFigure:
    """Return the figure of the compared settings, in the order of the search space.

    Args:
        frames: frames of the sweep.
        answer: comparison of the cells.
        runs: trials by which the cells are compared (`stats.scored_trials`).
    """
    colors, cells = cell_colors(frames), {cell.label: cell for cell in answer.cells}
    labels = [label for label in colors if label in cells]
    traces: list[Json] = []
    for position, label in enumerate(labels):
        own = runs[runs["cell"] == label]
        traces += _cell_traces(frames, cells[label], own, position, colors[label])
    low, high = _score_range(runs, answer)
    for label, score, color, dash in list_levels(frames):
        near = low - (high - low) < score < high + (high - low)
        traces.append(
            {
                "mode": "lines", "name": clean(f"{label} ({score:.4f})"),
                "line": {"color": color, "dash": dash, "width": 1}, "hoverinfo": "skip",
                "visible": True if near else "legendonly",
                "x": [-0.5, len(labels) - 0.5], "y": [score, score],
            }
        )  # fmt: skip
    names = [each[:40] for each in labels]
    layout = base_layout("", frames.metric.name, 420, names)
    layout["xaxis"] |= {
        "tickvals": list(range(len(labels))), "ticktext": [clean(name) for name in names],
        "range": [-0.5, len(labels) - 0.5], "showgrid": False,
    }  # fmt: skip
    caption = (
        f"{sentences.describe_cells(answer)} {yardsticks.describe_levels(frames, runs)} "
        "A dot is a trial; a diamond is a mean with its 95 % interval. Levels far from the scores "
        "are hidden at first; the legend shows them."
    )
    return LiveFigure(
        name="live-cells",
        title="Scores of the settings",
        caption=caption,
        traces=traces,
        layout=layout,
        files=("settings.csv", "trials.csv"),
    )


def _cell_traces(
    frames: SweepFrames, cell: Cell, own: pd.DataFrame, position: int, color: str
) -> list[Json]:
    """Return the traces of one cell's trials and of its mean."""
    trials = own.to_dict("records")
    offsets = np.linspace(-0.12, 0.12, len(own)) if len(own) > 1 else np.zeros(1)
    name = clean(cell.label[:60])
    half = cell.score.high - cell.score.mean
    mean: Json = {
        "mode": "markers", "name": name, "legendgroup": clean(cell.label), "showlegend": False,
        "marker": {"color": color, "symbol": "diamond", "size": 11},
        "text": clean(f"{cell.label}: {sentences.format_interval(cell.score)} ({cell.score.n})"),
        "hovertemplate": "%{fullData.text}<extra></extra>",
        "x": [position + 0.25], "y": numbers([cell.score.mean]),
    }  # fmt: skip
    if not math.isnan(half):
        mean["error_y"] = {"type": "data", "array": numbers([half]), "color": color}
    dots: Json = {
        "mode": "markers", "name": name, "legendgroup": clean(cell.label),
        "marker": {"color": color, "size": 7},
        "text": [describe_trial(trial) for trial in trials],
        "hovertemplate": "%{text}<extra></extra>",
        "customdata": [run_path(frames, trial) for trial in trials],
        "x": [float(position + offset) for offset in offsets], "y": numbers(own["score"]),
    }  # fmt: skip
    return [dots, mean]


def _score_range(runs: pd.DataFrame, answer: Answer) -> tuple[float, float]:
    ends = [end for cell in answer.cells for end in (cell.score.low, cell.score.high)]
    values = [value for value in (*runs["score"], *ends) if math.isfinite(value)]
    return (min(values), max(values)) if values else (0.0, 1.0)
