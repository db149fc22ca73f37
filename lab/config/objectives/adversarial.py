"""Adversarial ELECTRA: the generator is trained against the discriminator (paper, appendix F)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Interval
from pydantic import Field
from typing_extensions import override

from lab.config.architecture import EncoderConfig
from lab.config.objectives.electra import DetectionConfig
from lab.config.objectives.update_rules import (
    AlternationConfig,
    EpochAlternationConfig,
    ReinforceConfig,
    TurnsConfig,
)
from lab.config.schedules.phases import Phase, UpdatedNetworks


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig(DetectionConfig):
    """The generator is trained to make the discriminator fail (paper, appendix F).

    Its gradient is that of REINFORCE with a learned baseline.

    Attributes:
        adversarial_weight: adversarial share of the generator's loss; the rest is its likelihood.
            At 0 the objective is ELECTRA.
        reward: reward of a sampled token; `own_token` is the discriminator's loss at its position,
            as in the paper; `all_tokens` is the discriminator's loss at all tokens of the window,
            so that the generator maximizes the loss that the discriminator minimizes.
        rule: which networks a step updates.
    """

    kind: Literal["adversarial"]
    adversarial_weight: Annotated[float, Interval(ge=0, le=1)] = 1.0
    reward: Literal["own_token", "all_tokens"] = "own_token"
    rule: Annotated[
        ReinforceConfig | AlternationConfig | EpochAlternationConfig, Field(discriminator="kind")
    ] = field(default_factory=lambda: ReinforceConfig(kind="reinforce"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frozen_generator:
            raise ValueError("an adversarial generator is trained, so it cannot be frozen")
        if not self.sampling.dropout:
            raise ValueError(
                "the REINFORCE gradient of an adversarial generator requires the distribution that "
                "was sampled from: sampling.dropout must be true"
            )

    @override
    def extra_flops(self, encoder: EncoderConfig, updates: UpdatedNetworks, slots: int) -> float:
        """Return the FLOPs of REINFORCE's baseline: one logit a slot.

        Its input is detached, so that the backward pass costs as much as the forward pass.
        """
        if updates is UpdatedNetworks.DISCRIMINATOR or self.adversarial_weight == 0:
            return 0.0
        return 2 * 2 * self.generator.derive_shape(encoder).hidden * slots

    @override
    def phase_at(self, step: int, fraction: float, epoch: int = 0) -> Phase:
        if (turns := self._turns()) is None:
            return super().phase_at(step, fraction, epoch)
        return Phase(turns.updates_at(step, epoch), fraction)

    @override
    def phase_shares(self) -> Mapping[UpdatedNetworks, float]:
        if self._turns() is None:
            return super().phase_shares()
        return {UpdatedNetworks.DISCRIMINATOR: 0.5, UpdatedNetworks.GENERATOR: 0.5}

    @override
    def minimum_steps(self) -> int:
        turns = self._turns()
        return super().minimum_steps() if turns is None else turns.minimum_steps()

    @override
    def minimum_epochs(self) -> int:
        turns = self._turns()
        return super().minimum_epochs() if turns is None else turns.minimum_epochs()

    def _turns(self) -> TurnsConfig | None:
        """Return the rule of the turns; None where each step updates both networks."""
        if isinstance(self.rule, TurnsConfig) and self.adversarial_weight > 0:
            return self.rule
        return None
