"""The scaling law L(N, D) = E + A / N^alpha + B / D^beta and its fit.

Hoffmann et al. (2022, approach 3), with the objective of the refit of Besiroglu et al. (2024): the
Huber loss of log L with delta = 1e-3, summed over the runs. The fit is by variable projection from
many starts (`lab.scaling.solver`), and fails if no start converges or if a parameter is at a bound.
"""

from dataclasses import dataclass

import numpy as np

from lab.errors import UserError
from lab.scaling.runs import Points
from lab.scaling.solver.batch import FitBatch, fit_batch
from lab.scaling.solver.huber import DELTA, Floats

NAMES = ("E", "A", "B", "alpha", "beta")
FEWEST_RUNS = 8  # five parameters and three degrees of freedom for the noise
_FEWEST_VALUES = 3  # sizes, and token counts: an exponent and a constant need three


class FitError(UserError):
    """Raised if a law cannot be fitted to the runs. The message says why."""


@dataclass(frozen=True, kw_only=True)
class Law:
    """L(N, D) = E + A / N^alpha + B / D^beta.

    Attributes:
        E: loss of unlimited size and data.
        A: factor of the term of the size.
        B: factor of the term of the data.
        alpha: exponent of the size.
        beta: exponent of the data.
    """

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, parameters: Floats, tokens: Floats) -> Floats:
        """Return the loss at each pair of parameters and tokens."""
        size, data = self.A * parameters**-self.alpha, self.B * tokens**-self.beta
        return np.asarray(self.E + size + data, dtype=float)

    @property
    def allocation(self) -> float:
        """Exponent a of the optimal size N ~ C^a where FLOPs are proportional to N D."""
        return self.beta / (self.alpha + self.beta)


@dataclass(frozen=True, kw_only=True)
class LawFit:
    """A fitted law.

    Attributes:
        law: the law.
        points: the runs.
        residuals_n: log(law) - log(loss) of each run.
        deviation: standard deviation of the noise of log losses, robust against outliers.
        errors: asymptotic standard errors of the parameters. Intervals are those of
            `lab.scaling.profiles`, which are not symmetric.
        agreeing: number of starts that ended at the best minimum.
        starts: number of starts.
        batch: the solution, for functions of this package.
    """

    law: Law
    points: Points
    residuals_n: Floats
    deviation: float
    errors: Law
    agreeing: int
    starts: int
    batch: FitBatch


def fit_law(points: Points, delta: float = DELTA, starts: int = 16) -> LawFit:
    """Fit the law.

    Args:
        points: the runs, after `hygiene.select_runs`.
        delta: threshold of the Huber loss of log losses.
        starts: number of points of a grid of exponents from which the search starts.

    Raises:
        FitError: there are too few runs, sizes or token counts; no start converged; or a parameter
            is at a bound, so that the runs do not determine it.
    """
    _check(points)
    batch = fit_batch(log_inputs(points)[None], points.losses_n[None], delta, starts)
    problem = batch.failures(NAMES)[0]
    if problem:
        raise FitError(f"no law L(N, D) for these {len(points)} runs: {problem}")
    return LawFit(
        law=law_at(batch, 0),
        points=points,
        residuals_n=batch.residuals_Kn[0],
        deviation=float(batch.deviations_K[0]),
        errors=_standard_errors(batch),
        agreeing=int(batch.agreeing_K[0]),
        starts=starts,
        batch=batch,
    )


def log_inputs(points: Points) -> Floats:
    """Return log N and log D, of shape (n, 2)."""
    return np.log(np.stack([points.parameters_n, points.tokens_n], axis=1))


def laws_of(batch: FitBatch) -> dict[str, Floats]:
    """Return E, A, B, alpha and beta of K laws by name."""
    parts = [batch.constants_K[:, None], batch.power_factors_Kp, batch.exponents_Kp]
    return dict(zip(NAMES, np.concatenate(parts, axis=1).T, strict=True))


def law_at(batch: FitBatch, index: int) -> Law:
    """Return one law of a batch."""
    return Law(**{name: float(values[index]) for name, values in laws_of(batch).items()})


def _standard_errors(batch: FitBatch) -> Law:
    """Return the asymptotic standard errors of the parameters of the first law."""
    law, covariance = law_at(batch, 0), batch.covariance_KPP()[0]
    gradients = np.zeros((5, 5))  # of NAMES by (log alpha, log beta, E, A', B')
    gradients[0, 2] = 1.0
    for i, (factor, exponent) in enumerate(((law.A, law.alpha), (law.B, law.beta))):
        gradients[3 + i, i] = exponent
        gradients[1 + i, i] = factor * exponent * batch.centers_Kp[0, i]
        gradients[1 + i, 3 + i] = factor / batch.solution.factors_Kq[0, 1 + i]
    errors = np.sqrt(np.einsum("ai,ij,aj->a", gradients, covariance, gradients))
    return Law(**dict(zip(NAMES, map(float, errors), strict=True)))


def _check(points: Points) -> None:
    if len(points) < FEWEST_RUNS:
        raise FitError(f"a law L(N, D) needs {FEWEST_RUNS} runs or more, got {len(points)}")
    for name, values in (("sizes", points.parameters_n), ("token counts", points.tokens_n)):
        found = len(np.unique(values))
        if found < _FEWEST_VALUES:
            raise FitError(f"a law L(N, D) needs {_FEWEST_VALUES} {name} or more, got {found}")
