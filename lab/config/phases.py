"""Whose turn it is to learn: most objectives train all networks in every step, two take turns.

A turn is a function of the step and of the budget spent, so that a run which goes on after a
break is where it was, and what a step costs is known before it is taken.
"""

import math
from enum import Enum
from typing import NamedTuple

from lab.config.objective import (
    AdversarialConfig,
    AlternationConfig,
    AnyObjectiveConfig,
    TwoStageConfig,
)


class UpdatedNetworks(Enum):
    """The networks whose weights a step moves."""

    ALL = "all"
    GENERATOR = "generator"
    DISCRIMINATOR = "discriminator"


class Phase(NamedTuple):
    """A step's place in its run.

    Attributes:
        learns: whose turn it is.
        progress: share of the present stage that is done, in [0, 1]; schedules go by it.
    """

    learns: UpdatedNetworks
    progress: float


def phase_at(objective: AnyObjectiveConfig, step: int, fraction: float) -> Phase:
    """Return whose turn the `step`-th step is, with `fraction` of the budget spent before it."""
    match objective:
        case TwoStageConfig(switch=switch):
            if fraction < switch:
                return Phase(UpdatedNetworks.GENERATOR, fraction / switch)
            return Phase(UpdatedNetworks.DISCRIMINATOR, (fraction - switch) / (1 - switch))
        case AdversarialConfig(rule=AlternationConfig(steps=steps), adversarial_weight=weight) if (
            weight > 0
        ):
            # The generator can only learn from a discriminator that has learned something.
            even = step // steps % 2 == 0
            return Phase(
                UpdatedNetworks.DISCRIMINATOR if even else UpdatedNetworks.GENERATOR, fraction
            )
        case _:
            return Phase(UpdatedNetworks.ALL, fraction)


def phase_shares(objective: AnyObjectiveConfig) -> dict[UpdatedNetworks, float]:
    """Return the share of a run that each kind of turn takes: of its budget, or of its steps.

    Stages divide the budget, alternation divides the steps.
    """
    match objective:
        case TwoStageConfig(switch=switch):
            return {UpdatedNetworks.GENERATOR: switch, UpdatedNetworks.DISCRIMINATOR: 1 - switch}
        case AdversarialConfig(rule=AlternationConfig(), adversarial_weight=weight) if weight > 0:
            return {UpdatedNetworks.DISCRIMINATOR: 0.5, UpdatedNetworks.GENERATOR: 0.5}
        case _:
            return {UpdatedNetworks.ALL: 1.0}


def minimum_steps(objective: AnyObjectiveConfig) -> int:
    """Return how many steps a run needs so that every network surely has a turn.

    A step of one stage costs less than three times a step of the other.
    """
    match objective:
        case TwoStageConfig(switch=switch):
            return math.ceil(3 / min(switch, 1 - switch))
        case AdversarialConfig(rule=AlternationConfig(steps=steps), adversarial_weight=weight) if (
            weight > 0
        ):
            return 2 * steps
        case _:
            return 1
