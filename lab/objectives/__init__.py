"""The family of objectives: what a trial minimises."""

from typing import assert_never

from torch import Tensor

from lab import spec
from lab.objectives.base import Detector, Loss, Objective
from lab.objectives.electra import Electra
from lab.objectives.mlm import Mlm

__all__ = ["Detector", "Electra", "Loss", "Mlm", "Objective", "build"]


def build(trial: spec.Trial, counts_V: Tensor) -> Objective:
    """Return the trial's objective with its initial weights.

    Args:
        trial: shape, objective and seeds.
        counts_V: how often each token stands in the training text; the vocabulary head starts
            at these frequencies.
    """
    match trial.objective:
        case spec.Electra():
            return Electra(trial, trial.objective, counts_V)
        case spec.Mlm():
            return Mlm(trial, trial.objective, counts_V)
        case _:
            assert_never(trial.objective)
