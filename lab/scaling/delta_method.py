"""Standard errors of functions of a fitted law, by its covariance (delta method)."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lab.scaling.flops import Floats, FlopsPerToken
from lab.scaling.law import laws_of
from lab.scaling.optimum import optimal_sizes
from lab.scaling.solver.batch import FitBatch

_DIFFERENCE = 1e-5


def gradients_KP(batch: FitBatch, function: Callable[[Floats], Floats]) -> Floats:
    """Return the derivatives of a function of K laws by the parameters of `covariance_KPP`.

    Args:
        batch: the laws.
        function: maps shifts of the parameters, of shape (K, P), to values, of shape (K,).
    """
    size = np.concatenate([np.ones((len(batch.logs_Kn), 2)), batch.solution.factors_Kq], axis=1)
    gradients = np.empty_like(size)
    for i in range(size.shape[1]):
        shift = np.zeros_like(size)
        shift[:, i] = _DIFFERENCE * size[:, i]
        gradients[:, i] = (function(shift) - function(-shift)) / (2 * shift[:, i])
    return gradients


def standard_errors_K(covariance_KPP: Floats, gradients_KP: Floats) -> Floats:
    """Return the standard errors of functions of K laws by covariances and derivatives."""
    variance = np.einsum("ki,kij,kj->k", gradients_KP, covariance_KPP, gradients_KP)
    return np.asarray(np.sqrt(np.maximum(variance, 0.0)))


def shifted_laws(batch: FitBatch, shifts_K5: Floats) -> dict[str, Floats]:
    """Return the parameters of K laws by name (`laws_of`), after a shift.

    Args:
        batch: the laws.
        shifts_K5: shifts of log alpha, log beta, and of `FitBatch.solution.factors_Kq`.
    """
    solution = replace(
        batch.solution,
        outer_Km=batch.solution.outer_Km + shifts_K5[:, :2],
        factors_Kq=batch.solution.factors_Kq + shifts_K5[:, 2:],
    )
    return laws_of(replace(batch, solution=solution))


def shifted_log_sizes(
    batch: FitBatch, shifts_K5: Floats, flops: float | Floats, per_token: FlopsPerToken
) -> Floats:
    """Return the log compute-optimal sizes of K laws after a shift (`shifted_laws`).

    Args:
        batch: the laws.
        shifts_K5: the shift.
        flops: the budget, or K budgets.
        per_token: FLOPs per token of a size.
    """
    laws = shifted_laws(batch, shifts_K5)
    return np.asarray(np.log(optimal_sizes(laws, flops, per_token)))
