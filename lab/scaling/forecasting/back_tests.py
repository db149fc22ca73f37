"""Back-tests: forecasts of budgets that were run, from the others."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lab.scaling.forecasting.designs import (
    Design,
    LawKind,
    as_forecast,
    forecast_designs,
    rank_at,
    ranking_budget,
)
from lab.scaling.forecasting.scoring import ForecastReport, NothingToScoreError, score_forecasts
from lab.scaling.law import FitError, fit_law
from lab.scaling.predictions import LEVEL, predict_losses
from lab.scaling.runs import Points

_STARTS = 4  # of each fit; there are nearly two per budget, and the report waits for them


@dataclass(frozen=True, kw_only=True)
class RungTest:
    """A forecast of one budget that was run, from other budgets.

    Attributes:
        budget: the budget that was forecast, in FLOPs.
        others: the budgets from which it was forecast.
        report: its scores; None if it could not be forecast.
        problem: why not; empty otherwise.
    """

    budget: float
    others: tuple[float, ...]
    report: ForecastReport | None
    problem: str


@dataclass(frozen=True, kw_only=True)
class HeldOutLoss:
    """The law without one budget, and one size and token count of that budget.

    Attributes:
        budget: the budget that was left out.
        parameters: number of parameters.
        tokens: number of tokens.
        predicted: loss by the law of the other budgets.
        low: lower end of the interval of the mean of the runs.
        high: upper end.
        observed: mean loss of the runs.
    """

    budget: float
    parameters: float
    tokens: float
    predicted: float
    low: float
    high: float
    observed: float

    @property
    def covered(self) -> bool:
        """Whether the observed mean is inside of the interval."""
        return self.low <= self.observed <= self.high


def leave_one_rung_out(
    designs: Sequence[Design], law: LawKind, level: float = LEVEL
) -> tuple[RungTest, ...]:
    """Forecast each budget from all others, and each from the smaller ones.

    The baseline is the ranking at the largest smaller budget, or at the smallest other one for the
    smallest budget.

    Args:
        designs: designs with their runs at all budgets.
        law: kind of the laws.
        level: nominal coverage of the intervals.

    Returns:
        One test per budget from all others, then those from smaller budgets that are not the same.
    """
    budgets = sorted({budget for design in designs for budget in design.budgets})
    pairs = [(budget, tuple(b for b in budgets if b != budget)) for budget in budgets]
    pairs += [(budget, tuple(budgets[:i])) for i, budget in enumerate(budgets[:-1]) if i >= 2]
    return tuple(_test(designs, budget, others, law, level) for budget, others in pairs)


def _test(
    designs: Sequence[Design],
    budget: float,
    others: tuple[float, ...],
    law: LawKind,
    level: float,
) -> RungTest:
    observed = {design.name: design.losses_at(budget) for design in designs}
    observed = {name: losses for name, losses in observed.items() if len(losses)}
    known = [design.at_budgets(others) for design in designs if design.name in observed]
    known = [design for design in known if design.runs]
    if not known:
        problem = "its designs have runs at no other budget"
        return RungTest(budget=budget, others=others, report=None, problem=problem)
    try:
        found = forecast_designs(known, budget, law, level, _STARTS).designs
        made = [
            as_forecast(each.design, budget, each.prediction, len(observed[each.design]))
            for each in found
        ]
        report = score_forecasts(made, observed, rank_at(known, ranking_budget(known, budget)))
    except (FitError, NothingToScoreError) as error:
        return RungTest(budget=budget, others=others, report=None, problem=str(error))
    return RungTest(budget=budget, others=others, report=report, problem="")


def leave_rung_out(points: Points, budget: float, level: float = LEVEL) -> tuple[HeldOutLoss, ...]:
    """Fit L(N, D) without one budget and predict the losses there; empty without a law."""
    out = points.budgets_n == budget
    try:
        fit = fit_law(points.take(~out))
    except FitError:
        return ()
    held = points.take(out)
    pairs = np.unique(np.stack([held.parameters_n, held.tokens_n], axis=1), axis=0)
    found = []
    predictions = predict_losses(fit, pairs[:, 0], pairs[:, 1], level)
    for (size, tokens), prediction in zip(pairs, predictions, strict=True):
        same = (held.parameters_n == size) & (held.tokens_n == tokens)
        low, high = prediction.mean_ends(int(same.sum()))
        found.append(
            HeldOutLoss(
                budget=budget,
                parameters=float(size),
                tokens=float(tokens),
                predicted=prediction.loss,
                low=low,
                high=high,
                observed=float(held.losses_n[same].mean()),
            )
        )
    return tuple(found)
