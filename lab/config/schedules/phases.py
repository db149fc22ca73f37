"""Phases of a run: the networks that a step updates, and the progress of the phase."""

from enum import Enum
from typing import NamedTuple


class UpdatedNetworks(Enum):
    """Networks that a step updates."""

    ALL = "all"
    GENERATOR = "generator"
    DISCRIMINATOR = "discriminator"


class Phase(NamedTuple):
    """The phase that a step belongs to.

    Attributes:
        updates: networks that the step updates.
        progress: share of the phase that is done, in [0, 1]; schedules are functions of it.
    """

    updates: UpdatedNetworks
    progress: float
