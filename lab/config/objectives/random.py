"""Replaced-token detection without a generator (paper, section 3.4)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from typing_extensions import override

from lab.config.architecture import EncoderConfig
from lab.config.metrics import Network
from lab.config.objectives.base import NetworkPass, ObjectiveConfig
from lab.config.objectives.masking import Masking
from lab.config.schedules.phases import UpdatedNetworks


@dataclass(frozen=True, kw_only=True)
class RandomReplacementConfig(ObjectiveConfig):
    """Replaced-token detection of words drawn from a fixed distribution.

    Attributes:
        masking: how the positions are chosen; `paper` draws a fixed number of distinct positions;
            `code` draws slots with replacement, as the official code; `bernoulli` chooses each
            token independently with probability `mask_prob`.
        replacement_distribution: `unigram` draws words by their frequency in the training text;
            `uniform` draws all words with one probability.
    """

    networks: ClassVar[frozenset[Network]] = frozenset({"discriminator"})

    kind: Literal["random"]
    masking: Literal["paper", "code", "bernoulli"] = "paper"
    replacement_distribution: Literal["unigram", "uniform"] = "unigram"

    @property
    @override
    def mlm_masking(self) -> Masking:
        return "paper" if self.masking == "bernoulli" else self.masking

    @override
    def passes(self, encoder: EncoderConfig, updates: UpdatedNetworks) -> tuple[NetworkPass, ...]:
        del updates
        return (NetworkPass(encoder, "detection", True),)
