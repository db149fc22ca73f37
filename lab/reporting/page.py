"""Write the report of a sweep: HTML, Markdown, figures and CSV files.

The report depends on the tracking store alone, not on the clock or the network: the same store
gives the same bytes.
"""

import shutil
from collections.abc import Container
from pathlib import Path as File
from typing import Any

import pandas as pd

from lab.config import flops
from lab.reporting import (
    code_notes,
    conclusion,
    confounding,
    score_table,
    search_facts,
    sentences,
    signal_to_noise,
    stats,
    tables,
    tuned_parameters,
    yardsticks,
)
from lab.reporting.documents import csv_files, rendering, result_files, table_frames
from lab.reporting.figures import captioned, heat_map, plots, svg
from lab.reporting.figures.figure import Figure
from lab.reporting.figures.scaling_figures import scaling_figures
from lab.reporting.forecasts.observed import NO_FORECASTS, StoreForecasts
from lab.reporting.forecasts.section import build_section
from lab.reporting.interactive import page as interactive
from lab.reporting.interactive import spec
from lab.reporting.pareto.front import compute_front
from lab.reporting.pareto.plot import plot_front
from lab.reporting.pareto.sentences import describe_front, front_frame, front_table
from lab.reporting.scaling import csv_tables
from lab.reporting.scaling.rate_drift import drift_table
from lab.reporting.scaling.section import list_tables, scaling_section
from lab.reporting.scaling.trusted_budgets import trust_table
from lab.reporting.stats import Answer
from lab.reporting.verification import report_file
from lab.storage import atomic
from lab.storage.checks import check_target
from lab.tracking import tags
from lab.tracking.frames import SweepFrames

_TEMPLATE = "report"
_CARD = (  # summary lines that begin the page
    "largest budget", "effect", "compute", "best mean score", "seed noise", "other scores",
    "power", "to separate ties", "cost", "trials", "reproduce",
)  # fmt: skip
_REPLACEMENT_RATE = "health/replacement_rate"
_SHOWN_ELSEWHERE = {  # tags that the section on provenance leaves out
    tags.QUESTION,
    tags.KIND,
    tags.METRIC,
    tags.COMPARE,
    tags.REFERENCE,
    tags.TUNE,
    tags.SEARCH,
    tags.CONSTRAINTS,
    tags.COST,
    tags.COMMAND,
    tags.OPENED,
    tags.ANSWER,
    tags.OVERLAPS,
    tags.STORAGE,
    *tags.PROCESS,  # of sweeps before the provenance was stored with each trial
}


# Files and folders of reports, those of earlier versions included.
PARTS = {"report.html", "report.md", "figures", report_file.NAME, *result_files.CONTENTS}


def write_report(
    frames: SweepFrames, folder: File, forecasts: StoreForecasts = NO_FORECASTS
) -> File:
    """Write the report to `folder`/<name>/ and return its report.html.

    An existing report is replaced. Files in its folder that no report has, such as notes, are kept.

    Args:
        frames: frames of the sweep.
        folder: folder of all reports.
        forecasts: forecasts of the store.

    Raises:
        StorageError: the target folder contains something other than a report.
    """
    target = folder / frames.name
    check_target(target)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic.replace_folder(target) as partial:
        _write_files(frames, partial, forecasts)
        keep_other_files(target, partial, PARTS)
    return target / rendering.PAGE


def render_report(frames: SweepFrames, forecasts: StoreForecasts = NO_FORECASTS) -> str:
    """Return the HTML page of the report, the content of `report.html`.

    Args:
        frames: frames of the sweep.
        forecasts: forecasts of the store.
    """
    return rendering.render_page(_TEMPLATE, _page_context(frames, forecasts))


