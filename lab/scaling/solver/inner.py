"""The inner problem: non-negative factors for given exponents, by reweighted least squares.

Letters: M problems, n points, q factors.
"""

import itertools
from collections.abc import Callable

import numpy as np

from lab.scaling.solver.huber import Floats, huber, newton_weights, weights

_TINY = 1e-300
_SMALLEST = 1e-6  # of a model, relative to the loss; below, the logarithm is cut off
_RIDGE = 1e-13  # relative; only for columns that are equal to rounding
_STEPS = (1.0, 0.5, 0.1, 0.01)


def log_residuals_Mn(
    offset_Mn: Floats, columns_Mnq: Floats, factors_Mq: Floats, logs_Mn: Floats
) -> Floats:
    """Return log(model) - log(loss)."""
    model = offset_Mn + (columns_Mnq @ factors_Mq[..., None])[..., 0]
    return np.asarray(np.log(np.maximum(model * np.exp(-logs_Mn), _SMALLEST)))


def start_factors(offset_Mn: Floats, columns_Mnq: Floats, logs_Mn: Floats) -> Floats:
    """Return the factors with the least squared relative error."""
    scaled = columns_Mnq * np.exp(-logs_Mn)[..., None]
    target = 1 - offset_Mn * np.exp(-logs_Mn)
    gram = np.swapaxes(scaled, 1, 2) @ scaled
    right = (np.swapaxes(scaled, 1, 2) @ target[..., None])[..., 0]
    return non_negative_least_squares(gram, right)


def solve_factors(
    offset_Mn: Floats,
    columns_Mnq: Floats,
    factors_Mq: Floats,
    logs_Mn: Floats,
    delta: float,
    iterations: int,
    tolerance: float = 1e-11,
) -> tuple[Floats, Floats]:
    """Return the factors that minimize the summed Huber loss of the log residuals, and the sums.

    Each iteration linearizes the logarithm and solves a weighted non-negative least squares. Its
    weights are those of Newton's method if that step lowers the sum (fast near the minimum), and
    otherwise those of reweighted least squares, with shorter steps where the sum does not fall.
    """
    factors = factors_Mq.copy()
    residuals = log_residuals_Mn(offset_Mn, columns_Mnq, factors, logs_Mn)
    sums = huber(residuals, delta).sum(axis=1)
    rows = np.arange(len(factors))
    for _ in range(iterations):
        before = sums[rows]
        left = rows
        for curvature, steps in ((newton_weights, (1.0,)), (weights, _STEPS)):
            problem = offset_Mn[left], columns_Mnq[left], factors[left], logs_Mn[left]
            direction = _direction(problem, residuals[left], delta, curvature)
            start = factors[left]
            for step in steps:
                trial = start + step * direction
                found = log_residuals_Mn(offset_Mn[left], columns_Mnq[left], trial, logs_Mn[left])
                value = huber(found, delta).sum(axis=1)
                better = value < sums[left]
                index = left[better]
                factors[index], residuals[index] = trial[better], found[better]
                sums[index] = value[better]
                left, start, direction = left[~better], start[~better], direction[~better]
                if not len(left):
                    break
            if not len(left):
                break
        rows = rows[before - sums[rows] > tolerance * before]
        if not len(rows):
            break
    return factors, sums


def _direction(
    problem: tuple[Floats, Floats, Floats, Floats],
    residuals_Mn: Floats,
    delta: float,
    curvature: Callable[[Floats, float], Floats],
) -> Floats:
    """Return the step to the minimum of a quadratic model of the sum."""
    _, columns, factors, logs = problem
    slope = columns * np.exp(-residuals_Mn - logs)[..., None]
    transposed = np.swapaxes(slope, 1, 2)
    gram = transposed @ (slope * curvature(residuals_Mn, delta)[..., None])
    gradient = (transposed @ np.clip(residuals_Mn, -delta, delta)[..., None])[..., 0]
    right = (gram @ factors[..., None])[..., 0] - gradient
    return non_negative_least_squares(gram, right) - factors


def non_negative_least_squares(gram_Mqq: Floats, right_Mq: Floats) -> Floats:
    """Return the minimum of c G c / 2 - r c over c >= 0, for each of M problems.

    All supports are tried, which is exact and fast for at most three unknowns.
    """
    q = right_Mq.shape[1]
    scale = np.trace(gram_Mqq, axis1=1, axis2=2)
    gram = gram_Mqq + (_RIDGE * scale + _TINY)[:, None, None] * np.eye(q)
    best = np.linalg.solve(gram, right_Mq[..., None])[..., 0]
    bad = np.flatnonzero((best < 0).any(axis=1))
    if not len(bad):
        return np.asarray(best)
    gram, right = gram[bad], right_Mq[bad]
    chosen, value = np.zeros_like(right), np.zeros(len(bad))
    supports = (s for size in range(1, q) for s in itertools.combinations(range(q), size))
    for support in map(list, supports):
        part = np.linalg.solve(gram[:, support][:, :, support], right[:, support, None])[..., 0]
        gain = -(part * right[:, support]).sum(axis=1)  # twice the objective at a solution
        take = (part >= 0).all(axis=1) & (gain < value)
        chosen[take] = 0.0
        chosen[np.ix_(take, support)] = part[take]
        value[take] = gain[take]
    best[bad] = chosen
    return np.asarray(best)
