"""The Huber loss and the moments by which fits are turned into intervals.

Huber (1964): quadratic up to delta, linear beyond. Hoffmann et al. (2022) and the refit of
Besiroglu et al. (2024) sum it over the logarithms of the losses with delta = 1e-3. Where the noise
is larger than delta, this is close to the sum of absolute errors.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

DELTA = 1e-3


def huber(residuals: Floats, delta: float) -> Floats:
    """Return the Huber loss of each residual."""
    size = np.abs(residuals)
    return np.where(size <= delta, 0.5 * size**2, delta * (size - 0.5 * delta))


def weights(residuals: Floats, delta: float) -> Floats:
    """Return the weights of iteratively reweighted least squares: 1 inside, delta / |r| outside."""
    return delta / np.maximum(np.abs(residuals), delta)


def newton_weights(residuals: Floats, delta: float) -> Floats:
    """Return the second derivatives of the loss: 1 inside, 0 outside.

    A tenth of `weights` replaces the 0, so that matrices stay regular.
    """
    return np.where(np.abs(residuals) <= delta, 1.0, 0.1 * weights(residuals, delta))


def normal_moments(deviations: Floats, delta: float) -> tuple[Floats, Floats]:
    """Return E psi' and E psi^2 under normal noise, where psi is the derivative of the Huber loss.

    Args:
        deviations: standard deviations of the noise; positive.
        delta: threshold of the Huber loss.
    """
    c = delta / deviations
    inside = 2 * stats.norm.cdf(c) - 1
    square = deviations**2 * (inside - 2 * c * stats.norm.pdf(c)) + delta**2 * (1 - inside)
    return np.asarray(inside), np.asarray(square)


def robust_deviation(residuals_Kn: Floats, fitted: int) -> Floats:
    """Return the standard deviation of normal noise that explains the size of most residuals.

    The median absolute residual, among the n - p largest ones: a fit with p parameters by absolute
    errors passes through p points (as in Koenker's `quantreg`). Outliers hardly change it.

    Args:
        residuals_Kn: residuals of K fits to n points.
        fitted: number p of fitted parameters; smaller than n.

    Returns:
        Shape (K,).
    """
    sizes = np.sort(np.abs(residuals_Kn), axis=1)[:, fitted:]
    return np.asarray(np.median(sizes, axis=1) / stats.norm.ppf(0.75))


def quantile(level: float, freedom: int) -> float:
    """Return the two-sided quantile of the t distribution."""
    return float(stats.t.ppf((1 + level) / 2, freedom))