def keep_other_files(earlier: File, new: File, parts: Container[str]) -> None:
    """Copy files and folders that are no part of a report from an earlier one to a new one.

    Args:
        earlier: folder of the earlier report, which need not exist.
        new: folder of the new report.
        parts: names of the files and folders of reports.
    """
    for path in earlier.iterdir() if earlier.is_dir() else ():
        if path.name in parts:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, new / path.name, symlinks=True)
        else:
            shutil.copy2(path, new / path.name, follow_symlinks=False)


def _write_files(frames: SweepFrames, folder: File, forecasts: StoreForecasts) -> None:
    page = _page_context(frames, forecasts)
    rendering.write_documents(folder, _TEMPLATE, page)
    for name, table in page["tables"].items():
        csv_files.write_csv(table, folder / name)
    report_file.write_tables(frames, folder, forecasts)


def _page_context(frames: SweepFrames, forecasts: StoreForecasts) -> dict[str, Any]:
    result, runs = stats.compute_answer(frames), stats.scored_trials(frames)
    facts = _list_facts(frames, result, runs)
    scaling, front = scaling_section(frames), _describe_front(frames)
    forecast_section = build_section(frames, forecasts)
    live = interactive.draw_figures(frames, result, runs, scaling)
    tables_shown = {
        "cells": tables.cell_table(frames, result, runs),
        "budgets": tables.budget_table(frames, result, runs),
        "compute": tables.compute_table(result, runs),
        "drift": drift_table(frames),
        "trust": trust_table(frames, runs),
        "signal": signal_to_noise.signal_table(frames, runs) if frames.answer == "noise" else None,
        "scores": score_table.score_table(frames, result, runs),
    }
    of_tables = [("", table) for table in tables_shown.values() if table is not None]
    importance = tuned_parameters.rank_searched(frames)
    frames_by_file = {
        **table_frames.list_frames([*of_tables, *list_tables(scaling)]),
        # These have all digits.
        **({} if result is None else {result_files.SETTINGS: result_files.settings_frame(result)}),
        **({} if front is None else {result_files.FRONT: front["frame"]}),
        **(
            {result_files.IMPORTANCE: result_files.importance_frame(importance)}
            if importance
            else {}
        ),
        **csv_tables.list_frames(scaling),
        **({} if forecast_section is None else forecast_section.files),
    }
    return {
        "name": frames.name,
        "frames": frames,
        "question": frames.sweep[tags.QUESTION],
        "space_file": tags.SPACE_FILE,
        "headline": conclusion.write_headline(frames, result, runs),
        "facts": facts,
        "card": sorted(facts, key=lambda fact: _CARD.index(fact[0]) if fact[0] in _CARD else 99),
        "flags": (*stats.flag_trials(frames, result), *search_facts.flag_constraints(frames)),
        "front": front,
        **tables_shown,
        "scaling": scaling,
        "figures": _figures(frames, result, runs)
        | scaling_figures(scaling)
        | {
            "front": [] if front is None else [front["figure"]],
            "forecasts": [] if forecast_section is None else [*forecast_section.figures],
        },
        "interactive": live,
        "groups": interactive.list_groups(frames, live),
        "importance": tuned_parameters.describe_importance(frames),
        "policy": interactive.security_policy(),
        "mlflow": interactive.MLFLOW,
        "runs": {str(t["number"]): spec.run_path(frames, t) for t in spec.trial_records(frames)},
        "forecasts": forecast_section,
        "tables": frames_by_file,
        "files": result_files.describe_files([*report_file.TABLES.values(), *frames_by_file]),
        "trials": tables.trial_table(frames),
        "provenance": _provenance(frames),
        "conventions": flops.__doc__,
    }


def _describe_front(frames: SweepFrames) -> dict[str, Any] | None:
    """Return table, figure and numbers of the Pareto front; None for a sweep without one."""
    front = compute_front(frames)
    if frames.cost is None or front is None:
        return None
    figure = Figure(
        name="front",
        title="Score against cost",
        caption=describe_front(frames, front, frames.cost),
        svg=svg.render_svg(plot_front(frames, front, frames.cost)),
        files=(result_files.FRONT,),
    )
    table = front_table(front, frames.cost)
    return {"table": table, "figure": figure, "frame": front_frame(front)}


