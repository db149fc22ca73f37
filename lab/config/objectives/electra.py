"""Replaced-token detection: ELECTRA (paper, section 2) and ELECTRA 15 % (section 3.4)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from typing_extensions import override

from lab.config.objectives.generators import JointObjectiveConfig
from lab.config.schedules.ramps import Positive, value_at


@dataclass(frozen=True, kw_only=True)
class DetectionConfig(JointObjectiveConfig):
    """Replaced-token detection with a generator.

    Attributes:
        disc_weight: weight of the discriminator's loss, lambda; a number or a ramp.
    """

    # Whether the loss is taken at every token. Otherwise it is taken at the chosen tokens.
    loss_at_all_tokens: ClassVar[bool] = True

    disc_weight: Positive = 50.0

    @override
    def disc_weight_at(self, progress: float) -> float:
        return value_at(self.disc_weight, progress)


@dataclass(frozen=True, kw_only=True)
class ElectraConfig(DetectionConfig):
    """Replaced-token detection at every token (paper, section 2)."""

    kind: Literal["electra"]


@dataclass(frozen=True, kw_only=True)
class Electra15Config(DetectionConfig):
    """Replaced-token detection at the chosen tokens only (ELECTRA 15 %, section 3.4)."""

    loss_at_all_tokens: ClassVar[bool] = False

    kind: Literal["electra_15"]
