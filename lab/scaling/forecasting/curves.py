"""Losses of one setting over budgets, L(C) = E + A / C^gamma, and forecasts by it.

For settings that are compared at budgets whose sizes follow a rule, so that FLOPs are the only
input. The fit and its intervals are those of the law of size and data.
"""

from dataclasses import dataclass

import numpy as np

from lab.scaling.law import FitError
from lab.scaling.predictions import LEVEL, predict_batch
from lab.scaling.solver.batch import FitBatch, fit_batch
from lab.scaling.solver.huber import DELTA, Floats

NAMES = ("E", "A", "gamma")
FEWEST_RUNS, FEWEST_BUDGETS = 5, 3


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


def fit_curve(budgets_n: Floats, losses_n: Floats, delta: float = DELTA) -> FitBatch:
    """Fit the curve of one setting.

    Unlike the law of size and data, E may be 0: a pure power law forecasts as well.

    Raises:
        FitError: there are fewer than five runs or three budgets, no start converged, or losses do
            not fall with the budget.
    """
    budgets = len(np.unique(budgets_n))
    if len(losses_n) < FEWEST_RUNS or budgets < FEWEST_BUDGETS:
        raise FitError(
            f"a curve over budgets needs {FEWEST_RUNS} runs and {FEWEST_BUDGETS} budgets or more, "
            f"got {len(losses_n)} and {budgets}"
        )
    batch = fit_batch(np.log(budgets_n)[None, :, None], losses_n[None], delta, starts=6)
    problem = batch.failures(NAMES)[0]
    if problem and not problem.startswith("E "):
        raise FitError(f"no curve over budgets for these {len(losses_n)} runs: {problem}")
    return batch


def forecast_setting(
    setting: str,
    budgets_n: Floats,
    losses_n: Floats,
    budget: float,
    seeds: int = 1,
    level: float = LEVEL,
) -> Forecast:
    """Return the forecast of one setting at a budget (see `extrapolation.check_extrapolation`).

    Raises:
        FitError: as `fit_curve`.
    """
    batch = fit_curve(budgets_n, losses_n)
    value, low, high = predict_batch(batch, np.log([[budget]]), seeds, level)
    return Forecast(
        setting=setting,
        budget=budget,
        value=float(value[0]),
        low=float(low[0]),
        high=float(high[0]),
        level=level,
        seeds=seeds,
    )
