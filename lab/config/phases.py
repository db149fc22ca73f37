"""Networks that a step updates.

Most objectives update all of them in every step; two-stage training and alternation update one at a
time. The phase of a step is a function of the step's number and of the spent share of the budget.
A resumed run therefore continues in the same phase, and the cost of a step is known in advance.
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
    """Networks that a step updates."""

    ALL = "all"
    GENERATOR = "generator"
    DISCRIMINATOR = "discriminator"


class Phase(NamedTuple):
    """Phase of a step.

    Attributes:
        learns: the networks that the step updates.
        progress: completed share of the current stage, in [0, 1]; the argument of schedules.
    """

    learns: UpdatedNetworks
    progress: float


def phase_at(objective: AnyObjectiveConfig, step: int, fraction: float) -> Phase:
    """Return the phase of step `step`, before which `fraction` of the budget is spent."""
    match objective:
        case TwoStageConfig(switch=switch):
            if fraction < switch:
                return Phase(UpdatedNetworks.GENERATOR, fraction / switch)
            return Phase(UpdatedNetworks.DISCRIMINATOR, (fraction - switch) / (1 - switch))
        case AdversarialConfig(rule=AlternationConfig(steps=steps), adversarial_weight=weight) if (
            weight > 0
        ):
            # The discriminator is first, since the generator is trained on its predictions.
            even = step // steps % 2 == 0
            return Phase(
                UpdatedNetworks.DISCRIMINATOR if even else UpdatedNetworks.GENERATOR, fraction
            )
        case _:
            return Phase(UpdatedNetworks.ALL, fraction)


def phase_shares(objective: AnyObjectiveConfig) -> dict[UpdatedNetworks, float]:
    """Return the share of a run in which each set of networks is updated.

    The shares are those of the budget for two-stage training, and of the steps for alternation.
    """
    match objective:
        case TwoStageConfig(switch=switch):
            return {UpdatedNetworks.GENERATOR: switch, UpdatedNetworks.DISCRIMINATOR: 1 - switch}
        case AdversarialConfig(rule=AlternationConfig(), adversarial_weight=weight) if weight > 0:
            return {UpdatedNetworks.DISCRIMINATOR: 0.5, UpdatedNetworks.GENERATOR: 0.5}
        case _:
            return {UpdatedNetworks.ALL: 1.0}


def minimum_steps(objective: AnyObjectiveConfig) -> int:
    """Return the smallest number of steps of a run in which every network is updated.

    For two-stage training it assumes that a step of one stage costs less than three times a step
    of the other.
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
