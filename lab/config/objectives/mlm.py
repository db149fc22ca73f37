"""Masked language modelling, the baseline."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from typing_extensions import override

from lab.config.architecture import EncoderConfig
from lab.config.metrics import Network
from lab.config.objectives.base import NetworkPass, ObjectiveConfig
from lab.config.schedules.phases import UpdatedNetworks


@dataclass(frozen=True, kw_only=True)
class MlmConfig(ObjectiveConfig):
    """Masked language modelling by the encoder itself.

    Attributes:
        masking: `paper` and `code` as for the other objectives; `bert` replaces a chosen token by
            [MASK] in 80 % of the cases, by a random word in 10 %, and keeps it in 10 %.
    """

    networks: ClassVar[frozenset[Network]] = frozenset({"predictor"})

    kind: Literal["mlm"]
    masking: Literal["paper", "code", "bert"] = "paper"

    @override
    def passes(self, encoder: EncoderConfig, updates: UpdatedNetworks) -> tuple[NetworkPass, ...]:
        del updates
        return (NetworkPass(encoder, "vocabulary_at_slots", True),)
