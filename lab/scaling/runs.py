"""The runs that laws are fitted to."""

from collections.abc import Iterable, Sequence
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
        trunk: name of the trunk that the run branches from; empty for an independent run. Runs of
            one trunk are not independent of each other.
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
    trunk: str = ""


@dataclass(frozen=True, kw_only=True)
class Points:
    """Arrays of n runs.

    Attributes:
        parameters_n: numbers of parameters.
        tokens_n: numbers of tokens.
        losses_n: losses.
        budgets_n: target FLOPs of the rungs.
        groups_n: numbers of the groups of runs that are not independent of each other; None if all
            runs are independent.
    """

    parameters_n: Floats
    tokens_n: Floats
    losses_n: Floats
    budgets_n: Floats
    groups_n: NDArray[np.intp] | None = None

    def __post_init__(self) -> None:
        for name, values in vars(self).items():
            if name != "groups_n" and not (np.isfinite(values).all() and (values > 0).all()):
                raise UserError(f"{name.rsplit('_', 1)[0]}: not positive and finite in every run")

    def __len__(self) -> int:
        return len(self.losses_n)

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> "Points":
        """Return some of the points, by their positions or by a mask."""
        arrays = {name: values for name, values in vars(self).items() if values is not None}
        return Points(**{name: values[index] for name, values in arrays.items()})


def points_of(runs: Iterable[Run]) -> Points:
    """Return the arrays of `runs`."""
    rows = list(runs)
    return Points(
        parameters_n=np.array([run.parameters for run in rows], dtype=float),
        tokens_n=np.array([run.tokens for run in rows], dtype=float),
        losses_n=np.array([run.loss for run in rows], dtype=float),
        budgets_n=np.array([run.budget for run in rows], dtype=float),
        groups_n=_groups_of(rows),
    )


def _groups_of(runs: Sequence[Run]) -> NDArray[np.intp] | None:
    """Return a number for each run, equal for the runs of one trunk; None without any trunk."""
    if not any(run.trunk for run in runs):
        return None
    names = [(run.trunk, -1 if run.trunk else i) for i, run in enumerate(runs)]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names])
