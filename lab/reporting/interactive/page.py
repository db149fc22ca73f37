"""Interactive part of a report's page: its figures, scripts and content security policy.

The page has Plotly's library and requests nothing: the policy allows only the scripts whose hashes
it has, and no connection. The library is compressed, to 2 of 4.8 MB; the page's own script
decompresses it and adds it as a script. A browser that cannot do so shows the static figures.
"""

import base64
import gzip
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path as File

import pandas as pd

from lab.reporting.figures.cell_colors import cell_colors
from lab.reporting.interactive.cells import draw_cells
from lab.reporting.interactive.curves import draw_losses, draw_scores
from lab.reporting.interactive.front import draw_front
from lab.reporting.interactive.scaling import draw_laws
from lab.reporting.interactive.spec import LiveFigure, clean
from lab.reporting.interactive.tuning import draw_tuning
from lab.reporting.scaling.section import ScalingSection
from lab.reporting.stats import Answer
from lab.tracking.frames import SweepFrames

MLFLOW = "http://127.0.0.1:5000"  # address of `mlflow server` by default
SCRIPTS = "<!-- scripts -->"  # place of the scripts in the template
_MOST_GROUPS = 30
_SCRIPT = File(__file__).parents[1] / "documents" / "templates" / "report.js"


def draw_figures(
    frames: SweepFrames, answer: Answer | None, runs: pd.DataFrame, scaling: ScalingSection | None
) -> dict[str, list[LiveFigure]]:
    """Return the interactive figures by section of the page.

    The sections are compute, cells, front, nuisances, losses, and law-1, ... for the laws of
    scaling.

    Args:
        frames: frames of the sweep.
        answer: comparison of the cells.
        runs: trials by which the cells are compared.
        scaling: section on scaling.
    """
    scores, losses, front = draw_scores(frames, runs), draw_losses(frames), draw_front(frames)
    return {
        "compute": [] if scores is None else [scores],
        "losses": [] if losses is None else [losses],
        "cells": [] if answer is None else [draw_cells(frames, answer, runs)],
        "front": [] if front is None else [front],
        "nuisances": [] if answer is None else draw_tuning(frames, answer),
        **draw_laws(frames, scaling),
    }


def list_groups(
    frames: SweepFrames, figures: Mapping[str, Sequence[LiveFigure]]
) -> list[tuple[str, str, str]]:
    """Return the cells that the reader can show and hide in all figures at once.

    There are none to choose from with one cell, and no list of more than `_MOST_GROUPS`.

    Args:
        frames: frames of a sweep, or of several that are grouped by sweep.
        figures: the interactive figures.

    Returns:
        Label, color, and name of the group of traces, of each cell that a figure shows.
    """
    traces = (trace for each in figures.values() for figure in each for trace in figure.traces)
    drawn = {trace.get("legendgroup") for trace in traces}
    groups = [
        (label, color, clean(label))
        for label, color in cell_colors(frames).items()
        if clean(label) in drawn
    ]
    return groups if 1 < len(groups) <= _MOST_GROUPS else []


@cache
def script_elements() -> str:
    """Return the elements of the page's own script and of Plotly's library, as gzip in Base64."""
    library, own = _scripts()
    packed = base64.b64encode(gzip.compress(library.encode(), mtime=0)).decode()
    return (
        f'<script type="application/gzip" id="library">{packed}</script>\n<script>{own}</script>\n'
    )


@cache
def security_policy() -> str:
    """Return the content security policy of the page.

    Plotly sets styles, and makes pictures for downloads from `data:` and `blob:` addresses.
    """
    hashes = " ".join(f"'sha256-{_digest(text)}'" for text in _scripts())
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


@cache
def _scripts() -> tuple[str, str]:
    library = files("plotly").joinpath("package_data", "plotly.min.js").read_text("utf-8")
    return library, _SCRIPT.read_text("utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
