"""Losses of one design over budgets, L(C) = E + A / C^gamma, and forecasts by it.

For designs that differ in more than size and data, or in too few sizes for a law L(N, D), so that
FLOPs are the only input. The fit and its intervals are those of the law of size and data.
"""

import numpy as np

from lab.scaling.law import FitError
from lab.scaling.predictions import LEVEL, Prediction, predict_points
from lab.scaling.solver.batch import FitBatch, fit_batch
from lab.scaling.solver.huber import DELTA, Floats

NAMES = ("E", "A", "gamma")
FEWEST_RUNS, FEWEST_BUDGETS = 5, 3


def fit_curve(budgets_n: Floats, losses_n: Floats, delta: float = DELTA) -> FitBatch:
    """Fit the curve of one design.

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


def curve_parameters(batch: FitBatch) -> dict[str, float]:
    """Return E, A and gamma of the first curve of a batch."""
    parts = (batch.constants_K, batch.power_factors_Kp[:, 0], batch.exponents_Kp[:, 0])
    return {name: float(values[0]) for name, values in zip(NAMES, parts, strict=True)}


def predict_curve(batch: FitBatch, budget: float, level: float = LEVEL) -> Prediction:
    """Return the loss at a budget (see `extrapolation.check_extrapolation`)."""
    return predict_points(batch, np.log([[budget]]), level)[0]
