"""Profile likelihoods: the values of a quantity that the runs do not rule out.

The quantity is held at a value, all other parameters are fitted again, and the value belongs to the
interval if twice the rise of the sum, divided by E psi^2 / E psi' (`FitBatch.likelihood_scale_K`),
is at most the square of the t quantile.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lab.scaling.solver.batch import FitBatch
from lab.scaling.solver.huber import Floats, quantile
from lab.scaling.solver.outer import minimize
from lab.scaling.solver.power_terms import PowerTerms, Rows

_EVALUATIONS = 14
_ACCURACY = 0.01  # of the root of the statistic, relative to the quantile


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A quantity of K fitted laws that can be held at a value.

    Attributes:
        estimates_K: its values at the fits.
        errors_K: standard errors; they only set the first step of the search.
        limits: smallest and largest value that is searched.
        restrict: models of the problems with the quantity held at values.
        starts: outer variables of the restricted models that correspond to the fits.
    """

    estimates_K: Floats
    errors_K: Floats
    limits: tuple[float, float]
    restrict: Callable[[Floats], PowerTerms]
    starts: Floats


def profile_ends(batch: FitBatch, quantity: Quantity, level: float) -> tuple[Floats, Floats]:
    """Return the lower and upper ends of the intervals; infinite where a limit is not ruled out."""
    cut = quantile(level, batch.freedom)
    return _ends(batch, quantity, cut, -1), _ends(batch, quantity, cut, +1)


def _ends(batch: FitBatch, quantity: Quantity, cut: float, sign: int) -> Floats:
    limit = quantity.limits[0 if sign < 0 else 1]
    center = quantity.estimates_K
    scale = batch.likelihood_scale_K()
    furthest = np.abs(limit - center)
    step = np.nan_to_num(cut * quantity.errors_K, nan=0.1, posinf=0.1)
    distance = np.clip(step, 1e-6 * np.maximum(furthest, 1e-6), furthest)
    inside, at_inside = np.zeros_like(center), np.zeros_like(center)
    outside, at_outside = np.full_like(center, np.inf), np.full_like(center, np.inf)
    outer = quantity.starts.copy()
    result, rows = np.full_like(center, sign * np.inf), np.arange(len(center))
    for _ in range(_EVALUATIONS):
        held = center[rows] + sign * distance[rows]
        value, outer[rows] = _root_statistic(batch, quantity, held, rows, outer[rows], scale)
        under = value < cut
        inside[rows] = np.where(under, distance[rows], inside[rows])
        at_inside[rows] = np.where(under, value, at_inside[rows])
        outside[rows] = np.where(under, outside[rows], distance[rows])
        at_outside[rows] = np.where(under, at_outside[rows], value)
        done = np.abs(value - cut) <= _ACCURACY * cut
        result[rows[done]] = held[done]
        open_end = under & (distance[rows] >= furthest[rows] * (1 - 1e-9)) & ~done
        rows = rows[~(done | open_end)]
        if not len(rows):
            return result
        distance[rows] = _next_distance(
            (inside[rows], at_inside[rows]), (outside[rows], at_outside[rows]), cut, furthest[rows]
        )
    bracketed = rows[np.isfinite(outside[rows])]
    result[bracketed] = center[bracketed] + sign * outside[bracketed]
    return result


def _next_distance(
    inside: tuple[Floats, Floats], outside: tuple[Floats, Floats], cut: float, furthest: Floats
) -> Floats:
    """Return the next distance: interpolated in a bracket, and extrapolated without one."""
    (low, at_low), (high, at_high) = inside, outside
    known = np.isfinite(high)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.clip((cut - at_low) / (at_high - at_low), 0.03, 0.97)
        between = low + share * (high - low)
        beyond = low * np.clip(1.02 * cut / at_low, 1.1, 3.0)
    return np.where(known, between, np.minimum(beyond, furthest))


def _root_statistic(
    batch: FitBatch, quantity: Quantity, held: Floats, rows: Rows, outer: Floats, scale: Floats
) -> tuple[Floats, Floats]:
    """Return the roots of the statistic at the held values, and the outer variables there."""
    full = quantity.estimates_K.copy()
    full[rows] = held
    terms = quantity.restrict(full).take(rows)
    found = minimize(terms, batch.logs_Kn[rows], outer, batch.delta)
    rise = np.maximum(found.sums_K - batch.solution.sums_K[rows], 0.0)
    return np.sqrt(2 * rise / scale[rows]), found.outer_Km
