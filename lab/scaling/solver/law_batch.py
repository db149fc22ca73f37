"""Fits of L(N, D) to K sets of runs at once: one for data, many for bootstraps and simulations."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lab.scaling.solver.huber import DELTA, Floats, normal_moments, robust_deviation
from lab.scaling.solver.outer import Solution, jacobians, minimize, minimize_from_grid
from lab.scaling.solver.power_terms import EXPONENT_BOUNDS, PowerTerms, Rows, free_terms

FITTED = 5  # parameters of the law
_SMALLEST = 1e-12  # a deviation of the noise that stands for none


@dataclass(frozen=True, kw_only=True)
class LawBatch:
    """Fitted laws of K sets of n runs.

    Attributes:
        terms: the models; their inputs are centered log N and log D.
        centers_K2: means of log N and log D.
        logs_Kn: logarithms of the losses.
        delta: threshold of the Huber loss.
        solution: the minima. Outer variables are (log alpha, log beta), factors (E, A', B'), where
            A' and B' are the values of the terms at the centers.
        agreeing_K: number of starts that ended at the best minimum.
        residuals_Kn: log(law) - log(loss).
        deviations_K: robust standard deviations of the noise.
    """

    terms: PowerTerms
    centers_K2: Floats
    logs_Kn: Floats
    delta: float
    solution: Solution
    agreeing_K: NDArray[np.intp]
    residuals_Kn: Floats
    deviations_K: Floats

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the noise."""
        return self.logs_Kn.shape[1] - FITTED

    def failures(self) -> list[str]:
        """Return what is wrong with each fit; empty texts for valid ones."""
        low, high = EXPONENT_BOUNDS
        names = ("E", "A", "B")
        found = []
        for i, (alpha, beta) in enumerate(np.exp(self.solution.outer_Km)):
            text = "" if self.solution.converged_K[i] else "no start converged"
            for name, value in zip(names, self.solution.factors_Kq[i], strict=True):
                if value <= 0:
                    text = f"{name} is at its bound 0"
            for name, value in (("alpha", alpha), ("beta", beta)):
                if not low * 1.001 < value < high / 1.001:
                    text = f"{name} is at its bound {low if value < 1 else high:g}"
            found.append(text)
        return found

    def parameters(self) -> dict[str, Floats]:
        """Return E, A, B, alpha and beta of each law."""
        exponents = np.exp(self.solution.outer_Km)
        powers = self.solution.factors_Kq[:, 1:] * np.exp(exponents * self.centers_K2)
        return {
            "E": self.solution.factors_Kq[:, 0],
            "A": powers[:, 0],
            "B": powers[:, 1],
            "alpha": exponents[:, 0],
            "beta": exponents[:, 1],
        }

    def covariance_K55(self) -> Floats:
        """Return the asymptotic covariance of (log alpha, log beta, E, A', B').

        That of an M-estimator under normal noise (Huber 1964): E psi^2 / (E psi')^2 times the
        inverse of J^T J.
        """
        rows = np.arange(len(self.logs_Kn))
        by_outer, by_factor, _ = jacobians(
            self.terms, self.logs_Kn, self.solution.outer_Km, self.solution.factors_Kq, rows
        )
        jacobian = np.concatenate([by_outer, by_factor], axis=2)
        gram = np.swapaxes(jacobian, 1, 2) @ jacobian
        scale = np.sqrt(np.maximum(np.einsum("kii->ki", gram), 1e-300))
        unit = gram / (scale[:, :, None] * scale[:, None]) + 1e-14 * np.eye(FITTED)
        inside, square = normal_moments(self.deviations_K, self.delta)
        factor = (square / inside**2)[:, None, None]
        return np.asarray(factor * np.linalg.inv(unit) / (scale[:, :, None] * scale[:, None]))

    def standard_errors(self) -> dict[str, Floats]:
        """Return the asymptotic standard errors of E, A, B, alpha and beta."""
        covariance = self.covariance_K55()
        found = self.parameters()
        gradients = {name: np.zeros((len(self.logs_Kn), FITTED)) for name in found}
        gradients["E"][:, 2] = 1.0
        for i, (factor, exponent) in enumerate((("A", "alpha"), ("B", "beta"))):
            gradients[exponent][:, i] = found[exponent]
            gradients[factor][:, i] = found[factor] * found[exponent] * self.centers_K2[:, i]
            gradients[factor][:, 3 + i] = found[factor] / self.solution.factors_Kq[:, 1 + i]
        return {
            name: np.sqrt(np.einsum("ki,kij,kj->k", g, covariance, g))
            for name, g in gradients.items()
        }

    def likelihood_scale_K(self) -> Floats:
        """Return the factor by which twice a difference of sums is divided for a chi-square.

        E psi^2 / E psi' (Ronchetti 1982), which is the variance for least squares.
        """
        inside, square = normal_moments(self.deviations_K, self.delta)
        return square / inside


def fit_batch(
    parameters_Kn: Floats,
    tokens_Kn: Floats,
    losses_Kn: Floats,
    delta: float = DELTA,
    starts: int = 2,
) -> LawBatch:
    """Fit K laws, each from the best points of a grid of exponents."""
    terms, centers = _terms(parameters_Kn, tokens_Kn)
    logs = np.log(losses_Kn)
    solution, agreeing = minimize_from_grid(terms, logs, delta, starts=starts)
    return _batch(terms, centers, logs, delta, (solution, agreeing))


def refit_batch(
    parameters_Kn: Floats,
    tokens_Kn: Floats,
    losses_Kn: Floats,
    delta: float,
    exponents_K2: Floats,
) -> LawBatch:
    """Fit K laws, each from one start, for example that of the fit to all runs."""
    terms, centers = _terms(parameters_Kn, tokens_Kn)
    logs = np.log(losses_Kn)
    solution = minimize(terms, logs, np.log(exponents_K2), delta)
    return _batch(terms, centers, logs, delta, (solution, np.ones(len(logs), dtype=np.intp)))


def _terms(parameters_Kn: Floats, tokens_Kn: Floats) -> tuple[PowerTerms, Floats]:
    inputs = np.log(np.stack([parameters_Kn, tokens_Kn], axis=2))
    centers = inputs.mean(axis=1)
    return free_terms(inputs - centers[:, None]), centers


def _batch(
    terms: PowerTerms,
    centers: Floats,
    logs: Floats,
    delta: float,
    found: tuple[Solution, NDArray[np.intp]],
) -> LawBatch:
    solution, agreeing = found
    rows: Rows = np.arange(len(logs))
    residuals = jacobians(terms, logs, solution.outer_Km, solution.factors_Kq, rows)[2]
    return LawBatch(
        terms=terms,
        centers_K2=centers,
        logs_Kn=logs,
        delta=delta,
        solution=solution,
        agreeing_K=agreeing,
        residuals_Kn=residuals,
        deviations_K=np.maximum(robust_deviation(residuals, FITTED), _SMALLEST),
    )
