"""Base of all objectives.

Each property in which objectives differ is a method or a class attribute of `ObjectiveConfig`.
Compute accounting, the training loop, the loader and the export therefore match no objective type.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from typing_extensions import override

from lab.config.architecture import EncoderConfig
from lab.config.base import StrictConfig
from lab.config.metrics import Network
from lab.config.objectives.masking import Masking
from lab.config.schedules.phases import Phase, UpdatedNetworks
from lab.config.schedules.ramps import Probability

Head = Literal["vocabulary_at_slots", "vocabulary_at_all_tokens", "detection"]


class NetworkPass(NamedTuple):
    """One pass of one network over the batch of a step.

    Attributes:
        encoder: shape of the network's encoder.
        head: head that follows. `vocabulary_at_slots` predicts tokens at the masked positions;
            `vocabulary_at_all_tokens` predicts every token and has a copy gate; `detection` gives
            one logit for each token.
        updated: whether the pass has a backward pass.
        network: network of the pass; two passes of one network have the same weights.
    """

    encoder: EncoderConfig
    head: Head
    updated: bool
    network: Literal["encoder", "generator"] = "encoder"


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig(StrictConfig, ABC):
    """Options of all objectives.

    Attributes:
        mask_prob: share of the tokens of a window that are chosen; a number or a ramp.
    """

    networks: ClassVar[frozenset[Network]] = frozenset({"generator", "discriminator"})
    # Whether the phases divide the budget. Otherwise they divide the steps.
    staged: ClassVar[bool] = False
    # Reason why the networks cannot start from other weights; empty where they can.
    starts_from_scratch: ClassVar[str] = ""
    mask_prob: Probability = 0.15

    def generator_shape(self, encoder: EncoderConfig) -> EncoderConfig | None:
        """Return the shape of the generator beside `encoder`; None without a generator.

        Raises:
            ValueError: no such generator fits `encoder`.
        """
        del encoder
        return None

    @property
    @abstractmethod
    def mlm_masking(self) -> Masking:
        """Masking of an mlm run that initializes a network of the trial."""

    @property
    def not_exported(self) -> str:
        """Part of the encoder that an export omits, for the model card; empty without such."""
        return ""

    @property
    def frozen_generator(self) -> bool:
        """Whether the generator is trained before the trial and never updated."""
        return False

    @property
    def shares_table(self) -> bool:
        """Whether one embedding layer serves two networks of different shapes."""
        return False

    @property
    def shares_encoders(self) -> bool:
        """Whether both networks have the same weights."""
        return False

    @abstractmethod
    def passes(self, encoder: EncoderConfig, updates: UpdatedNetworks) -> tuple[NetworkPass, ...]:
        """Return the passes of a step that updates the networks `updates`."""

    def extra_flops(self, encoder: EncoderConfig, updates: UpdatedNetworks, slots: int) -> float:
        """Return the FLOPs of one window beside the passes, backward included.

        Args:
            encoder: shape of the pre-trained encoder.
            updates: networks that the step updates.
            slots: masked positions of the window.
        """
        del encoder, updates, slots
        return 0.0

    def disc_weight_at(self, progress: float) -> float:
        """Return the weight of the discriminator's loss; 1 for objectives without one."""
        del progress
        return 1.0

    def temperature_at(self, progress: float) -> float:
        """Return the temperature of the generator's samples; 1 without samples."""
        del progress
        return 1.0

    def phase_at(self, step: int, fraction: float, epoch: int = 0) -> Phase:
        """Return the phase of a step.

        Args:
            step: number of the step, from 0.
            fraction: share of the budget that is spent before the step.
            epoch: number of times that the whole text was read before the step.
        """
        del step, epoch
        return Phase(UpdatedNetworks.ALL, fraction)

    def phase_shares(self) -> Mapping[UpdatedNetworks, float]:
        """Return the share of the run of each kind of step: of the budget where `staged`."""
        return {UpdatedNetworks.ALL: 1.0}

    def minimum_steps(self) -> int:
        """Return the number of steps that a run needs so that every network is updated."""
        return 1

    def minimum_epochs(self) -> int:
        """Return the number of full epochs after which every network has been updated; mostly 0."""
        return 0


@dataclass(frozen=True, kw_only=True)
class MaskedObjectiveConfig(ObjectiveConfig):
    """An objective with a masked language model.

    Attributes:
        masking: how tokens are chosen, and what the masked language model reads there; `paper`
            draws distinct positions and always writes [MASK]; `bert` writes [MASK] at 80 % of
            them, a random word at 10 %, and keeps 10 %; a mapping sets these shares; `code` is
            `pretrain_helpers.mask` of the official code: the number of slots is a share of all
            tokens, [CLS] and [SEP] included; positions are drawn with replacement, and a position
            that is drawn twice counts twice in the loss; each slot writes [MASK] with probability
            .85; a position of several slots gets the mean of the token ids that they sample.
    """

    masking: Masking = "paper"

    @property
    @override
    def mlm_masking(self) -> Masking:
        return self.masking