def _list_facts(
    frames: SweepFrames, result: Answer | None, runs: pd.DataFrame
) -> list[tuple[str, str]]:
    trials = frames.trials
    states = trials["state"].value_counts()
    slots = _column(trials, tags.SLOT_SECONDS).sum() / 3_600
    facts = [] if result is None else conclusion.list_facts(frames, result, runs)
    return [
        *(("code", note) for note in code_notes.describe_codes(frames)),
        ("valid for", conclusion.describe_validity(frames)),
        ("ranked by", f"{frames.metric.title} ({frames.metric.name}, {frames.metric.direction})"),
        *confounding.describe_confounding(frames),
        *confounding.describe_bias(frames),
        *conclusion.describe_contamination(frames),
        *search_facts.list_search_facts(frames),
        *facts,
        (
            "cost",
            f"{sentences.describe_compute(frames)}; run time of all trials {slots:.3g} hours, "
            "set-up included",
        ),
        ("trials", ", ".join(f"{n} {state}" for state, n in sorted(states.items())) or "none"),
        ("state of the sweep", frames.sweep[tags.STATE]),
        ("reproduce", frames.sweep.get(tags.COMMAND, sentences.NONE)),
    ]


def _figures(
    frames: SweepFrames, result: Answer | None, runs: pd.DataFrame
) -> dict[str, list[Figure]]:
    groups = {"compute": captioned.draw_scores(frames, runs), "cells": [], "nuisances": []}
    if result is not None:
        groups["cells"] = _cell_figures(frames, result, runs)
        groups["nuisances"] = captioned.draw_tuning(frames, result)
    return groups | {"health": captioned.draw_health(frames)}


def _cell_figures(frames: SweepFrames, result: Answer, runs: pd.DataFrame) -> list[Figure]:
    """Return the figures of the cells' scores, and the replacement rates of a two-way grid."""
    scores = svg.render_svg(plots.plot_cells(frames, result, runs))
    figures = [
        Figure(
            name="cells",
            title="Settings compared",
            caption=f"{sentences.describe_cells(result)} "
            f"{yardsticks.describe_levels(frames, runs)}".strip(),
            svg=scores,
            files=("settings.csv", "trials.csv"),
        ),
        *captioned.draw_isolation(frames, result, runs),
    ]
    if heat_map.is_two_way_grid(frames) and _REPLACEMENT_RATE in runs:
        rates = svg.render_svg(heat_map.plot_heat_map(frames, _means(runs, _REPLACEMENT_RATE)))
        figures.append(
            Figure(
                name="replacement-rate", title="Replacement rate",
                caption=sentences.describe_replacement(frames, runs), svg=rates,
                files=("trials.csv",),
            )
        )  # fmt: skip
    return figures


def _means(runs: pd.DataFrame, name: str) -> dict[str, float]:
    return {str(label): float(mean) for label, mean in runs.groupby("cell")[name].mean().items()}


def _provenance(frames: SweepFrames) -> list[tuple[str, str]]:
    """Return the provenance of the trials, that of the sweep's last command, and its measures."""
    of_trials = code_notes.list_provenance(frames)
    entries = [
        (key.replace(tags.LAST_COMMAND, "last command: "), text)
        for key, text in frames.sweep.items()
        if key not in _SHOWN_ELSEWHERE
    ]
    measures = [
        (name.replace("_", " "), f"{value:.1%}" if name.endswith("share") else f"{value:,.4g}")
        for name, value in frames.measures.items()
    ]
    return [*of_trials, *entries, *measures]


def _column(trials: pd.DataFrame, name: str) -> "pd.Series[float]":
    return trials[name] if name in trials else pd.Series(dtype=float)
