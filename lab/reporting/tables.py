"""Tables of a report: settings, compute, scores, and all trials."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from lab.config.labels import label
from lab.reporting import sentences, stats, yardsticks
from lab.reporting.stats import Answer, Cell
from lab.tracking import tags
from lab.tracking.frames import SweepFrames

UNITS = {"flops": "FLOP", "tokens": "tokens", "seconds": "s"}
_AMOUNTS = {
    "spent/flops": "FLOP",
    "spent/paper_flops": "FLOP (paper's script)",
    "spent/six_n": "FLOP (6N)",
    "spent/tokens": "tokens",
}
_EQUAL = 1.02  # ratio of two amounts of compute that are called equal
_STARTING_WEIGHTS_AMOUNTS = {
    "spent/marginal_flops": "marginal FLOP",
    "spent/standalone_flops": "stand-alone FLOP",
}


@dataclass(frozen=True, kw_only=True)
class Table:
    """Table of texts.

    Attributes:
        caption: text above the table.
        head: titles of the columns.
        rows: texts of the cells, row by row.
        file: name of the CSV file with its numbers; empty if there is none.
        trials: numbers of the trials of each cell, row by row, which the HTML page links; empty if
            no cell has any.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    file: str = ""
    trials: Sequence[Sequence[Sequence[int]]] = ()


def cell_table(frames: SweepFrames, result: Answer | None, runs: pd.DataFrame) -> Table:
    """Return the table of compared settings, best first."""
    compared = () if result is None else result.cells
    confirmed = result is not None and result.confirmed
    if result is not None and result.settings:
        means = (
            f"Means over the seeds of the nuisance parameters with the best mean. Differences from "
            f"the best setting have simultaneous 95 % intervals (Games-Howell) for "
            f"all {result.settings} combinations of settings and nuisance parameters, so they "
            f"contain the error of this selection (the intervals of the means do not)"
        )
    else:
        selected = (
            "Means over repeats with seeds that the search did not use."
            if confirmed
            else "Scores of the best search trial of each setting."
        )
        means = (
            f"{selected} The search score is that of the search trial that chose the nuisance "
            f"parameters. Differences from the best setting have simultaneous 95 % intervals "
            f"(Games-Howell; with two settings, the paired t interval)"
            + ", which contain the error of the search"
            * bool(frames.tune)
        )
    if frames.cost is not None and frames.tune:
        means += (
            ". A setting has the nuisance parameters with the best score here, whatever they cost; "
            "the table of the Pareto front has all that were repeated"
        )
    diverged = "; a diverged repeat counts as the worst of all scores" * any(
        cell.diverged for cell in compared
    )
    caption = (
        f"{len(compared)} settings, best first. {means}{diverged}; 'tie' means that the interval "
        f"contains 0. 'untrained' is the score of the same trials before training."
    )
    head = ("setting", "mean ± sd (n)", "95 % interval", "untrained", "difference from best",
            "comparison", "nuisance parameters", "masked tokens of a full window", "search score",
            "trials")  # fmt: skip
    rows = [_cell_row(cell, frames, runs) for cell in compared]
    return Table(caption=caption, head=head, rows=rows, file="settings.csv")


def _cell_row(cell: Cell, frames: SweepFrames, runs: pd.DataFrame) -> list[str]:
    its_runs = runs[runs["cell"] == cell.label]
    edges = stats.edge_values(frames, cell)
    edge_note = f" (at the edge of the range: {', '.join(edges)})" if edges else ""
    return [
        cell.label,
        f"{sentences.format_score(cell.score.mean)} ± {sentences.format_score(cell.sd)} "
        f"({cell.score.n}{f', {cell.diverged} diverged' * bool(cell.diverged)})",
        sentences.format_ends(cell.score),
        sentences.format_score(yardsticks.untrained_score(runs, cell.label)),
        sentences.NONE
        if cell.difference is None
        else sentences.format_interval(cell.difference, signed=True),
        "best" if cell.difference is None else "tie" if cell.tied else "worse",
        (cell.tuned or sentences.NONE) + edge_note,
        "; ".join(text for text in its_runs[tags.MASKED].unique() if text) or sentences.NONE,
        sentences.format_score(cell.picked),
        ", ".join(map(str, its_runs["number"])),
    ]


def trial_table(frames: SweepFrames) -> Table:
    """Return the table of all trials, including those without a score."""
    return replace(list_trials(frames.trials), file="trials.csv")


def list_trials(trials: pd.DataFrame) -> Table:
    """Return the table of trials of `SweepFrames.trials`."""
    head = ("trial", "state", "reason", "role", "setting", "nuisance parameters", "repeat",
            "seeds (init, order, mask)", "score", "budget", "budget spent", *_AMOUNTS.values(),
            "training time (s)", "run time (s)", "device", "code", "commit",
            "fingerprint")  # fmt: skip
    records = trials.to_dict("records")
    finished = int((trials["state"] == "finished").sum())
    caption = f"All {len(records)} trials, including those without a score; {finished} finished."
    return Table(caption=caption, head=head, rows=[_trial_row(trial) for trial in records])


def _trial_row(trial: dict[Any, Any]) -> list[str]:
    seeds = (
        sentences.format_value(trial.get(f"seeds.{name}")) for name in ("init", "order", "mask")
    )
    achieved = trial["achieved"]
    return [
        *(
            str(trial[key])
            for key in ("number", "state", "reason", "role", "cell", "tuned", "repeat")
        ),
        ", ".join(seeds),
        sentences.format_score(trial["score"]),
        format_budget(trial),
        sentences.NONE if math.isnan(achieved) else f"{achieved:.1%}",
        *(sentences.format_quantity(trial.get(name, math.nan), "") for name in _AMOUNTS),
        sentences.format_seconds(trial.get("spent/seconds", math.nan)),
        sentences.format_seconds(trial.get(tags.SLOT_SECONDS, math.nan)),
        (trial["device"] or sentences.NONE) + " (shared)" * bool(trial["shared"]),
        *(trial[name] or sentences.NONE for name in (tags.CODE, tags.COMMIT)),
        trial["fingerprint"],
    ]


