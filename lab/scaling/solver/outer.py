"""The outer problem: exponents by variable projection, for many problems at once.

Golub and Pereyra (1973): the factors are eliminated, so that only the exponents are searched.
Czech et al. (2026, arXiv 2603.22339) show that this removes the ill condition of the search over
all five parameters of a scaling law. The steps are those of Levenberg and Marquardt with Kaufman's
(1975) derivative of the projected residuals: the Schur complement of the factors in the matrix of
the joint problem.

Letters: K problems, M of them that are not finished, n points, m outer variables, q factors.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lab.scaling.solver.huber import Floats, newton_weights
from lab.scaling.solver.inner import log_residuals_Mn, solve_factors, start_factors
from lab.scaling.solver.power_terms import PowerTerms, Rows

_OUTER, _INNER = 80, 12
_TOLERANCE = 1e-8  # predicted decrease, relative to the sum
_RIDGE, _TINY = 1e-13, 1e-18
_BLOCK = 16  # number of problems that are solved at once


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Minima of K problems.

    Attributes:
        outer_Km: outer variables (log exponents).
        factors_Kq: factors of the columns.
        sums_K: summed Huber losses.
        converged_K: whether the predicted decrease vanished.
        at_bound_K: whether an outer variable is at its bound.
    """

    outer_Km: Floats
    factors_Kq: Floats
    sums_K: Floats
    converged_K: NDArray[np.bool_]
    at_bound_K: NDArray[np.bool_]


def minimize(terms: PowerTerms, logs_Kn: Floats, starts_Km: Floats, delta: float) -> Solution:
    """Return a local minimum for each problem, searched from its start.

    Args:
        terms: the models.
        logs_Kn: logarithms of the losses.
        starts_Km: outer variables at the start; moved inside their bounds.
        delta: threshold of the Huber loss.
    """
    bounds = terms.bounds_Km2
    outer = np.clip(starts_Km, bounds[..., 0], bounds[..., 1])
    rows = np.arange(len(outer))
    offset, columns = terms.design(outer, rows)
    factors = start_factors(offset, columns, logs_Kn)
    factors, sums = solve_factors(offset, columns, factors, logs_Kn, delta, 2 * _INNER)
    damping, converged = np.full(len(outer), 1e-3), np.zeros(len(outer), dtype=bool)
    for _ in range(_OUTER):
        rows = np.flatnonzero(~converged)
        if not len(rows):
            break
        step, change, decrease = _step(
            terms, logs_Kn[rows], outer[rows], factors[rows], (rows, damping[rows], delta)
        )
        target = np.clip(outer[rows] + step, bounds[rows, :, 0], bounds[rows, :, 1])
        guess = np.maximum(factors[rows] + change, 0.0)
        offset, columns = terms.design(target, rows)
        found, value = solve_factors(offset, columns, guess, logs_Kn[rows], delta, _INNER)
        better = value < sums[rows]
        small = decrease <= _TOLERANCE * sums[rows] + 1e-18
        stuck = np.abs(target - outer[rows]).max(axis=1) < 1e-9
        converged[rows] = small | stuck
        taken = rows[better]
        outer[taken], factors[taken], sums[taken] = target[better], found[better], value[better]
        damping[rows] = np.clip(np.where(better, damping[rows] / 5, damping[rows] * 10), 1e-9, 1e12)
    edge = (outer <= bounds[..., 0] + 1e-6) | (outer >= bounds[..., 1] - 1e-6)
    return Solution(
        outer_Km=outer,
        factors_Kq=factors,
        sums_K=sums,
        converged_K=converged,
        at_bound_K=np.asarray(edge.any(axis=1)),
    )


