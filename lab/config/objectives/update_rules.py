"""Which network a step of adversarial training updates: both, or one in turn."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from typing_extensions import override

from lab.config.architecture import Count
from lab.config.base import StrictConfig
from lab.config.schedules.phases import UpdatedNetworks


@dataclass(frozen=True, kw_only=True)
class ReinforceConfig(StrictConfig):
    """Both networks are updated in each step, as in the paper's appendix F."""

    kind: Literal["reinforce"]


@dataclass(frozen=True, kw_only=True)
class TurnsConfig(StrictConfig, ABC):
    """The networks are updated in turn; a step does not update the other network.

    Weights that both networks share are updated in each step.

    Attributes:
        first: network of the first turn.
    """

    first: Literal["discriminator", "generator"] = "discriminator"

    @abstractmethod
    def turn_at(self, step: int, epoch: int) -> int:
        """Return the number of the turn, from 0, that a step of an epoch belongs to."""

    def updates_at(self, step: int, epoch: int) -> UpdatedNetworks:
        """Return the network that a step updates."""
        turns = [UpdatedNetworks.DISCRIMINATOR, UpdatedNetworks.GENERATOR]
        if self.first == "generator":
            turns.reverse()
        return turns[self.turn_at(step, epoch) % 2]

    def minimum_steps(self) -> int:
        """Return the number of steps of one turn of each network, where it is known."""
        return 2

    def minimum_epochs(self) -> int:
        """Return the number of full epochs before the second network's first turn."""
        return 0


@dataclass(frozen=True, kw_only=True)
class AlternationConfig(TurnsConfig):
    """The networks are updated in turn, each for a number of steps.

    Attributes:
        steps: consecutive steps that update one network.
    """

    kind: Literal["alternation"]
    steps: Count = 1

    @override
    def turn_at(self, step: int, epoch: int) -> int:
        return step // self.steps

    @override
    def minimum_steps(self) -> int:
        return 2 * self.steps


@dataclass(frozen=True, kw_only=True)
class EpochAlternationConfig(TurnsConfig):
    """The networks are updated in turn, each for a number of epochs.

    An epoch reads the training text once. The planned cost of a trial assumes that both networks
    have half of the steps; the recorded cost is that of the actual steps.

    Attributes:
        epochs: consecutive epochs that update one network.
    """

    kind: Literal["epoch_alternation"]
    epochs: Count = 1

    @override
    def turn_at(self, step: int, epoch: int) -> int:
        return epoch // self.epochs

    @override
    def minimum_epochs(self) -> int:
        return self.epochs
