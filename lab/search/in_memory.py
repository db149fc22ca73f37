"""Optuna studies in memory, and silence of Optuna's messages on each new study."""

import logging
from collections.abc import Sequence
from typing import Literal

import optuna
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection

logging.getLogger("optuna").setLevel(logging.WARNING)  # Optuna sets it to INFO when it is imported

Direction = Literal["maximize", "minimize"]


def create_study(
    directions: Sequence[Direction | StudyDirection], sampler: BaseSampler | None = None
) -> optuna.Study:
    """Return a new study in memory.

    Args:
        directions: direction of each objective.
        sampler: sampler of the study; None for Optuna's default.
    """
    return optuna.create_study(directions=list(directions), sampler=sampler)
