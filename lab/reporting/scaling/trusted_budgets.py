"""The cheapest budget to trust: how well the ranking at each budget foresees the largest one."""

from collections.abc import Mapping

import pandas as pd

from lab.errors import UserError
from lab.reporting.compute.learning_curves import BUDGET, setting_labels
from lab.reporting.scaling.estimates import format_flops
from lab.reporting.tables import Table
from lab.scaling.forecasting.decisions import wilson_interval
from lab.scaling.forecasting.trusted_budget import (
    BudgetAccuracy,
    accuracy_by_budget,
    cheapest_trusted,
)
from lab.scaling.runs import Floats
from lab.tracking.frames import SweepFrames

LEAST = 0.8  # share of right decisions that makes a budget trusted
LEVEL = 0.9
_FEWEST_SETTINGS = 2


def trust_table(frames: SweepFrames, runs: pd.DataFrame) -> Table | None:
    """Return the table of decision accuracy by budget; None for one budget or one setting.

    Args:
        frames: frames of the sweep.
        runs: trials by which the cells are compared (`stats.scored_trials`).
    """
    scores = collect_scores(frames, runs)
    settings = {name for by_setting in scores.values() for name in by_setting}
    if len(settings) < _FEWEST_SETTINGS:
        return None
    try:
        rows = accuracy_by_budget(scores, LEVEL)
    except UserError:  # one budget
        return None
    largest = max(scores)
    return Table(
        caption=f"{_describe(rows, largest, len(settings))} {_EXPLANATION}",
        head=("budget", "of the largest", "right pairs", "accuracy"),
        rows=[_row(row, largest) for row in rows],
    )


_EXPLANATION = (
    "Decision accuracy: of the pairs of settings that differ significantly at the largest budget, "
    f"the share that the means at a smaller budget order in the same way, with its {LEVEL:.0%} "
    "interval. The interval counts at most one comparison less than there are settings."
)


def collect_scores(frames: SweepFrames, runs: pd.DataFrame) -> Mapping[float, Mapping[str, Floats]]:
    """Return the scores of the seeds by budget and setting, with the sign of a loss."""
    if BUDGET not in frames.compare or runs.empty:
        return {}
    sign = 1.0 if frames.metric.direction == "minimize" else -1.0
    labels = setting_labels(frames, runs)
    return {
        float(str(budget)): {
            str(label): sign * group["score"].to_numpy(dtype=float)
            for label, group in of_budget.groupby(labels, sort=False)
        }
        for budget, of_budget in runs.groupby(BUDGET)
    }


def _row(row: BudgetAccuracy, largest: float) -> list[str]:
    accuracy = row.accuracy
    value = "no pair to decide"
    if accuracy.pairs:
        value = f"{accuracy.share:.0%} [{accuracy.low:.0%}, {accuracy.high:.0%}]"
    return [
        format_flops(row.budget),
        f"1/{largest / row.budget:.3g}",
        f"{accuracy.right} of {accuracy.pairs}",
        value,
    ]


def _describe(rows: tuple[BudgetAccuracy, ...], largest: float, settings: int) -> str:
    """Return the conclusion: the cheapest budget to trust, or why there is none."""
    trusted = cheapest_trusted(rows, LEAST)
    if trusted is not None:
        return (
            f"The cheapest budget to trust is {format_flops(trusted)}: from there on, the "
            f"lower limit of the decision accuracy is at least {LEAST:.0%} of the decisions at "
            f"{format_flops(largest)}."
        )
    pairs = max(row.accuracy.pairs for row in rows)
    if not pairs:
        return (
            f"No budget can be trusted or distrusted: no two settings differ significantly at "
            f"{format_flops(largest)}."
        )
    best = wilson_interval(1.0, min(pairs, settings - 1), LEVEL)[0]
    reason = (
        f"; with so few settings that differ, even a budget without an error has {best:.0%}"
        if best < LEAST
        else ""
    )
    return (
        f"No smaller budget can be trusted: the lower limit of the decision accuracy about "
        f"{format_flops(largest)} is below {LEAST:.0%}{reason}."
    )
