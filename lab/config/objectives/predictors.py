"""Prediction of the original tokens from the samples of a generator (paper, section 3.4)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from typing_extensions import override

from lab.config.bounds import Factor
from lab.config.metrics import Network
from lab.config.objectives.base import Head
from lab.config.objectives.generators import JointObjectiveConfig


@dataclass(frozen=True, kw_only=True)
class PredictorConfig(JointObjectiveConfig):
    """Prediction of original tokens from a text that a generator has changed.

    Attributes:
        mlm_weight: weight of the encoder's loss.
    """

    networks: ClassVar[frozenset[Network]] = frozenset({"generator", "predictor"})

    mlm_weight: Factor = 1.0


@dataclass(frozen=True, kw_only=True)
class ReplaceMlmConfig(PredictorConfig):
    """Prediction of the original tokens at the chosen positions (replace MLM, section 3.4)."""

    kind: Literal["replace_mlm"]

    @override
    def _head(self) -> Head:
        return "vocabulary_at_slots"


@dataclass(frozen=True, kw_only=True)
class AllTokensMlmConfig(PredictorConfig):
    """Prediction of every original token, with a copy gate (all-tokens MLM, section 3.4)."""

    kind: Literal["all_tokens_mlm"]

    @property
    @override
    def not_exported(self) -> str:
        return (
            "A gate that copies unchanged tokens was trained beside the softmax. transformers has "
            "no counterpart of it, so it is left out: the logits are those of the softmax alone."
        )

    @override
    def _head(self) -> Head:
        return "vocabulary_at_all_tokens"
