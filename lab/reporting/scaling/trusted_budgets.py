"""The cheapest budget to trust: how well the ranking at each budget foresees the largest one."""

from collections.abc import Mapping

import pandas as pd

from lab.reporting import sentences
from lab.reporting.compute.learning_curves import BUDGET, setting_labels
from lab.reporting.tables import UNITS, Table
from lab.scaling.forecasting.decisions import wilson_interval
from lab.scaling.forecasting.trusted_budget import (
    BudgetAccuracy,
    accuracy_by_budget,
    cheapest_trusted,
)
from lab.scaling.runs import Floats
from lab.tracking import tags
from lab.tracking.frames import SweepFrames

LEAST = 0.8  # share of right decisions that makes a budget trusted
LEVEL = 0.9
_FEWEST = 2  # settings, and budgets


def trust_table(frames: SweepFrames, runs: pd.DataFrame) -> Table | None:
    """Return the table of decision accuracy by budget; None for one budget or one setting.

    Args:
        frames: frames of the sweep.
        runs: trials by which the cells are compared (`stats.scored_trials`).
    """
    scores = collect_scores(frames, runs)
    settings = {name for by_setting in scores.values() for name in by_setting}
    if min(len(settings), len(scores)) < _FEWEST:
        return None
    rows, largest, unit = accuracy_by_budget(scores, LEVEL), max(scores), _find_unit(runs)
    return Table(
        caption=f"{_describe(rows, largest, len(settings), unit)} {_EXPLANATION}",
        head=("budget", "of the largest", "right pairs", "accuracy"),
        rows=[_row(row, largest, unit) for row in rows],
        file="trusted_budgets.csv",
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


def _find_unit(runs: pd.DataFrame) -> str:
    kinds = runs[tags.BUDGET_KIND].unique() if tags.BUDGET_KIND in runs else ["flops"]
    return UNITS.get(str(kinds[0]), "")


def _row(row: BudgetAccuracy, largest: float, unit: str) -> list[str]:
    accuracy = row.accuracy
    value = "no pair to decide"
    if accuracy.pairs:
        value = f"{accuracy.share:.0%} [{accuracy.low:.0%}, {accuracy.high:.0%}]"
    return [
        sentences.format_quantity(row.budget, unit),
        f"1/{largest / row.budget:.3g}",
        f"{accuracy.right} of {accuracy.pairs}",
        value,
    ]


def _describe(rows: tuple[BudgetAccuracy, ...], largest: float, settings: int, unit: str) -> str:
    """Return the conclusion: the cheapest budget to trust, or why there is none."""
    target = sentences.format_quantity(largest, unit)
    trusted = cheapest_trusted(rows, LEAST)
    if trusted is not None:
        return (
            f"The cheapest budget to trust is {sentences.format_quantity(trusted, unit)}: from "
            f"there on, the lower limit of the decision accuracy about {target} is at least "
            f"{LEAST:.0%}."
        )
    pairs = max(row.accuracy.pairs for row in rows)
    if not pairs:
        return (
            f"No budget can be trusted or distrusted: no two settings differ significantly at "
            f"{target}."
        )
    best = wilson_interval(1.0, min(pairs, settings - 1), LEVEL)[0]
    reason = (
        f"; with so few settings that differ, even a budget without an error has {best:.0%}"
        if best < LEAST
        else ""
    )
    return (
        f"No smaller budget can be trusted: the lower limit of the decision accuracy about "
        f"{target} is below {LEAST:.0%}{reason}."
    )
