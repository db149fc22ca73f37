"""Profile-likelihood intervals of the exponents, the constant and the compute-optimal size."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lab.scaling.delta_method import gradients_KP, shifted_log_sizes, standard_errors_K
from lab.scaling.flops import Floats, FlopsPerToken, size_elasticity
from lab.scaling.law import LawFit, laws_of
from lab.scaling.optimum import optimal_sizes
from lab.scaling.solver.batch import FitBatch
from lab.scaling.solver.power_terms import (
    EXPONENT_BOUNDS,
    Optimum,
    PowerTerms,
    hold_exponent,
    hold_exponent_ratio,
)
from lab.scaling.solver.profile import Quantity, profile_ends

LEVEL = 0.9
_FARTHEST = np.log(1e4)  # optimal sizes are searched up to 1e4 times the mean size, either way


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A fitted value with its interval.

    Attributes:
        value: the value at the best fit.
        low: lower end; 0 if the runs do not limit the value from below.
        high: upper end; infinite if the runs do not limit the value from above.
        level: nominal coverage of the interval.
    """

    value: float
    low: float
    high: float
    level: float


def law_intervals(fit: LawFit, level: float = LEVEL) -> dict[str, Estimate]:
    """Return the intervals of "alpha", "beta", "E", and of "allocation" (`Law.allocation`)."""
    values = {
        "alpha": fit.law.alpha,
        "beta": fit.law.beta,
        "E": fit.law.E,
        "allocation": fit.law.allocation,
    }
    ends = law_interval_ends(fit.batch, level)
    return {
        name: _estimate(value, [float(end[0]) for end in ends[name]], level)
        for name, value in values.items()
    }


def optimal_size_intervals(
    fit: LawFit, flops_C: Floats, per_token: FlopsPerToken, level: float = LEVEL
) -> tuple[Estimate, ...]:
    """Return the compute-optimal numbers of parameters at C budgets of FLOPs with their intervals.

    The interval of the tokens follows: D = FLOPs / per_token(N).
    """
    repeated = fit.batch.take(np.zeros(len(flops_C), dtype=np.intp))
    low, high = optimal_size_ends(repeated, flops_C, per_token, level)
    sizes = optimal_sizes(laws_of(repeated), flops_C, per_token)
    return tuple(
        _estimate(size, ends, level)
        for size, *ends in zip(sizes.tolist(), low.tolist(), high.tolist(), strict=True)
    )


def _estimate(value: float, ends: Sequence[float], level: float) -> Estimate:
    return Estimate(value=value, low=ends[0], high=ends[1], level=level)


def law_interval_ends(batch: FitBatch, level: float) -> Mapping[str, tuple[Floats, Floats]]:
    """Return the ends of the intervals of `law_intervals` for K fits, by name."""
    makers: dict[str, tuple[Callable[[FitBatch], Quantity], Callable[[Floats], Floats]]] = {
        "alpha": (lambda b: _exponent(b, 0), np.exp),
        "beta": (lambda b: _exponent(b, 1), np.exp),
        "E": (_constant, lambda values: np.maximum(values, 0.0)),
        "allocation": (_allocation, lambda logs: 1 / (1 + np.exp(-logs))),
    }
    found = {}
    for name, (make, convert) in makers.items():
        low, high = profile_ends(batch, make(batch), level)
        found[name] = (convert(low), convert(high))
    return found


def optimal_size_ends(
    batch: FitBatch, flops: float | Floats, per_token: FlopsPerToken, level: float
) -> tuple[Floats, Floats]:
    """Return the ends of the intervals of the compute-optimal sizes of K fits.

    Args:
        batch: the fits.
        flops: the budget, or K budgets.
        per_token: FLOPs per token of a size.
        level: nominal coverage.
    """
    centers = batch.centers_Kp

    def restrict(logs_K: Floats) -> PowerTerms:
        sizes = np.exp(logs_K + centers[:, 0])
        tokens = flops / per_token(sizes)
        elasticities = size_elasticity(per_token, sizes)
        optimum = Optimum(
            inputs_K2=np.stack([logs_K, np.log(tokens) - centers[:, 1]], axis=1),
            elasticities_K2=np.stack([elasticities, np.ones_like(elasticities)], axis=1),
        )
        return replace(batch.terms, optimum=optimum)

    def logs_of(shifts_K5: Floats) -> Floats:
        return shifted_log_sizes(batch, shifts_K5, flops, per_token) - centers[:, 0]

    estimates = logs_of(np.zeros((len(centers), 5)))
    quantity = Quantity(
        estimates_K=estimates,
        errors_K=standard_errors_K(batch.covariance_KPP(), gradients_KP(batch, logs_of)),
        limits=(-_FARTHEST, _FARTHEST),
        restrict=restrict,
        starts=batch.solution.outer_Km,
    )
    low, high = profile_ends(batch, quantity, level)
    return np.exp(low + centers[:, 0]), np.exp(high + centers[:, 0])


def _exponent(batch: FitBatch, index: int) -> Quantity:
    errors = batch.covariance_KPP()[:, index, index]
    low, high = np.log(EXPONENT_BOUNDS)
    return Quantity(
        estimates_K=batch.solution.outer_Km[:, index],
        errors_K=np.sqrt(errors),
        limits=(float(low), float(high)),
        restrict=lambda logs_K: hold_exponent(batch.terms, index, logs_K),
        starts=np.delete(batch.solution.outer_Km, index, axis=1),
    )


def _allocation(batch: FitBatch) -> Quantity:
    covariance, outer = batch.covariance_KPP(), batch.solution.outer_Km
    variance = covariance[:, 0, 0] + covariance[:, 1, 1] - 2 * covariance[:, 0, 1]
    low, high = np.log(EXPONENT_BOUNDS)
    return Quantity(
        estimates_K=outer[:, 1] - outer[:, 0],
        errors_K=np.sqrt(np.maximum(variance, 0.0)),
        limits=(float(low - high) / 2, float(high - low) / 2),
        restrict=lambda logs_K: hold_exponent_ratio(batch.terms, logs_K),
        starts=outer[:, :1],
    )


def _constant(batch: FitBatch) -> Quantity:
    errors = np.sqrt(batch.covariance_KPP()[:, 2, 2])
    return Quantity(
        estimates_K=batch.solution.factors_Kq[:, 0],
        errors_K=errors,
        limits=(0.0, float(np.exp(batch.logs_Kn.min()))),
        restrict=lambda values_K: replace(batch.terms, constant_K=values_K),
        starts=batch.solution.outer_Km,
    )
