"""Back-tests: forecasts of budgets that were run, from the others."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lab.scaling.forecasting.curves import Forecast, forecast_setting
from lab.scaling.forecasting.scoring import ForecastReport, score_forecasts
from lab.scaling.law import FitError, fit_law
from lab.scaling.predictions import LEVEL, predict_loss
from lab.scaling.runs import Floats, Points

BudgetScores = Mapping[float, Mapping[str, Floats]]  # by budget and setting: losses of the seeds


@dataclass(frozen=True, kw_only=True)
class RungTest:
    """A forecast of one budget from smaller ones.

    Attributes:
        budget: the budget that was forecast.
        report: its scores; None if a setting could not be forecast.
        problem: why not; empty otherwise.
    """

    budget: float
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


def forecast_each_rung(scores: BudgetScores, level: float = LEVEL) -> tuple[RungTest, ...]:
    """Forecast each budget from all smaller ones, and score it against "rank at one size".

    The baseline ranks the settings by their means at the largest of the smaller budgets. Budgets
    with fewer than three smaller ones are not forecast.
    """
    budgets = sorted(scores)
    return tuple(_test(scores, budgets[:i], budgets[i], level) for i in range(3, len(budgets)))


def _test(scores: BudgetScores, smaller: list[float], budget: float, level: float) -> RungTest:
    observed, nearest = scores[budget], scores[smaller[-1]]
    try:
        forecasts = [
            _forecast(scores, smaller, budget, name, level) for name in observed if name in nearest
        ]
    except FitError as error:
        return RungTest(budget=budget, report=None, problem=str(error))
    baseline = {name: float(np.mean(losses)) for name, losses in nearest.items()}
    return RungTest(
        budget=budget, report=score_forecasts(forecasts, observed, baseline), problem=""
    )


def _forecast(
    scores: BudgetScores, smaller: list[float], budget: float, name: str, level: float
) -> Forecast:
    parts = [(b, scores[b][name]) for b in smaller if name in scores[b]]
    budgets = np.concatenate([np.full(len(losses), b) for b, losses in parts])
    losses = np.concatenate([losses for _, losses in parts])
    return forecast_setting(name, budgets, losses, budget, len(scores[budget][name]), level)


def leave_one_rung_out(points: Points, level: float = LEVEL) -> tuple[HeldOutLoss, ...]:
    """Fit L(N, D) without each budget and predict the losses there.

    Budgets without which no law can be fitted are left out of the result.
    """
    budgets = map(float, np.unique(points.budgets_n))
    return tuple(loss for budget in budgets for loss in leave_rung_out(points, budget, level))


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
    for size, tokens in pairs:
        same = (held.parameters_n == size) & (held.tokens_n == tokens)
        predicted = predict_loss(fit, float(size), float(tokens), int(same.sum()), level)
        found.append(
            HeldOutLoss(
                budget=budget,
                parameters=float(size),
                tokens=float(tokens),
                predicted=predicted.loss,
                low=predicted.low,
                high=predicted.high,
                observed=float(held.losses_n[same].mean()),
            )
        )
    return tuple(found)
