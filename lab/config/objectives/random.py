"""Replaced-token detection without a generator (paper, section 3.4)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from typing_extensions import override

from lab.config.architecture import EncoderConfig
from lab.config.metrics import Network
from lab.config.objectives.base import MaskedObjectiveConfig, NetworkPass
from lab.config.schedules.phases import UpdatedNetworks


@dataclass(frozen=True, kw_only=True)
class RandomReplacementConfig(MaskedObjectiveConfig):
    """Replaced-token detection of words drawn from a fixed distribution.

    Attributes:
        replacement_distribution: `unigram` draws words by their frequency in the training text;
            `uniform` draws all words with one probability.
    """

    networks: ClassVar[frozenset[Network]] = frozenset({"discriminator"})

    kind: Literal["random"]
    replacement_distribution: Literal["unigram", "uniform"] = "unigram"

    @override
    def passes(self, encoder: EncoderConfig, updates: UpdatedNetworks) -> tuple[NetworkPass, ...]:
        del updates
        return (NetworkPass(encoder, "detection", True),)
