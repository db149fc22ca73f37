"""FLOPs of a training run as a function of parameters and tokens.

FLOPs are analytic (`lab.config.flops`) and proportional to the tokens of a run whose settings do
not vary, so a size has a number of FLOPs per token: C = g(N) D.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from lab.errors import UserError

Floats = NDArray[np.float64]
FlopsPerToken = Callable[[Floats], Floats]  # of numbers of parameters, any shape

_STEP = 1e-3


def proportional(factor: float) -> FlopsPerToken:
    """Return g(N) = factor N; the factor is 6 in the papers on language models."""
    return lambda parameters: factor * parameters


def interpolated(parameters: Floats, flops_per_token: Floats) -> FlopsPerToken:
    """Return a monotone interpolation of log FLOPs per token over log parameters.

    Beyond the sizes, the line goes on with its slope at the end (Fritsch and Carlson 1980 inside).

    Args:
        parameters: at least two sizes, in any order, all different.
        flops_per_token: FLOPs per token of each, all different.
    """
    order = np.argsort(parameters)
    x, y = np.log(parameters)[order], np.log(flops_per_token)[order]
    if len(x) < 2 or not (np.diff(x) > 0).all() or not (np.diff(y) > 0).all():
        raise UserError(
            "FLOPs per token: needs two or more sizes, each larger and dearer than the one below"
        )
    inside = PchipInterpolator(x, y)
    slopes = inside.derivative()(x)

    def evaluate(sizes: Floats) -> Floats:
        at = np.log(sizes)
        near = np.clip(at, x[0], x[-1])
        slope = np.where(at < x[0], slopes[0], slopes[-1])
        return np.asarray(np.exp(inside(near) + slope * (at - near)))

    return evaluate


def size_elasticity(per_token: FlopsPerToken, parameters: Floats) -> Floats:
    """Return d log FLOPs / d log parameters at a constant number of tokens."""
    high, low = parameters * np.exp(_STEP), parameters * np.exp(-_STEP)
    return np.asarray(np.log(per_token(high) / per_token(low)) / (2 * _STEP))
