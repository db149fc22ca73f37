"""The inner problem: non-negative factors for given exponents, by reweighted least squares.

Letters: M problems, n points, q factors.
"""

import itertools

import numpy as np

from lab.scaling.solver.huber import Floats, huber, weights

_TINY = 1e-300
_RIDGE = 1e-13  # relative; only for columns that are equal to rounding
_STEPS = (1.0, 0.5, 0.1, 0.01)


def log_residuals_Mn(
    offset_Mn: Floats, columns_Mnq: Floats, factors_Mq: Floats, logs_Mn: Floats
) -> Floats:
    """Return log(model) - log(loss)."""
    model = offset_Mn + (columns_Mnq @ factors_Mq[..., None])[..., 0]
    return np.asarray(np.log(np.maximum(model, _TINY)) - logs_Mn)


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

    Each iteration linearizes the logarithm, solves the weighted non-negative least squares, and
    shortens the step where the sum does not fall.
    """
    factors = factors_Mq.copy()
    residuals = log_residuals_Mn(offset_Mn, columns_Mnq, factors, logs_Mn)
    sums = huber(residuals, delta).sum(axis=1)
    open_ = np.arange(len(factors))
    for _ in range(iterations):
        columns, offset, logs = columns_Mnq[open_], offset_Mn[open_], logs_Mn[open_]
        old, residual = factors[open_], residuals[open_]
        slope = columns * np.exp(-residual - logs)[..., None]
        weighted = slope * weights(residual, delta)[..., None]
        gram = np.swapaxes(weighted, 1, 2) @ slope
        target = (slope @ old[..., None])[..., 0] - residual
        right = (np.swapaxes(weighted, 1, 2) @ target[..., None])[..., 0]
        direction = non_negative_least_squares(gram, right) - old
        before = sums[open_]
        left = np.arange(len(open_))
        for step in _STEPS:
            trial = old[left] + step * direction[left]
            found = log_residuals_Mn(offset[left], columns[left], trial, logs[left])
            value = huber(found, delta).sum(axis=1)
            better = value < before[left]
            index = open_[left[better]]
            factors[index], residuals[index] = trial[better], found[better]
            sums[index] = value[better]
            left = left[~better]
            if not len(left):
                break
        open_ = open_[before - sums[open_] > tolerance * before]
        if not len(open_):
            break
    return factors, sums


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
