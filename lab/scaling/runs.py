"""The runs that laws are fitted to."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lab.errors import UserError

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One end point: a run, or a branch of one, whose learning rate has decayed.

    Attributes:
        name: name of the trial.
        parameters: number of parameters N, by the definition that the fit shall have.
        tokens: number of training tokens D.
        budget: target FLOPs of the rung.
        loss: score, smaller is better; positive.
        diverged: whether the run diverged.
        cooled_down: whether its learning rate has decayed to the end of its schedule.
        epochs: number of passes over the training data; None if unknown.
        untrained: loss of the untrained encoder of the same shape; None if unknown.
        plateau_end: tokens at which the loss leaves its plateau (`hygiene.plateau_end`); None for
            objectives without one, infinite if the run has not left it.
    """

    name: str
    parameters: float
    tokens: float
    budget: float
    loss: float
    diverged: bool = False
    cooled_down: bool = True
    epochs: float | None = None
    untrained: float | None = None
    plateau_end: float | None = None


@dataclass(frozen=True, kw_only=True)
class Points:
    """Arrays of n runs.

    Attributes:
        parameters_n: numbers of parameters.
        tokens_n: numbers of tokens.
        losses_n: losses.
        budgets_n: target FLOPs of the rungs.
    """

    parameters_n: Floats
    tokens_n: Floats
    losses_n: Floats
    budgets_n: Floats

    def __post_init__(self) -> None:
        for name, values in vars(self).items():
            if not (np.isfinite(values).all() and (values > 0).all()):
                raise UserError(f"{name.rsplit('_', 1)[0]}: not positive and finite in every run")

    def __len__(self) -> int:
        return len(self.losses_n)

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> "Points":
        """Return some of the points, by their positions or by a mask."""
        return Points(**{name: values[index] for name, values in vars(self).items()})


def points_of(runs: Iterable[Run]) -> Points:
    """Return the arrays of `runs`."""
    rows = list(runs)
    return Points(
        parameters_n=np.array([run.parameters for run in rows], dtype=float),
        tokens_n=np.array([run.tokens for run in rows], dtype=float),
        losses_n=np.array([run.loss for run in rows], dtype=float),
        budgets_n=np.array([run.budget for run in rows], dtype=float),
    )
