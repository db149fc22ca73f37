"""Scores of forecasts once the runs exist: error, coverage, regret and decisions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lab.errors import UserError
from lab.scaling.forecasting.decisions import (
    DecisionAccuracy,
    Scores,
    decision_accuracy,
    regret,
    wilson_interval,
)
from lab.scaling.runs import Floats


class NothingToScoreError(UserError):
    """No setting was both forecast and run; the message is one line."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """A forecast of one setting at a budget, before it is run.

    Attributes:
        setting: label of the setting.
        budget: FLOPs.
        value: expected loss.
        low: lower end of the interval of the mean of new runs; 0 if it is not limited.
        high: upper end; infinite if it is not limited.
        level: nominal coverage.
        seeds: number of new runs of which the mean is meant.
    """

    setting: str
    budget: float
    value: float
    low: float
    high: float
    level: float
    seeds: int


@dataclass(frozen=True, kw_only=True)
class ForecastError:
    """One forecast and the observed means.

    Attributes:
        forecast: the forecast.
        observed: mean loss of the runs.
        error: forecast minus observed loss.
        relative: error divided by the observed loss.
        covered: whether the observed mean is inside of the interval.
    """

    forecast: Forecast
    observed: float
    error: float
    relative: float
    covered: bool


@dataclass(frozen=True, kw_only=True)
class ForecastReport:
    """Scores of the forecasts of one budget.

    Attributes:
        errors: one per setting that was forecast and run.
        regret: loss of the setting forecast to be best minus the smallest loss.
        decisions: accuracy over the separable pairs.
        baseline_regret: regret of the ranking at one smaller budget.
        baseline_decisions: accuracy of the ranking at one smaller budget.
    """

    errors: tuple[ForecastError, ...]
    regret: float
    decisions: DecisionAccuracy
    baseline_regret: float
    baseline_decisions: DecisionAccuracy


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Coverage of the intervals of forecasts.

    Attributes:
        forecasts: number of forecasts.
        laws: number of laws by which they were made.
        covered: number of forecasts whose interval contains the observed mean.
        low: lower end of Wilson's 90 % interval of the share of covered forecasts. Forecasts by the
            same law are not independent, so the number of trials is that of laws.
        high: upper end.
        nominal: mean nominal coverage.
        mean_error: mean relative error; its sign shows a bias.
        mean_size: mean size of the relative error.
    """

    forecasts: int
    laws: int
    covered: int
    low: float
    high: float
    nominal: float
    mean_error: float
    mean_size: float


def score_forecasts(
    forecasts: Sequence[Forecast], observed: Scores, baseline: Mapping[str, float]
) -> ForecastReport:
    """Compare forecasts of one budget with its runs.

    An interval is that of the mean of as many runs as the forecast says.

    Args:
        forecasts: one per setting.
        observed: losses of the seeds of each setting at that budget.
        baseline: mean losses of the settings at one smaller budget, by which they are ranked.

    Raises:
        NothingToScoreError: no setting was both forecast and run, or the budgets of the forecasts
            differ.
    """
    found = [forecast for forecast in forecasts if forecast.setting in observed]
    if not found or len({forecast.budget for forecast in forecasts}) > 1:
        raise NothingToScoreError(
            "forecasts: needs runs of the settings, all at the budget of the forecasts"
        )
    predicted = {forecast.setting: forecast.value for forecast in found}
    runs = {name: observed[name] for name in predicted}
    return ForecastReport(
        errors=tuple(_error(forecast, runs[forecast.setting]) for forecast in found),
        regret=regret(predicted, runs),
        decisions=decision_accuracy(predicted, runs),
        baseline_regret=regret(baseline, runs),
        baseline_decisions=decision_accuracy(baseline, runs),
    )


def _error(forecast: Forecast, losses: Floats) -> ForecastError:
    mean = float(np.mean(losses))
    return ForecastError(
        forecast=forecast,
        observed=mean,
        error=forecast.value - mean,
        relative=(forecast.value - mean) / mean,
        covered=forecast.low <= mean <= forecast.high,
    )


def calibrate(by_law: Iterable[Sequence[ForecastError]]) -> Calibration | None:
    """Return the calibration over forecasts, for example over all of a store; None without any.

    Args:
        by_law: forecasts with the observed means, those by the same law together.
    """
    laws = [errors for errors in by_law if errors]
    rows = [error for errors in laws for error in errors]
    if not rows:
        return None
    covered = sum(row.covered for row in rows)
    low, high = wilson_interval(covered / len(rows), len(laws), 0.9)
    return Calibration(
        forecasts=len(rows),
        laws=len(laws),
        covered=covered,
        low=low,
        high=high,
        nominal=float(np.mean([row.forecast.level for row in rows])),
        mean_error=float(np.mean([row.relative for row in rows])),
        mean_size=float(np.mean([abs(row.relative) for row in rows])),
    )
