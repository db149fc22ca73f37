"""Loss of a detector after its logits have been calibrated on other windows.

A discriminator's probabilities are calibrated to the share of replaced tokens in its training, so
its loss on another corruption depends on generator, mask rate and objective. Temperature and bias
(Platt 1999) remove that dependence: what remains is how well the logits separate replaced from
original tokens.

Letters: M scored tokens.
"""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_BLOCKS = 16  # contiguous blocks, which the two halves take in turn
_BOUNDS = ((0.0, 1e3), (-50.0, 50.0))  # of slope and bias on standardised logits

Floats = npt.NDArray[np.float64]


def calibrated_losses(logits_M: Tensor, replaced_M: Tensor) -> Tensor:
    """Return the loss of each token in nats, shape (M,); NaN if a logit is not finite.

    Slope (the inverse temperature, at least 0) and bias are fitted on one half and evaluated on the
    other one, in both directions. A detector that does not separate the two classes gets the loss
    of a constant prediction, the entropy of the share of replaced tokens.

    Args:
        logits_M: logits of at least two scored tokens, in the order of the windows; positive means
            replaced.
        replaced_M: whether each token is replaced.
    """
    if not logits_M.isfinite().all():
        return torch.full((len(logits_M),), math.nan, dtype=torch.float64)
    logits = (logits_M - logits_M.mean()) / logits_M.std().clamp(min=1e-12)
    x, signs = (tensor.double().numpy() for tensor in (logits, replaced_M * 2.0 - 1))
    halves = alternate_halves(len(x)).numpy()
    losses = np.empty(len(x))
    for half in (False, True):
        fitted, scored = halves == half, halves != half
        slope, bias = fit_calibration(x[fitted], signs[fitted])
        losses[scored] = logistic_losses(slope, bias, x[scored], signs[scored])
    return torch.from_numpy(losses)


def fit_calibration(x_M: Floats, signs_M: Floats) -> tuple[float, float]:
    """Return the slope and the bias that minimise the logistic loss, with slope at least 0.

    Args:
        x_M: logits.
        signs_M: 1 for a replaced token, -1 for an original one.
    """
    from scipy import optimize

    def value_and_gradient(parameters: Floats) -> tuple[float, Floats]:
        slope, bias = parameters
        losses_M = logistic_losses(slope, bias, x_M, signs_M)
        slopes_M = -signs_M * -np.expm1(-losses_M)  # -sign * sigmoid(-sign * logit)
        return float(losses_M.mean()), np.array([(slopes_M * x_M).mean(), slopes_M.mean()])

    fit = optimize.minimize(
        value_and_gradient, np.zeros(2), jac=True, method="L-BFGS-B", bounds=_BOUNDS,
        options={"ftol": 1e-14, "gtol": 1e-9},
    )  # fmt: skip
    return float(fit.x[0]), float(fit.x[1])


def alternate_halves(count: int) -> Tensor:
    """Return the half of each of `count` items of a text in the order of its documents, bool.

    Contiguous blocks alternate between the halves, so few documents are in both, and both have all
    parts of a mixture.
    """
    blocks = min(_BLOCKS, max(1, count))
    return torch.arange(count) * blocks // max(1, count) % 2 == 1


def logistic_losses(slope: float, bias: float, x_M: Floats, signs_M: Floats) -> Floats:
    """Return the loss of each token in nats, shape (M,); the arguments are as in the fit."""
    losses_M: Floats = np.logaddexp(0.0, -signs_M * (slope * x_M + bias))
    return losses_M
