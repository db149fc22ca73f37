"""Replaced-token detection: ELECTRA (paper, section 2) and ELECTRA 15 % (section 3.4)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from typing_extensions import override

from lab.config.architecture import EncoderConfig
from lab.config.base import StrictConfig
from lab.config.bounds import Factor
from lab.config.objectives.base import NetworkPass
from lab.config.objectives.generators import JointObjectiveConfig
from lab.config.schedules.phases import UpdatedNetworks
from lab.config.schedules.ramps import Positive, value_at


@dataclass(frozen=True, kw_only=True)
class AuxiliaryMlmConfig(StrictConfig):
    """Masked language modelling by the discriminator's encoder, beside the detection.

    The encoder also reads the generator's masked input, in a second pass, and predicts the chosen
    tokens with a vocabulary head of its own. The discriminator's loss is the detection loss plus
    `weight` times the loss of these predictions.

    Attributes:
        weight: weight of the auxiliary loss relative to the detection loss.
    """

    kind: Literal["mlm"]
    weight: Factor = 1.0


@dataclass(frozen=True, kw_only=True)
class DetectionConfig(JointObjectiveConfig):
    """Replaced-token detection with a generator.

    Attributes:
        disc_weight: weight of the discriminator's loss, lambda; a number or a ramp.
        auxiliary: second loss of the discriminator's encoder; null for none.
    """

    # Whether the loss is taken at every token. Otherwise it is taken at the chosen tokens.
    loss_at_all_tokens: ClassVar[bool] = True

    disc_weight: Positive = 50.0
    auxiliary: AuxiliaryMlmConfig | None = None

    @property
    @override
    def not_exported(self) -> str:
        if self.auxiliary is None:
            return ""
        return (
            "A vocabulary head was trained beside the detection head (auxiliary). It is left out."
        )

    @override
    def passes(self, encoder: EncoderConfig, updates: UpdatedNetworks) -> tuple[NetworkPass, ...]:
        passes = super().passes(encoder, updates)
        if self.auxiliary is None or updates is UpdatedNetworks.GENERATOR:
            return passes
        return *passes, NetworkPass(encoder, "vocabulary_at_slots", True)

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
