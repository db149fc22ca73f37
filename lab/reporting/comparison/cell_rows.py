"""Table of a comparison: a row for each cell of each sweep."""

import math
from collections.abc import Sequence

import pandas as pd

from lab.reporting import sentences, yardsticks
from lab.reporting.comparison.sweep_results import SweepResult, name_cell
from lab.reporting.compute.multiplier import compute_multiplier
from lab.reporting.finite_test_set import read_errors
from lab.reporting.stats import Answer, Cell
from lab.reporting.tables import Table, format_budget
from lab.tracking import tags

_HEAD = (
    "sweep", "setting", "metric", "mean", "95 % interval", "n", "difference from best",
    "comparison", "training FLOP", "FLOPs for the reference's score", "budget",
    "nuisance parameters", "untrained", "trials",
)  # fmt: skip


def cell_table(sweeps: Sequence[SweepResult], answer: Answer | None) -> Table:
    """Return the table of all cells, best first; in the order of the sweeps without a comparison.

    Args:
        sweeps: the sweeps.
        answer: comparison of the cells; None if their scores are not comparable.
    """
    compared = {} if answer is None else {cell.label: cell for cell in answer.cells}
    rows = {
        name_cell(sweep.name, str(label)): _row(sweep, str(label), compared)
        for sweep in sweeps
        for label in _order_cells(sweep)
    }
    order = [*compared, *(label for label in rows if label not in compared)]
    return Table(
        caption=_describe(sweeps, answer, len(rows)),
        head=_HEAD,
        rows=[rows[label] for label in order],
    )


def _order_cells(sweep: SweepResult) -> list[str]:
    """Return the cells of a sweep, best first; those without a score last."""
    scored = [] if sweep.answer is None else [cell.label for cell in sweep.answer.cells]
    return list(dict.fromkeys([*scored, *map(str, sweep.frames.trials["cell"])]))


def _describe(sweeps: Sequence[SweepResult], answer: Answer | None, count: int) -> str:
    text = f"{count} settings of {len(sweeps)} sweeps"
    if answer is None:
        text += ", not ranked, in the order of the sweeps."
    else:
        text += (
            ", best first. Differences from the best setting have simultaneous 95 % intervals "
            "(Games-Howell) for the settings of all sweeps at once. Repeats are paired within a "
            "sweep; between sweeps they are not, since their seeds may differ."
        )
        if any(sweep.frames.tune for sweep in sweeps):
            text += " The intervals of differences contain the error of the search."
        if any(cell.diverged for cell in answer.cells):
            text += " A diverged repeat counts as the worst of all scores."
        text += " 'tie' means that the interval contains 0."
    return (
        f"{text} Means and n are those of the sweep's own report. FLOPs for the reference's score "
        "are those that a setting needs for the score of the reference of its own sweep, divided "
        "by the reference's, with a 95 % interval for one setting at a time; '≤' is an upper limit."
    )


def _row(sweep: SweepResult, label: str, compared: dict[str, Cell]) -> list[str]:
    trials = sweep.frames.trials
    own_trials = trials[(trials["cell"] == label) & (trials["role"] != tags.SUPERSEDED)]
    states = own_trials["state"].value_counts()
    status = ", ".join(f"{n} {state}" for state, n in sorted(states.items())) or "none"
    cells = () if sweep.answer is None else sweep.answer.cells
    cell = next((cell for cell in cells if cell.label == label), None)
    if cell is None:
        row = [sweep.name, label, sweep.frames.metric.name]
        return [*row, *[sentences.NONE] * (len(_HEAD) - 4), status]
    runs = sweep.runs[sweep.runs["cell"] == label]
    return [
        sweep.name,
        label,
        sweep.frames.metric.name,
        sentences.format_score(cell.score.mean),
        sentences.format_ends(cell.score),
        f"{cell.score.n}{f' ({cell.diverged} diverged)' * bool(cell.diverged)}",
        *_comparison(compared.get(name_cell(sweep.name, label))),
        sentences.format_quantity(_mean(runs, "spent/flops"), ""),
        _multiplier(sweep, label),
        format_budget(runs.iloc[0].to_dict()),
        cell.tuned or sentences.NONE,
        sentences.format_score(yardsticks.untrained_score(runs, label)),
        status,
    ]


def _comparison(cell: Cell | None) -> tuple[str, str]:
    """Return the difference from the best cell of all sweeps, and its meaning."""
    if cell is None:
        return sentences.NONE, "not ranked"
    if cell.difference is None:
        return sentences.NONE, "best"
    meaning = "tie" if cell.tied else "worse"
    return sentences.format_interval(cell.difference, signed=True), meaning


def _multiplier(sweep: SweepResult, label: str) -> str:
    frames, runs = sweep.frames, sweep.runs
    if label == frames.reference:
        return "1 (reference)"
    error = read_errors(frames, runs).of_difference(label, frames.reference)
    multiplier = compute_multiplier(frames, runs, label, error)
    return sentences.NONE if multiplier is None else sentences.format_multiplier(multiplier.value)


def _mean(runs: pd.DataFrame, name: str) -> float:
    return float(runs[name].mean()) if name in runs else math.nan
