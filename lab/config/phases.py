"""Whose turn it is to learn: most objectives train all networks in every step, two take turns.

A turn is a function of the step and of the budget spent, so that a run which goes on after a
break is where it was, and what a step costs is known before it is taken.
"""

import math
from enum import Enum
from typing import NamedTuple

from lab.config.objective import Adversarial, Alternation, Objective, TwoStage


class Learns(Enum):
    """The networks whose weights a step moves."""

    ALL = "all"
    GENERATOR = "generator"
    DISCRIMINATOR = "discriminator"


class Turn(NamedTuple):
    """A step's place in its run.

    Attributes:
        learns: whose turn it is.
        progress: share of the present stage that is done, in [0, 1]; schedules go by it.
    """

    learns: Learns
    progress: float


def turn(objective: Objective, step: int, fraction: float) -> Turn:
    """Return whose turn the `step`-th step is, with `fraction` of the budget spent before it."""
    match objective:
        case TwoStage(switch=switch):
            if fraction < switch:
                return Turn(Learns.GENERATOR, fraction / switch)
            return Turn(Learns.DISCRIMINATOR, (fraction - switch) / (1 - switch))
        case Adversarial(rule=Alternation(steps=steps), adversarial_weight=weight) if weight > 0:
            # The generator can only learn from a discriminator that has learned something.
            even = step // steps % 2 == 0
            return Turn(Learns.DISCRIMINATOR if even else Learns.GENERATOR, fraction)
        case _:
            return Turn(Learns.ALL, fraction)


def shares(objective: Objective) -> dict[Learns, float]:
    """Return the share of a run that each kind of turn takes: of its budget, or of its steps.

    Stages divide the budget, alternation divides the steps.
    """
    match objective:
        case TwoStage(switch=switch):
            return {Learns.GENERATOR: switch, Learns.DISCRIMINATOR: 1 - switch}
        case Adversarial(rule=Alternation(), adversarial_weight=weight) if weight > 0:
            return {Learns.DISCRIMINATOR: 0.5, Learns.GENERATOR: 0.5}
        case _:
            return {Learns.ALL: 1.0}


def least_steps(objective: Objective) -> int:
    """Return how many steps a run needs so that every network surely has a turn.

    A step of one stage costs less than three times a step of the other.
    """
    match objective:
        case TwoStage(switch=switch):
            return math.ceil(3 / min(switch, 1 - switch))
        case Adversarial(rule=Alternation(steps=steps), adversarial_weight=weight) if weight > 0:
            return 2 * steps
        case _:
            return 1
