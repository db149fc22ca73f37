"""The scaling law L(N, D) = E + A / N^alpha + B / D^beta and its fit.

Hoffmann et al. (2022, approach 3), with the objective of the refit of Besiroglu et al. (2024): the
Huber loss of log L with delta = 1e-3, summed over the runs. The fit is by variable projection from
many starts (`lab.scaling.solver`), and fails if no start converges or if a parameter is at a bound.
"""

from dataclasses import dataclass, replace

import numpy as np

from lab.errors import UserError
from lab.scaling.runs import Points
from lab.scaling.solver.huber import DELTA, Floats
from lab.scaling.solver.law_batch import LawBatch, fit_batch

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
        return np.asarray(
            self.E + self.A * parameters**-self.alpha + self.B * tokens**-self.beta, dtype=float
        )

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
        starts: number of starts that ended at the best minimum, of those that were tried.
        batch: the solution, for functions of this package.
    """

    law: Law
    points: Points
    residuals_n: Floats
    deviation: float
    errors: Law
    starts: int
    batch: LawBatch


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
    one = replace(points, **{name: values[None] for name, values in vars(points).items()})
    batch = fit_batch(one.parameters_n, one.tokens_n, one.losses_n, delta, starts)
    problem = batch.failures()[0]
    if problem:
        raise FitError(f"no law L(N, D) for these {len(points)} runs: {problem}")
    return LawFit(
        law=law_at(batch, 0),
        points=points,
        residuals_n=batch.residuals_Kn[0],
        deviation=float(batch.deviations_K[0]),
        errors=Law(**{name: float(values[0]) for name, values in batch.standard_errors().items()}),
        starts=int(batch.agreeing_K[0]),
        batch=batch,
    )


def law_at(batch: LawBatch, index: int) -> Law:
    """Return one law of a batch."""
    return Law(**{name: float(values[index]) for name, values in batch.parameters().items()})


def _check(points: Points) -> None:
    if len(points) < FEWEST_RUNS:
        raise FitError(f"a law L(N, D) needs {FEWEST_RUNS} runs or more, got {len(points)}")
    for name, values in (("sizes", points.parameters_n), ("token counts", points.tokens_n)):
        found = len(np.unique(values))
        if found < _FEWEST_VALUES:
            raise FitError(f"a law L(N, D) needs {_FEWEST_VALUES} {name} or more, got {found}")
