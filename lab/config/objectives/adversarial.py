"""Adversarial ELECTRA: the generator is trained against the discriminator (paper, appendix F)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Interval
from pydantic import Field
from typing_extensions import override

from lab.config.architecture import Count, EncoderConfig
from lab.config.base import StrictConfig
from lab.config.objectives.electra import DetectionConfig
from lab.config.schedules.phases import Phase, UpdatedNetworks


@dataclass(frozen=True, kw_only=True)
class ReinforceConfig(StrictConfig):
    """Both networks are updated in each step, as in the paper's appendix F."""

    kind: Literal["reinforce"]


@dataclass(frozen=True, kw_only=True)
class AlternationConfig(StrictConfig):
    """The networks are updated in turn, the discriminator first.

    Attributes:
        steps: consecutive steps that update one network.
    """

    kind: Literal["alternation"]
    steps: Count = 1


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig(DetectionConfig):
    """The generator is trained to make the discriminator fail (paper, appendix F).

    Its gradient is that of REINFORCE with a learned baseline.

    Attributes:
        adversarial_weight: adversarial share of the generator's loss; the rest is its likelihood.
            At 0 the objective is ELECTRA.
        rule: which networks a step updates.
    """

    kind: Literal["adversarial"]
    adversarial_weight: Annotated[float, Interval(ge=0, le=1)] = 1.0
    rule: Annotated[ReinforceConfig | AlternationConfig, Field(discriminator="kind")] = field(
        default_factory=lambda: ReinforceConfig(kind="reinforce")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frozen_generator:
            raise ValueError("an adversarial generator is trained, so it cannot be frozen")
        if isinstance(self.rule, AlternationConfig) and self.sharing != "none":
            raise ValueError(
                f"alternation freezes one network while it trains the other, so they cannot share "
                f"weights: sharing must be none, not {self.sharing}"
            )
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
    def phase_at(self, step: int, fraction: float) -> Phase:
        if (steps := self._alternating_steps()) is None:
            return super().phase_at(step, fraction)
        # The generator is trained against the discriminator, so the discriminator comes first.
        even = step // steps % 2 == 0
        return Phase(UpdatedNetworks.DISCRIMINATOR if even else UpdatedNetworks.GENERATOR, fraction)

    @override
    def phase_shares(self) -> Mapping[UpdatedNetworks, float]:
        if self._alternating_steps() is None:
            return super().phase_shares()
        return {UpdatedNetworks.DISCRIMINATOR: 0.5, UpdatedNetworks.GENERATOR: 0.5}

    @override
    def minimum_steps(self) -> int:
        steps = self._alternating_steps()
        return super().minimum_steps() if steps is None else 2 * steps

    def _alternating_steps(self) -> int | None:
        """Return the consecutive steps of one network; None where each step updates both."""
        if isinstance(self.rule, AlternationConfig) and self.adversarial_weight > 0:
            return self.rule.steps
        return None