def budget_table(frames: SweepFrames, result: Answer | None, runs: pd.DataFrame) -> Table | None:
    """Return the table of mean scores by setting and budget; None without several budgets.

    Args:
        frames: frames of the sweep.
        result: comparison of the cells.
        runs: trials by which the cells are compared (`stats.scored_trials`).
    """
    amounts = sorted(float(str(amount)) for amount in frames.compare.get(tags.BUDGET_AMOUNT, ()))
    if result is None or len(amounts) < 2 or len(frames.compare) < 2:
        return None
    budgets = frames.trials.groupby("cell")[tags.BUDGET_AMOUNT].first()
    kind = frames.trials.iloc[0].get(tags.BUDGET_KIND)
    cells: dict[str, dict[float, tuple[str, list[int]]]] = {}
    order = list(frames.trials["cell"].unique())
    for cell in sorted(result.cells, key=lambda cell: order.index(cell.label)):
        amount = float(budgets[cell.label])
        budget = label({tags.BUDGET_AMOUNT: amount}, frames.compare)
        name = cell.label.replace(f", {budget}", "").replace(f"{budget}, ", "")
        spread = f"{sentences.format_score(cell.score.mean)} ± {sentences.format_score(cell.sd)}"
        numbers = runs.loc[runs["cell"] == cell.label, "number"].tolist()
        cells.setdefault(name, {})[amount] = f"{spread} ({cell.score.n})", numbers
    rows = {
        name: [row.get(a, (sentences.NONE, [])) for a in amounts] for name, row in cells.items()
    }
    return Table(
        caption="Mean ± standard deviation between seeds (number of trials) at each budget, and "
        "the trials.",
        head=(
            "setting",
            *(format_budget({"budget.kind": kind, "budget.amount": a}) for a in amounts),
        ),
        rows=[[name, *(text for text, _ in row)] for name, row in rows.items()],
        trials=[[(), *(numbers for _, numbers in row)] for row in rows.values()],
        file="settings.csv",
    )


def compute_table(result: Answer | None, runs: pd.DataFrame) -> Table:
    """Return the table of the mean compute of each setting's compared trials.

    It has columns of marginal and stand-alone FLOPs if the two differ in any trial.
    """
    amounts = dict(_AMOUNTS)
    marginal, standalone = (runs.get(name) for name in _STARTING_WEIGHTS_AMOUNTS)
    if marginal is not None and (standalone is None or not marginal.equals(standalone)):
        amounts |= _STARTING_WEIGHTS_AMOUNTS
    head = ("setting", "trials", "budget", "budget spent", *amounts.values(), "steps",
            "training time (s)")  # fmt: skip
    finished = runs["achieved"].dropna()
    caption = "No trial has finished."
    if len(finished):
        caption = (
            f"Means over the compared trials. Each of them spent between {finished.min():.2%} and "
            f"{finished.max():.2%} of its budget."
        )
    caption += _describe_other_counts(runs)
    caption += sentences.describe_initial_weights(runs) + sentences.describe_trunks(runs)
    compared = () if result is None else result.cells
    rows = [
        _compute_row(cell.label, runs[runs["cell"] == cell.label], tuple(amounts))
        for cell in compared
    ]
    return Table(caption=caption, head=head, rows=rows, file="compute.csv")


def _describe_other_counts(runs: pd.DataFrame) -> str:
    """Return a sentence on settings with equal FLOPs that differ by another count of compute."""
    names = {"spent/paper_flops": "the paper's script", "spent/six_n": "6 N D"}
    if "budget.kind" not in runs or set(runs["budget.kind"]) != {"flops"}:
        return ""
    parts = []
    for name, count in names.items():
        means = runs.groupby(["budget.amount", "cell"])[name].mean() if name in runs else None
        if means is None:
            continue
        low, high = means.groupby(level=0).agg(["min", "max"]).iloc[-1]
        if high > _EQUAL * low:
            ends = (sentences.format_quantity(float(end), "FLOP") for end in (low, high))
            parts.append(f"{' to '.join(ends)} by {count}")
    if not parts:
        return ""
    return f" By other counts, settings of one budget have different compute: {'; '.join(parts)}."


def _compute_row(label: str, runs: pd.DataFrame, amounts: Sequence[str]) -> list[str]:
    achieved = runs["achieved"]
    ends = dict.fromkeys(f"{end:.2%}" for end in (achieved.min(), achieved.max()))
    return [
        label,
        str(len(runs)),
        format_budget(runs.iloc[0].to_dict()),
        " to ".join(ends),
        *(
            sentences.format_quantity(float(runs[name].mean()) if name in runs else math.nan, "")
            for name in amounts
        ),
        f"{runs['spent/steps'].mean():,.0f}",
        "not comparable (shared device)"
        if runs["shared"].any()
        else sentences.format_seconds(runs["spent/seconds"].mean()),
    ]


def format_budget(trial: Mapping[Any, Any]) -> str:
    """Return the budget of a trial with its unit."""
    unit = UNITS.get(str(trial.get("budget.kind")), "")
    return sentences.format_quantity(float(trial.get("budget.amount", math.nan)), unit)
