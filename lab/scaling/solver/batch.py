"""Fits of K sets of runs at once: one set for data, many for bootstraps and simulations.

The law is a constant plus one power law per input: L = E + sum over i of F_i / X_i^e_i.

Letters: K sets, n runs, p inputs, P = 1 + 2p parameters.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lab.scaling.solver.huber import DELTA, Floats, normal_moments, robust_deviation
from lab.scaling.solver.outer import Solution, jacobians, minimize, minimize_from_grid
from lab.scaling.solver.power_terms import EXPONENT_BOUNDS, PowerTerms, Rows, free_terms

_SMALLEST = 1e-12  # a deviation of the noise that stands for none


@dataclass(frozen=True, kw_only=True)
class FitBatch:
    """Laws that were fitted to K sets of n runs.

    Attributes:
        terms: the models; their inputs are centered log inputs.
        centers_Kp: means of the log inputs.
        logs_Kn: logarithms of the losses.
        delta: threshold of the Huber loss.
        solution: the minima. Outer variables are the log exponents; factors are the constant and
            the values of the power laws at the centers.
        agreeing_K: number of starts that ended at the best minimum.
        residuals_Kn: log(law) - log(loss).
        deviations_K: robust standard deviations of the noise.
    """

    terms: PowerTerms
    centers_Kp: Floats
    logs_Kn: Floats
    delta: float
    solution: Solution
    agreeing_K: NDArray[np.intp]
    residuals_Kn: Floats
    deviations_K: Floats

    def take(self, rows: Rows) -> "FitBatch":
        """Return some of the fits."""
        solution = Solution(**{name: v[rows] for name, v in vars(self.solution).items()})
        return FitBatch(
            terms=self.terms.take(rows),
            centers_Kp=self.centers_Kp[rows],
            logs_Kn=self.logs_Kn[rows],
            delta=self.delta,
            solution=solution,
            agreeing_K=self.agreeing_K[rows],
            residuals_Kn=self.residuals_Kn[rows],
            deviations_K=self.deviations_K[rows],
        )

    @property
    def fitted(self) -> int:
        """Number of fitted parameters."""
        return 1 + 2 * int(self.centers_Kp.shape[1])

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the noise."""
        return int(self.logs_Kn.shape[1]) - self.fitted

    @property
    def constants_K(self) -> Floats:
        """The constants E."""
        return self.solution.factors_Kq[:, 0]

    @property
    def exponents_Kp(self) -> Floats:
        """The exponents."""
        return np.asarray(np.exp(self.solution.outer_Km))

    @property
    def power_factors_Kp(self) -> Floats:
        """The factors of the power laws of the inputs themselves, without centers."""
        return np.asarray(
            self.solution.factors_Kq[:, 1:] * np.exp(self.exponents_Kp * self.centers_Kp)
        )

    def failures(self, names: tuple[str, ...]) -> list[str]:
        """Return what is wrong with each fit; empty texts for valid ones.

        Args:
            names: names of the constant, of the factors, and of the exponents.
        """
        low, high = EXPONENT_BOUNDS
        factors = names[: len(names) // 2 + 1]
        exponents = names[len(factors) :]
        found = []
        for i, values in enumerate(self.exponents_Kp):
            text = "" if self.solution.converged_K[i] else "no start converged"
            for name, value in zip(factors, self.solution.factors_Kq[i], strict=True):
                text = f"{name} is at its bound 0" if value <= 0 else text
            for name, value in zip(exponents, values, strict=True):
                if not low * 1.001 < value < high / 1.001:
                    text = f"{name} is at its bound {low if value < 1 else high:g}"
            found.append(text)
        return found

    def valid_K(self) -> NDArray[np.bool_]:
        """Return which fits converged inside of all bounds."""
        names = ("",) * self.fitted
        return np.array([not text for text in self.failures(names)])

    def covariance_KPP(self) -> Floats:
        """Return the asymptotic covariance of the log exponents, then of `solution.factors_Kq`.

        That of an M-estimator under normal noise (Huber 1964): E psi^2 / (E psi')^2 times the
        inverse of J^T J.
        """
        jacobian = self.jacobian_KnP()
        gram = np.swapaxes(jacobian, 1, 2) @ jacobian
        scale = np.sqrt(np.maximum(np.einsum("kii->ki", gram), 1e-200))
        outer = scale[:, :, None] * scale[:, None]
        unit = gram / outer + 1e-14 * np.eye(self.fitted)
        inside, square = normal_moments(self.deviations_K, self.delta)
        return np.asarray((square / inside**2)[:, None, None] * np.linalg.inv(unit) / outer)

    def jacobian_KnP(self) -> Floats:
        """Return the derivatives of the residuals by the parameters of `covariance_KPP`."""
        rows = np.arange(len(self.logs_Kn))
        by_outer, by_factor, _ = jacobians(
            self.terms, self.logs_Kn, self.solution.outer_Km, self.solution.factors_Kq, rows
        )
        return np.concatenate([by_outer, by_factor], axis=2)

    def likelihood_scale_K(self) -> Floats:
        """Return the factor by which twice a difference of sums is divided for a chi-square.

        E psi^2 / E psi' (Ronchetti 1982), which is the variance for least squares.
        """
        inside, square = normal_moments(self.deviations_K, self.delta)
        return square / inside


def fit_batch(
    inputs_Knp: Floats, losses_Kn: Floats, delta: float = DELTA, starts: int = 2
) -> FitBatch:
    """Fit K laws, each from the best points of a grid of exponents.

    Args:
        inputs_Knp: logarithms of the inputs.
        losses_Kn: losses.
        delta: threshold of the Huber loss.
        starts: number of points of the grid from which the search starts.
    """
    terms, centers = _terms(inputs_Knp)
    solution, agreeing = minimize_from_grid(terms, np.log(losses_Kn), delta, starts=starts)
    return _batch(terms, centers, losses_Kn, delta, (solution, agreeing))


def refit_batch(
    inputs_Knp: Floats, losses_Kn: Floats, exponents_Kp: Floats, delta: float
) -> FitBatch:
    """Fit K laws, each from one start, for example that of the fit to all runs."""
    terms, centers = _terms(inputs_Knp)
    solution = minimize(terms, np.log(losses_Kn), np.log(exponents_Kp), delta)
    agreeing = np.ones(len(losses_Kn), dtype=np.intp)
    return _batch(terms, centers, losses_Kn, delta, (solution, agreeing))


def _terms(inputs_Knp: Floats) -> tuple[PowerTerms, Floats]:
    centers = inputs_Knp.mean(axis=1)
    return free_terms(inputs_Knp - centers[:, None]), centers


def _batch(
    terms: PowerTerms,
    centers: Floats,
    losses_Kn: Floats,
    delta: float,
    found: tuple[Solution, NDArray[np.intp]],
) -> FitBatch:
    solution, agreeing = found
    logs, rows = np.log(losses_Kn), np.arange(len(losses_Kn))
    residuals = jacobians(terms, logs, solution.outer_Km, solution.factors_Kq, rows)[2]
    deviations = robust_deviation(residuals, 1 + 2 * centers.shape[1])
    return FitBatch(
        terms=terms,
        centers_Kp=centers,
        logs_Kn=logs,
        delta=delta,
        solution=solution,
        agreeing_K=agreeing,
        residuals_Kn=residuals,
        deviations_K=np.maximum(deviations, _SMALLEST),
    )
