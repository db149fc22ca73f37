"""Masked language modelling, the baseline."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from typing_extensions import override

from lab.config.architecture import EncoderConfig
from lab.config.metrics import Network
from lab.config.objectives.base import MaskedObjectiveConfig, NetworkPass
from lab.config.schedules.phases import UpdatedNetworks


@dataclass(frozen=True, kw_only=True)
class MlmConfig(MaskedObjectiveConfig):
    """Masked language modelling by the encoder itself."""

    networks: ClassVar[frozenset[Network]] = frozenset({"predictor"})

    kind: Literal["mlm"]

    @override
    def passes(self, encoder: EncoderConfig, updates: UpdatedNetworks) -> tuple[NetworkPass, ...]:
        del updates
        return (NetworkPass(encoder, "vocabulary_at_slots", True),)
