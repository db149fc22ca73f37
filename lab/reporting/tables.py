"""A report's tables: settings, what they cost, other scores, the ledger."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lab.config.metrics import among
from lab.reporting import sentences, stats
from lab.reporting.stats import Answer, Cell
from lab.tracking.frames import SweepFrames

_UNITS = {"flops": "FLOP", "tokens": "tokens", "seconds": "s"}
_AMOUNTS = {
    "spent/flops": "FLOP",
    "spent/paper_flops": "paper's FLOP",
    "spent/six_n": "6N FLOP",
    "spent/tokens": "tokens",
}
_APART = {"spent/marginal_flops": "marginal FLOP", "spent/standalone_flops": "stand-alone FLOP"}


@dataclass(frozen=True, kw_only=True)
class Table:
    """Text in rows; `says` stands above it."""

    says: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def cell_table(frames: SweepFrames, result: Answer | None, runs: pd.DataFrame) -> Table:
    """Return the compared settings, best first."""
    compared = () if result is None else result.cells
    what = "repeats on fresh seeds" if result and result.confirmed else "the picked search runs"
    says = (
        f"{len(compared)} settings, best first; means over {what}. Differences to the best are "
        f"taken within repeats, with Tukey's simultaneous 95 % intervals; a tie is one that "
        f"holds 0."
    )
    head = ("setting", "mean ± sd (n)", "95 % interval", "minus best", "", "nuisances",
            "when picked", "trials")  # fmt: skip
    return Table(says=says, head=head, rows=[_cell_row(cell, frames, runs) for cell in compared])


def _cell_row(cell: Cell, frames: SweepFrames, runs: pd.DataFrame) -> list[str]:
    numbers = runs.loc[runs["cell"] == cell.label, "number"]
    flagged = f" (at the edge: {', '.join(e)})" if (e := stats.edge_values(frames, cell)) else ""
    return [
        cell.label,
        f"{sentences.score(cell.score.mean)} ± {sentences.score(cell.sd)} ({cell.score.n})",
        sentences.ends(cell.score),
        sentences.NONE
        if cell.difference is None
        else sentences.interval(cell.difference, signed=True),
        "best" if cell.difference is None else "tie" if cell.tied else "worse",
        (cell.tuned or sentences.NONE) + flagged,
        sentences.score(cell.picked),
        ", ".join(map(str, numbers)),
    ]


def score_table(frames: SweepFrames, result: Answer | None, runs: pd.DataFrame) -> Table:
    """Return every score by setting, and how closely it follows the one that ranks."""
    fidelity = stats.metric_correlations(frames).set_index("metric")
    metrics = among(map(str, runs))
    names = [n for n in metrics if runs[n].notna().any()]
    labels = [] if result is None else [cell.label for cell in result.cells]
    curves = frames.curves
    untrained = curves[(curves["step"] == 0) & curves["number"].isin(runs["number"])]
    by_cell = dict(list(runs.groupby("cell")))
    defined = fidelity["rank_correlation"].dropna()
    says = "No other score can be ranked against it."
    if len(defined):
        closest = str(defined.idxmax())
        says = (
            f"{closest} follows {frames.metric.name} most closely over all finished trials "
            f"(Spearman {float(defined[closest]):.2f}; 1 is the same order)."
        )
    rows = [
        [
            name,
            metrics[name].direction,
            sentences.spread(untrained[name] if name in untrained else pd.Series(dtype=float)),
            *(sentences.spread(by_cell[label][name]) for label in labels),
            "ranks" if name == frames.metric.name else sentences.rank(fidelity, name),
        ]
        for name in names
    ]
    head = ("score", "better", "untrained", *labels, "rank correlation (n)")
    return Table(says=says, head=head, rows=rows)


def trial_table(frames: SweepFrames) -> Table:
    """Return all trials, whatever became of them."""
    head = ("trial", "state", "reason", "role", "setting", "nuisances", "repeat",
            "seeds (init, order, mask)", "score", "budget", "achieved", "FLOP", "paper's FLOP",
            "6N FLOP", "tokens", "training s", "slot s", "device", "fingerprint")  # fmt: skip
    trials = frames.trials.to_dict("records")
    ended = frames.trials["state"].value_counts()
    says = f"All {len(trials)} trials, none left out: {ended.get('finished', 0)} finished."
    return Table(says=says, head=head, rows=[_ledger_row(trial) for trial in trials])


def _ledger_row(trial: dict[Any, Any]) -> list[str]:
    seeds = (sentences.plain(trial.get(f"seeds.{name}")) for name in ("init", "order", "mask"))
    achieved = trial["achieved"]
    return [
        *(
            str(trial[key])
            for key in ("number", "state", "reason", "role", "cell", "tuned", "repeat")
        ),
        ", ".join(seeds),
        sentences.score(trial["score"]),
        _target(trial),
        sentences.NONE if math.isnan(achieved) else f"{achieved:.1%}",
        *(sentences.quantity(trial.get(name, math.nan), "") for name in _AMOUNTS),
        sentences.seconds(trial.get("spent/seconds", math.nan)),
        sentences.seconds(trial.get("slot/seconds", math.nan)),
        (trial["device"] or sentences.NONE) + " (shared)" * bool(trial["shared"]),
        trial["fingerprint"],
    ]


def compute_table(result: Answer | None, runs: pd.DataFrame) -> Table:
    """Return what the compared runs of each setting cost, beside their target.

    Marginal and stand-alone FLOPs stand beside each other where they differ in any run.
    """
    amounts = dict(_AMOUNTS)
    marginal, standalone = (runs.get(name) for name in _APART)
    if marginal is not None and (standalone is None or not marginal.equals(standalone)):
        amounts |= _APART
    head = ("setting", "runs", "budget", "achieved", *amounts.values(), "steps", "training s")
    finished = runs["achieved"].dropna()
    says = "No run has finished."
    if len(finished):
        says = (
            f"Means over the compared runs. All of them spent between {finished.min():.2%} and "
            f"{finished.max():.2%} of their budget."
        )
    says += sentences.started(runs)
    compared = () if result is None else result.cells
    rows = [
        _compute_row(cell.label, runs[runs["cell"] == cell.label], tuple(amounts))
        for cell in compared
    ]
    return Table(says=says, head=head, rows=rows)


def _compute_row(label: str, runs: pd.DataFrame, amounts: Sequence[str]) -> list[str]:
    achieved = runs["achieved"]
    ends = dict.fromkeys(f"{end:.2%}" for end in (achieved.min(), achieved.max()))
    return [
        label,
        str(len(runs)),
        _target(runs.iloc[0].to_dict()),
        " to ".join(ends),
        *(
            sentences.quantity(float(runs[name].mean()) if name in runs else math.nan, "")
            for name in amounts
        ),
        f"{runs['spent/steps'].mean():,.0f}",
        "shared device"
        if runs["shared"].any()
        else sentences.seconds(runs["spent/seconds"].mean()),
    ]


def _target(trial: dict[Any, Any]) -> str:
    unit = _UNITS.get(str(trial.get("budget.kind")), "")
    return sentences.quantity(float(trial.get("budget.amount", math.nan)), unit)
