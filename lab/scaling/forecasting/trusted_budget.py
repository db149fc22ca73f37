"""The cheapest budget that may be trusted: decision accuracy by budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lab.errors import UserError
from lab.scaling.forecasting.decisions import DecisionAccuracy, decision_accuracy
from lab.scaling.runs import Floats


@dataclass(frozen=True, kw_only=True)
class BudgetAccuracy:
    """Accuracy of the ranking at one budget about the pairs of the target.

    Attributes:
        budget: FLOPs.
        accuracy: decision accuracy with its interval.
    """

    budget: float
    accuracy: DecisionAccuracy


def accuracy_by_budget(
    scores: Mapping[float, Mapping[str, Floats]], level: float = 0.9
) -> tuple[BudgetAccuracy, ...]:
    """Return how well the ranking at each budget foresees that at the largest one.

    Args:
        scores: losses of the seeds by budget and setting.
        level: nominal coverage of the intervals.

    Raises:
        UserError: there are fewer than two budgets.
    """
    budgets = sorted(scores)
    if len(budgets) < 2:
        raise UserError(f"decision accuracy: needs two budgets or more, got {len(budgets)}")
    target = scores[budgets[-1]]
    return tuple(
        BudgetAccuracy(
            budget=budget,
            accuracy=decision_accuracy(
                {name: float(np.mean(losses)) for name, losses in scores[budget].items()},
                target,
                level,
            ),
        )
        for budget in budgets[:-1]
    )


def cheapest_trusted(rows: Sequence[BudgetAccuracy], least: float) -> float | None:
    """Return the smallest budget from which on the accuracy is at least `least`.

    The lower end of the interval counts, of the budget and of all larger ones. None if there is no
    such budget.

    Args:
        rows: accuracies by increasing budget.
        least: required share of right decisions, for example .8.
    """
    found = None
    for row in reversed(rows):
        if row.accuracy.low < least:
            break
        found = row.budget
    return found
