"""Base of all objectives.

Each property in which objectives differ is a method or a class attribute of `ObjectiveConfig`.
Compute accounting, the training loop, the loader and the export therefore match no objective type.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from lab.config.architecture import EncoderConfig
from lab.config.base import StrictConfig
from lab.config.metrics import Network
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
    """

    encoder: EncoderConfig
    head: Head
    updated: bool


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
    # Part of the model that an export omits, for the model card; empty where it is complete.
    not_exported: ClassVar[str] = ""

    mask_prob: Probability = 0.15

    def generator_shape(self, encoder: EncoderConfig) -> EncoderConfig | None:
        """Return the shape of the generator beside `encoder`; None without a generator.

        Raises:
            ValueError: no such generator fits `encoder`.
        """
        del encoder
        return None

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

    def phase_at(self, step: int, fraction: float) -> Phase:
        """Return the phase of a step.

        Args:
            step: number of the step, from 0.
            fraction: share of the budget that is spent before the step.
        """
        del step
        return Phase(UpdatedNetworks.ALL, fraction)

    def phase_shares(self) -> Mapping[UpdatedNetworks, float]:
        """Return the share of the run of each kind of step: of the budget where `staged`."""
        return {UpdatedNetworks.ALL: 1.0}

    def minimum_steps(self) -> int:
        """Return the number of steps that a run needs so that every network is updated."""
        return 1


@dataclass(frozen=True, kw_only=True)
class MaskedObjectiveConfig(ObjectiveConfig):
    """An objective that replaces the chosen tokens.

    Attributes:
        masking: `paper` draws distinct positions and always writes [MASK]; `code` follows the
            official `pretrain_helpers.py`: positions are drawn with replacement, and [MASK] is
            written with probability .85.
    """

    masking: Literal["paper", "code"] = "paper"
