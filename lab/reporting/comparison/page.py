"""Write the report of several sweeps together: HTML, Markdown, figures, and the sweeps' tables.

It has the form of the report of one sweep, and depends on the tracking store alone as well.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path as File
from typing import Any

from lab.reporting import score_table
from lab.reporting.comparison import summary
from lab.reporting.comparison.cell_rows import cell_table
from lab.reporting.comparison.comparability import find_obstacle
from lab.reporting.comparison.comparison_file import (
    NAME,
    SWEEPS,
    ComparisonFile,
    sweep_folder,
    write_comparison_file,
)
from lab.reporting.comparison.joint_answer import compare_sweeps
from lab.reporting.comparison.sweep_results import (
    SweepResult,
    group_by_sweep,
    join_frames,
    join_runs,
    join_trials,
    read_result,
)
from lab.reporting.documents import rendering
from lab.reporting.figures import captioned
from lab.reporting.interactive import curves
from lab.reporting.interactive import page as interactive
from lab.reporting.interactive.spec import run_path
from lab.reporting.page import keep_other_files
from lab.reporting.stats import Answer
from lab.reporting.tables import Table, list_trials
from lab.reporting.verification.report_file import write_tables
from lab.storage import atomic
from lab.storage.checks import StorageError, check_target
from lab.tracking.frames import SweepFrames

_TEMPLATE = "comparison"
_PARTS = {rendering.PAGE, rendering.TEXT, "figures", NAME, SWEEPS}
_NONE: dict[str, list[Any]] = {"compute": [], "losses": [], "health": []}


def write_comparison(
    sweeps: Sequence[SweepFrames], folder: File, *, across_code: bool = False
) -> File:
    """Write the report of sweeps to `folder`/<names joined by +>/ and return its report.html.

    An existing report of the same sweeps is replaced. Files in its folder that no report has, such
    as notes, are kept.

    Args:
        sweeps: frames of at least two sweeps with different names.
        folder: folder of all reports.
        across_code: whether trials of different code digests are compared.

    Raises:
        StorageError: the target folder contains something other than a report of several sweeps.
    """
    target = folder / "+".join(frames.name for frames in sweeps)
    check_target(target)
    if (target / rendering.PAGE).exists() and not (target / NAME).exists():
        raise StorageError(f"{target}: holds the report of one sweep; it was not changed")
    folder.mkdir(parents=True, exist_ok=True)
    with atomic.replace_folder(target) as partial:
        rendering.write_documents(partial, _TEMPLATE, _page_context(sweeps, across_code))
        for frames in sweeps:
            tables = sweep_folder(partial, frames.name)
            tables.mkdir(parents=True)
            write_tables(frames, tables)
        names = tuple(frames.name for frames in sweeps)
        write_comparison_file(ComparisonFile(sweeps=names, across_code=across_code), partial)
        keep_other_files(target, partial, _PARTS)
    return target / rendering.PAGE


def _page_context(frames: Sequence[SweepFrames], across_code: bool) -> dict[str, Any]:
    sweeps = [read_result(each) for each in frames]
    obstacle = find_obstacle(sweeps, across_code=across_code)
    answer = None if obstacle else compare_sweeps(sweeps)
    facts = summary.list_facts(sweeps, answer, across_code=across_code)
    names, trials = [sweep.name for sweep in sweeps], join_trials(sweeps)
    return {
        "name": " + ".join(names),
        "question": f"Which setting of the sweeps {', '.join(names[:-1])} and {names[-1]} is best?",
        "headline": summary.write_headline(sweeps, answer, obstacle),
        "facts": facts,
        "card": facts,
        "flags": summary.list_flags(sweeps, ranked=answer is not None),
        "cells": cell_table(sweeps, answer),
        "sections": summary.list_sections(sweeps),
        "trials": list_trials(trials),
        "runs": {
            trial["number"]: run_path(frames[0], trial) for trial in trials.to_dict("records")
        },
        "no_scores": "No score was recorded."
        if answer is not None
        else "The scores are in no common figure; the report of each sweep has its own figures.",
        "mlflow": interactive.MLFLOW,
        "policy": interactive.security_policy(),
        **_evidence(sweeps, answer),
    }


def _evidence(sweeps: Sequence[SweepResult], answer: Answer | None) -> dict[str, Any]:
    """Return the common figures and scores of sweeps; none if they are not comparable.

    They name no CSV files, because each sweep has its own.
    """
    if answer is None:
        empty = Table(caption="", head=(), rows=())
        return {"figures": _NONE, "interactive": _NONE, "groups": [], "scores": empty}
    joined = join_frames(sweeps)
    by_sweep, runs = group_by_sweep(joined), join_runs(sweeps)
    drawn = {
        "compute": curves.draw_scores(by_sweep, runs, "sweeps"),
        "losses": curves.draw_losses(by_sweep, "sweeps"),
    }
    live = {key: [] if each is None else [replace(each, files=())] for key, each in drawn.items()}
    static = {
        "compute": captioned.draw_scores(by_sweep, runs),
        "health": captioned.draw_health(by_sweep),
    }
    return {
        "figures": _NONE
        | {key: [replace(each, files=()) for each in own] for key, own in static.items()},
        "interactive": live,
        "groups": interactive.list_groups(by_sweep, live),
        "scores": replace(score_table.score_table(joined, answer, runs), file=""),
    }
