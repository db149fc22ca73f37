"""Two-stage training: the generator first, then the discriminator (paper, section 3.2)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from annotated_types import Interval
from typing_extensions import override

from lab.config.architecture import EncoderConfig
from lab.config.objectives.base import MaskedObjectiveConfig, NetworkPass
from lab.config.objectives.generators import SamplingConfig
from lab.config.schedules.phases import Phase, UpdatedNetworks
from lab.config.schedules.ramps import value_at


@dataclass(frozen=True, kw_only=True)
class TwoStageConfig(MaskedObjectiveConfig):
    """First the generator alone, then a discriminator that starts from the generator's weights.

    Both networks have one size, and the generator is frozen in the second stage. Each stage has a
    whole learning-rate schedule.

    Attributes:
        switch: share of the budget of the first stage.
        sampling: how the generator's tokens are drawn.
    """

    staged: ClassVar[bool] = True
    starts_from_scratch: ClassVar[str] = (
        "objective two_stage, which initializes its discriminator from its own generator"
    )

    kind: Literal["two_stage"]
    switch: Annotated[float, Interval(gt=0, lt=1)] = 0.5
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    @override
    def generator_shape(self, encoder: EncoderConfig) -> EncoderConfig:
        return encoder

    @override
    def passes(self, encoder: EncoderConfig, updates: UpdatedNetworks) -> tuple[NetworkPass, ...]:
        updated = updates is not UpdatedNetworks.DISCRIMINATOR
        generator = NetworkPass(encoder, "vocabulary_at_slots", updated, "generator")
        if updates is UpdatedNetworks.GENERATOR:
            return (generator,)
        again = (generator._replace(updated=False),)  # without dropout, to sample
        samples = again if encoder.dropout and not self.sampling.dropout else ()
        return generator, *samples, NetworkPass(encoder, "detection", True)

    @override
    def temperature_at(self, progress: float) -> float:
        return value_at(self.sampling.temperature, progress)

    @override
    def phase_at(self, step: int, fraction: float, epoch: int = 0) -> Phase:
        del step, epoch
        if fraction < self.switch:
            return Phase(UpdatedNetworks.GENERATOR, fraction / self.switch)
        return Phase(UpdatedNetworks.DISCRIMINATOR, (fraction - self.switch) / (1 - self.switch))

    @override
    def phase_shares(self) -> Mapping[UpdatedNetworks, float]:
        return {
            UpdatedNetworks.GENERATOR: self.switch,
            UpdatedNetworks.DISCRIMINATOR: 1 - self.switch,
        }

    @override
    def minimum_steps(self) -> int:
        # A step of one stage costs less than three times a step of the other.
        return math.ceil(3 / min(self.switch, 1 - self.switch))
