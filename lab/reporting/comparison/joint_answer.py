"""Compare the cells of several sweeps: one order, with intervals that hold for all of them at once.

Repeats of one sweep are paired by their number, as in its own report. Repeats of different sweeps
are not, because their seeds may differ; their cells are compared by the unpaired interval of Games
and Howell. Both count the settings of all sweeps. The errors of the search and of the finite test
set are those of the own reports.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from lab.reporting import stats
from lab.reporting.compared_scores import ComparedScores, all_scored, read_scores, score_table
from lab.reporting.comparison.sweep_results import SweepResult, join_frames, join_runs, name_cell
from lab.reporting.finite_test_set import add_test_error, read_errors
from lab.reporting.intervals import Interval, pooled_deviation
from lab.reporting.stats import Answer


def compare_sweeps(sweeps: Sequence[SweepResult]) -> Answer | None:
    """Return the comparison of the cells of all sweeps; None if no trial has finished.

    The labels of its cells are those of `sweep_results.name_cell`. It has neither a reference nor a
    compute multiplier, which needs paired repeats.

    Args:
        sweeps: sweeps whose scores are comparable.
    """
    scored = [sweep for sweep in sweeps if sweep.answer is not None]
    if not scored:
        return None
    scores, runs = _join_scores(scored), join_runs(scored)
    errors = read_errors(join_frames(scored), runs)
    means = scores.means().sort_values(ascending=not scores.maximize, kind="stable")
    best = str(means.index[0])

    def difference(label: str) -> Interval:
        error = errors.of_difference(label, best)
        return add_test_error(scores.difference(label, best), error, scores.settings)

    own = {
        name_cell(sweep.name, cell.label): cell
        for sweep in scored
        if sweep.answer is not None
        for cell in sweep.answer.cells
    }
    gaps = {label: None if label == best else difference(label) for label in map(str, means.index)}
    metric = scored[0].frames.metric
    cells = tuple(
        replace(
            own[label],
            label=label,
            difference=gap,
            tied=gap is None or not stats.is_worse(gap, metric),
        )
        for label, gap in gaps.items()
    )
    return Answer(
        cells=cells,
        reference=None,
        effect=None,
        multiplier=None,
        noise_sd=pooled_deviation(score_table(runs)),
        confirmed=all(sweep.answer is not None and sweep.answer.confirmed for sweep in scored),
        test_error=stats.worst_error(errors, best, own),
        settings=None,
        missing=tuple(_list_missing(sweeps, own)),
    )


def _join_scores(sweeps: Sequence[SweepResult]) -> ComparedScores:
    """Return the scores of all sweeps; a diverged repeat has the worst of all of them."""
    scored = pd.concat(
        [all_scored(sweep.frames, sweep.runs)[["score", "untrained"]] for sweep in sweeps]
    )
    parts = {sweep.name: read_scores(sweep.frames, sweep.runs, scored) for sweep in sweeps}
    tables = [part.table.rename(columns=_names(name, part)) for name, part in parts.items()]
    selected: dict[str, str] = {}
    candidates: dict[str, list[str]] = {}
    runners_up: dict[str, float] = {}
    columns: dict[str, str] = {}
    for name, part in parts.items():
        names = _names(name, part)
        columns |= dict.fromkeys(names.values(), name)
        selected |= {name_cell(name, c): names[each] for c, each in part.selected.items()}
        candidates |= {
            name_cell(name, cell): [names[each] for each in its]
            for cell, its in part.candidates.items()
        }
        runners_up |= {names[c]: score for c, score in part.runners_up.items() if c in names}
    return ComparedScores(
        table=pd.concat(tables, keys=parts),
        selected=selected,
        candidates=candidates,
        runners_up=runners_up,
        sweeps=columns,
        settings=sum(part.settings for part in parts.values()),
        maximize=next(iter(parts.values())).maximize,
    )


def _names(sweep: str, scores: ComparedScores) -> Mapping[str, str]:
    """Return the name of each column of a sweep in the common table."""
    return {column: name_cell(sweep, column) for column in scores.sweeps}


def _list_missing(sweeps: Sequence[SweepResult], known: Mapping[str, object]) -> list[str]:
    """Return the cells without a finished trial."""
    labels = (
        name_cell(sweep.name, str(cell))
        for sweep in sweeps
        for cell in sweep.frames.trials["cell"].unique()
    )
    return [label for label in labels if label not in known]
