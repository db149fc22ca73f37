"""Quantiles of the studentized range by quadrature: equal to SciPy's, which take .1 s each."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

Floats = NDArray[np.float64]

_Z = np.arange(-8.5, 8.6, 0.2)  # nodes of a trapezoidal rule; the integrand vanishes at both ends
_DENSITY = 0.2 * np.exp(-(_Z**2) / 2) / math.sqrt(2 * math.pi)


def range_quantile(level: float, means: int, freedom: float) -> float:
    """Return the quantile of the range of `means` means, divided by an estimated deviation.

    The probability is the mean over the deviation s, where freedom * s^2 has a chi-squared
    distribution, of that of the range of normal values (Lund and Lund 1983).

    Args:
        level: probability of a smaller range.
        means: number of means.
        freedom: degrees of freedom of the deviation; may be infinite.
    """
    logs, weights = _log_deviations(freedom, means)

    def excess(log_quantile: float) -> float:
        return float(weights @ _normal_range(np.exp(log_quantile + logs), means)) - level

    return math.exp(optimize.brentq(excess, -3.0, 7.0, xtol=1e-10))


def _log_deviations(freedom: float, means: int) -> tuple[Floats, Floats]:
    """Return nodes of log s and their weights. The sum of the weights is 1."""
    if math.isinf(freedom):
        return np.zeros(1), np.ones(1)
    width = 8 / math.sqrt(2 * freedom)
    nodes = np.linspace(-width - 22 / (freedom + means - 1), width, 240)
    density = freedom * (nodes - (np.exp(2 * nodes) - 1) / 2)
    log_constant = special.gammaln(freedom / 2) + freedom / 2 * (1 - math.log(freedom / 2))
    step = float(nodes[1] - nodes[0])
    return nodes, step * 2 * np.exp(density - log_constant)


def _normal_range(widths: Floats, means: int) -> Floats:
    """Return the probabilities that the range of normal values is below each width."""
    inside = special.ndtr(_Z[:, None]) - special.ndtr(_Z[:, None] - widths)
    return np.asarray(means * _DENSITY @ inside ** (means - 1))
