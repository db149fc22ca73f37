"""Power of a design: the differences that its intervals are likely to find.

A difference between two cells is found if its interval (`intervals.difference_interval`) contains
only differences of the same sign. The scores of a cell are assumed to be normal, with the same
variance in both cells, and independent between cells. The probability is then an integral over the
estimated variances, which is computed by quadrature. For two cells, and without an error of the
test set, it is the tail of a noncentral t distribution.
"""

import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from scipy import optimize, special, stats

from lab.reporting.finite_test_set import known_error_quantile
from lab.reporting.intervals import LEVEL, Floats
from lab.reporting.studentized_range import range_quantile

POWER = 0.8  # probability with which a detectable difference is found
_NODES = 48  # of each quadrature
_QUANTILE_NODES = 10  # of the interpolation of the studentized range


@dataclass(frozen=True, kw_only=True)
class Design:
    """A comparison of cells by repeats on several seeds.

    Attributes:
        seeds: number of repeats of each cell.
        settings: number of settings for which the intervals hold at once.
        deviation: standard deviation between the repeats of one setting.
        test_error: standard error of a difference due to the finite test set.
    """

    seeds: int
    settings: int
    deviation: float
    test_error: float = 0.0


def power(design: Design, difference: float) -> float:
    """Return the probability that a difference between two cells is found.

    Args:
        design: design of the comparison, with at least two seeds.
        difference: true difference; its sign is ignored.
    """
    widths, weights = _half_widths(design.seeds, design.settings)
    test_half = known_error_quantile(design.settings) * design.test_error
    half = np.hypot(widths * design.deviation, test_half)
    error = math.hypot(design.deviation * math.sqrt(2 / design.seeds), design.test_error)
    if not error:
        return float(difference != 0)
    return float(weights @ stats.norm.cdf((abs(difference) - half) / error))


def detectable_difference(design: Design) -> float:
    """Return the smallest difference that is found with probability `POWER`."""
    most = max(design.deviation, design.test_error)
    if not most:
        return 0.0
    while power(design, most) < POWER:
        most *= 2
    return float(optimize.brentq(lambda d: power(design, d) - POWER, 0.0, most, rtol=1e-6))


def seeds_to_find(design: Design, difference: float, most: int) -> int | None:
    """Return the number of seeds with which a difference is found with probability `POWER`.

    Args:
        design: design of the comparison; its number of seeds is the smallest one considered.
        difference: true difference.
        most: largest number of seeds that is considered.

    Returns:
        None if `most` seeds are too few.
    """

    def is_enough(seeds: int) -> bool:
        return power(replace(design, seeds=seeds), difference) >= POWER

    low, high = max(2, design.seeds), max(2, most)
    if is_enough(low):
        return low
    if not is_enough(high):
        return None
    while high - low > 1:  # `low` seeds are too few, `high` are enough
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


@cache
def _half_widths(seeds: int, settings: int) -> tuple[Floats, Floats]:
    """Return nodes and weights of half the width of an interval, for a standard deviation of 1.

    The sum of the two cells' estimated variances has a scaled chi-squared distribution. The first
    cell's share of this sum has a beta distribution and is independent of it.
    """
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    shares, weights = (nodes + 1) / 2, weights / 2
    if settings == 2:  # the paired t interval
        freedom = seeds - 1
        variances = 2 * special.chdtri(freedom, 1 - shares) / freedom
        quantile = float(stats.t.ppf((1 + LEVEL) / 2, freedom))
        return quantile * np.sqrt(variances / seeds), weights
    freedom = 2 * (seeds - 1)
    variances = 2 * special.chdtri(freedom, 1 - shares) / freedom
    first = special.betaincinv((seeds - 1) / 2, (seeds - 1) / 2, shares)
    welch = (seeds - 1) / (first**2 + (1 - first) ** 2)
    quantiles = _range_quantiles(settings, welch) / math.sqrt(2)
    widths = np.outer(quantiles, np.sqrt(variances / seeds))
    return widths.ravel(), np.outer(weights, weights).ravel()


def _range_quantiles(means: int, freedom: Floats) -> Floats:
    """Return quantiles of the studentized range, interpolated over the degrees of freedom.

    The logarithm of the quantile is a smooth function of 1 / degrees of freedom; the error of the
    interpolation is below .01 %.
    """
    return np.asarray(np.exp(_log_quantile(means)(2 / freedom - 1)))


@cache
def _log_quantile(means: int) -> np.polynomial.Chebyshev:
    """Return the interpolation polynomial for `_range_quantiles`, over 2 / freedom - 1."""

    def log_quantiles(positions: Floats) -> Floats:
        freedom = 2 / (positions + 1)
        return np.log([range_quantile(LEVEL, means, each) for each in freedom])

    return np.polynomial.Chebyshev.interpolate(log_quantiles, _QUANTILE_NODES - 1)