def _step(
    terms: PowerTerms,
    logs_Mn: Floats,
    outer_Mm: Floats,
    factors_Mq: Floats,
    context: tuple[Rows, Floats, float],
) -> tuple[Floats, Floats, Floats]:
    """Return the step of the outer variables, that of the factors, and the predicted decrease."""
    rows_M, damping_M, delta = context
    by_outer, by_factor, residuals = jacobians(terms, logs_Mn, outer_Mm, factors_Mq, rows_M)
    by_factor = by_factor * (factors_Mq > 0)[:, None]  # factors at 0 stay there
    weight = newton_weights(residuals, delta)[..., None]
    weighted_outer, weighted_factor = weight * by_outer, weight * by_factor
    transposed = np.swapaxes(by_factor, 1, 2)
    gram = transposed @ weighted_factor
    size = np.trace(gram, axis1=1, axis2=2)
    free = factors_Mq > 0
    gram = gram + (np.where(free, _RIDGE * size[:, None], 1.0))[..., None] * np.eye(gram.shape[1])
    mixed = transposed @ weighted_outer
    solved = np.linalg.solve(gram, mixed)
    schur = np.swapaxes(by_outer, 1, 2) @ weighted_outer - np.swapaxes(mixed, 1, 2) @ solved
    gradient = np.swapaxes(by_outer, 1, 2) @ np.clip(residuals, -delta, delta)[..., None]
    diagonal = np.einsum("kii->ki", schur)
    eye = np.eye(schur.shape[1])
    step = -np.linalg.solve(
        schur + (damping_M[:, None] * diagonal + _TINY)[..., None] * eye, gradient
    )
    full = np.linalg.solve(schur + (_RIDGE * diagonal + _TINY)[..., None] * eye, gradient)
    decrease = (full * gradient).sum(axis=(1, 2))
    return np.asarray(step[..., 0]), np.asarray(-(solved @ step)[..., 0]), np.asarray(decrease)


def jacobians(
    terms: PowerTerms, logs_Mn: Floats, outer_Mm: Floats, factors_Mq: Floats, rows_M: Rows
) -> tuple[Floats, Floats, Floats]:
    """Return d residual / d outer (M, n, m), d residual / d factor (M, n, q), and residuals."""
    offset, columns = terms.design(outer_Mm, rows_M)
    residuals = log_residuals_Mn(offset, columns, factors_Mq, logs_Mn)
    inverse = np.exp(-residuals - logs_Mn)[..., None]
    derivatives = terms.derivatives_Mnm(outer_Mm, factors_Mq, rows_M)
    return derivatives * inverse, columns * inverse, residuals


def minimize_from_grid(
    terms: PowerTerms, logs_Kn: Floats, delta: float, points: int = 9, starts: int = 4
) -> tuple[Solution, NDArray[np.intp]]:
    """Return the best local minimum for each problem, searched from the best points of a grid.

    Args:
        terms: models without restrictions.
        logs_Kn: logarithms of the losses.
        delta: threshold of the Huber loss.
        points: values of each exponent in the grid, from .04 to 2.
        starts: number of grid points from which the search starts.

    Returns:
        The solutions, and the number of starts that converged to the best sum, of shape (K,).
    """
    count, p = len(logs_Kn), terms.mix_mp.shape[0]
    axis = np.log(np.geomspace(0.04, 2.0, points))
    nodes = np.stack(np.meshgrid(*[axis] * p, indexing="ij"), axis=-1).reshape(-1, p)
    # Many small problems are solved at once, because the time of a small array is that of NumPy's
    # call; larger blocks would not fit into the caches of a processor.
    sums = np.empty((count, len(nodes)))
    for block in np.split(np.arange(count), range(_BLOCK, count, _BLOCK)):
        rows = np.repeat(block, len(nodes))
        offset, columns = terms.design(np.tile(nodes, (len(block), 1)), rows)
        factors = start_factors(offset, columns, logs_Kn[rows])
        found = solve_factors(offset, columns, factors, logs_Kn[rows], delta, 3)
        sums[block] = found[1].reshape(len(block), -1)
    order = np.argsort(sums, axis=1, kind="stable")[:, :starts]
    rows = np.repeat(np.arange(count), order.shape[1])
    minima = minimize(terms.take(rows), logs_Kn[rows], nodes[order.ravel()], delta)
    values = np.where(minima.converged_K, minima.sums_K, np.inf).reshape(order.shape)
    best = np.arange(count) * order.shape[1] + values.argmin(axis=1)
    least = values.min(axis=1, keepdims=True)
    agreeing = (values <= least * (1 + 1e-4) + 1e-15).sum(axis=1)
    agreeing[np.isinf(least[:, 0])] = 0
    return Solution(**{name: value[best] for name, value in vars(minima).items()}), agreeing
