"""Losses at other sizes and token counts, with intervals.

The interval of the expected loss is its profile likelihood: the loss at the point is held at a
value and the other parameters are fitted again. The interval of the mean of new runs adds their
noise: sqrt(h^2 + t^2 s^2 / seeds) replaces the half-width h on each side.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from lab.scaling.law import LawFit
from lab.scaling.solver.batch import FitBatch
from lab.scaling.solver.huber import Floats, quantile
from lab.scaling.solver.power_terms import PowerTerms
from lab.scaling.solver.profile import Quantity, profile_ends

LEVEL = 0.9


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A predicted loss.

    Attributes:
        loss: expected loss.
        low: lower end of the interval of the expected loss; 0 if the runs do not limit it.
        high: upper end; infinite if the runs do not limit it.
        noise: half-width of the interval of the log loss of one new run around the expected one.
        level: nominal coverage.
    """

    loss: float
    low: float
    high: float
    noise: float
    level: float

    def mean_ends(self, seeds: int) -> tuple[float, float]:
        """Return the ends of the interval of the mean of `seeds` new runs.

        It contains no error of the finite test set: new runs are scored on the same one.
        """
        noise = self.noise / math.sqrt(seeds)
        below = math.inf if self.low == 0 else math.log(self.loss / self.low)
        return (
            self.loss * math.exp(-math.hypot(below, noise)),
            self.loss * math.exp(math.hypot(math.log(self.high / self.loss), noise)),
        )


def predict_losses(
    fit: LawFit, parameters_P: Floats, tokens_P: Floats, level: float = LEVEL
) -> tuple[Prediction, ...]:
    """Return the losses at P pairs of size and token count."""
    return predict_points(fit.batch, np.log(np.stack([parameters_P, tokens_P], axis=1)), level)


def predict_points(batch: FitBatch, points_Pp: Floats, level: float) -> tuple[Prediction, ...]:
    """Return the losses of the first law of a batch at P points.

    Args:
        batch: the law.
        points_Pp: logarithms of the inputs.
        level: nominal coverage.
    """
    repeated = batch.take(np.zeros(len(points_Pp), dtype=np.intp))
    estimates, below, above = _expected_losses(repeated, points_Pp, level)
    return tuple(
        Prediction(loss=float(loss), low=float(low), high=float(high), noise=noise, level=level)
        for loss, low, high, noise in zip(
            estimates,
            estimates * np.exp(-below),
            estimates * np.exp(above),
            _noise(repeated, level).tolist(),
            strict=True,
        )
    )


def predict_batch(
    batch: FitBatch, points_Kp: Floats, seeds: int, level: float
) -> tuple[Floats, Floats, Floats]:
    """Return the expected losses of K laws and the ends of the intervals of means of new runs.

    Args:
        batch: the laws.
        points_Kp: logarithms of the inputs.
        seeds: number of new runs of which the mean is meant.
        level: nominal coverage.
    """
    estimates, *halves = _expected_losses(batch, points_Kp, level)
    noise = _noise(batch, level) / np.sqrt(seeds)
    below, above = (np.hypot(half, noise) for half in halves)
    return estimates, estimates * np.exp(-below), estimates * np.exp(above)


def _noise(batch: FitBatch, level: float) -> Floats:
    return np.asarray(quantile(level, batch.freedom) * batch.deviations_K)


def _expected_losses(
    batch: FitBatch, points_Kp: Floats, level: float
) -> tuple[Floats, Floats, Floats]:
    """Return the expected losses of K laws, and how far their intervals reach on a log scale."""
    reference = points_Kp - batch.centers_Kp
    estimates = losses_at(batch, reference)
    gradient = loss_gradients_KP(batch, reference)
    variance = np.einsum("ki,kij,kj->k", gradient, batch.covariance_KPP(), gradient)

    def restrict(logs_K: Floats) -> PowerTerms:
        return replace(batch.terms, constant_K=np.exp(logs_K), reference_Kp=reference)

    quantity = Quantity(
        estimates_K=np.log(estimates),
        errors_K=np.sqrt(np.maximum(variance, 0.0)) / estimates,
        limits=(float(np.log(estimates).min()) - 3.0, float(np.log(estimates).max()) + 3.0),
        restrict=restrict,
        starts=batch.solution.outer_Km,
    )
    low, high = profile_ends(batch, quantity, level)
    return estimates, np.log(estimates) - low, high - np.log(estimates)


def losses_at(batch: FitBatch, centered_Kp: Floats) -> Floats:
    """Return the losses of K laws at centered log inputs."""
    powers = batch.solution.factors_Kq[:, 1:] * np.exp(-batch.exponents_Kp * centered_Kp)
    return np.asarray(batch.constants_K + powers.sum(axis=1))


def loss_gradients_KP(batch: FitBatch, centered_Kp: Floats) -> Floats:
    """Return the derivatives of the losses by the parameters of `FitBatch.covariance_KPP`."""
    columns = np.exp(-batch.exponents_Kp * centered_Kp)
    powers = batch.solution.factors_Kq[:, 1:] * columns
    ones = np.ones((len(columns), 1))
    return np.concatenate([-batch.exponents_Kp * centered_Kp * powers, ones, columns], axis=1)
