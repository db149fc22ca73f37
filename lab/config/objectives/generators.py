"""Objectives in which a generator and the encoder are trained in the same steps."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag
from typing_extensions import override

from lab.config.architecture import EncoderConfig, GeneratorConfig
from lab.config.base import StrictConfig
from lab.config.bounds import Factor
from lab.config.init_from import FromMlmRun, FromTrial
from lab.config.objectives.base import Head, MaskedObjectiveConfig, NetworkPass
from lab.config.schedules.phases import UpdatedNetworks
from lab.config.schedules.ramps import Positive, value_at


@dataclass(frozen=True, kw_only=True)
class SamplingConfig(StrictConfig):
    """How the generator's tokens are drawn (`run_pretraining.PretrainingModel._get_fake_data`).

    Attributes:
        temperature: divisor of the logits, a number or a ramp; the generator's own loss does not
            use it.
        dropout: whether the generator's dropout is on while it samples, as in the official code;
            without it the samples take a second forward pass.
        disallow_correct: never draw the original token, so that every chosen token is replaced.
    """

    temperature: Positive = 1.0
    dropout: bool = True
    disallow_correct: bool = False


@dataclass(frozen=True, kw_only=True)
class FrozenGeneratorConfig(GeneratorConfig):
    """A generator that is trained before the trial and never updated (Fast-ELECTRA, 2310.07347).

    It samples without dropout and costs one forward pass. Its temperature (`sampling`) may fall
    while the discriminator is trained, as in that paper.

    Attributes:
        init_from: a masked-language-model run that the sweep trains, or another trial, of which
            the generator is taken, or the encoder where that one predicts tokens.
    """

    kind: Literal["frozen"]
    init_from: Annotated[FromMlmRun | FromTrial, Field(discriminator="kind")]


def _kind_of_generator(raw: object) -> str:
    frozen = "kind" in raw if isinstance(raw, dict) else isinstance(raw, FrozenGeneratorConfig)
    return "FrozenGeneratorConfig" if frozen else "GeneratorConfig"


# Only the frozen generator has a kind, so that an error is about the one that was meant.
AnyGeneratorConfig = Annotated[
    Annotated[GeneratorConfig, Tag("GeneratorConfig")]
    | Annotated[FrozenGeneratorConfig, Tag("FrozenGeneratorConfig")],
    Discriminator(_kind_of_generator),
]


@dataclass(frozen=True, kw_only=True)
class JointObjectiveConfig(MaskedObjectiveConfig):
    """An objective with a generator; the encoder reads the samples of the generator.

    Attributes:
        gen_weight: weight of the generator's loss.
        generator: size of the generator, and whether it is trained or frozen.
        sharing: weights that both networks share. `none`; `tokens`, the whole embedding layer, as
            in the official code; `all`, every weight of two encoders of one size; `gdes`, the
            encoder adds a difference of its own to the generator's embedding tables and sends
            them no gradient (DeBERTaV3, section 3.3).
        sampling: how the generator's tokens are drawn.
    """

    gen_weight: Factor = 1.0
    generator: AnyGeneratorConfig = field(default_factory=GeneratorConfig)
    sharing: Literal["none", "tokens", "all", "gdes"] = "tokens"
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        if not self.frozen_generator:
            return
        if self.sharing != "none":
            raise ValueError(
                f"a frozen generator cannot share weights with a network that is trained: sharing "
                f"must be none, not {self.sharing}"
            )
        if self.gen_weight != 1:
            raise ValueError("gen_weight: must be omitted, because a frozen generator has no loss")

    @property
    @override
    def frozen_generator(self) -> bool:
        return isinstance(self.generator, FrozenGeneratorConfig)

    @property
    @override
    def shares_table(self) -> bool:
        return self.sharing == "tokens"

    @property
    @override
    def shares_encoders(self) -> bool:
        return self.sharing == "all"

    @override
    def generator_shape(self, encoder: EncoderConfig) -> EncoderConfig:
        shape = self.generator.derive_shape(encoder)
        if self.sharing == "all" and shape != encoder:
            raise ValueError(
                "sharing all requires a generator of the encoder's size: width 1 and depth 1"
            )
        return shape

    @override
    def passes(self, encoder: EncoderConfig, updates: UpdatedNetworks) -> tuple[NetworkPass, ...]:
        updated = updates is not UpdatedNetworks.GENERATOR
        return *self._generator_passes(encoder, updates), NetworkPass(
            encoder, self._head(), updated
        )

    @override
    def temperature_at(self, progress: float) -> float:
        return value_at(self.sampling.temperature, progress)

    def _head(self) -> Head:
        return "detection"

    def _generator_passes(
        self, encoder: EncoderConfig, updates: UpdatedNetworks
    ) -> tuple[NetworkPass, ...]:
        updated = updates is not UpdatedNetworks.DISCRIMINATOR and not self.frozen_generator
        first = NetworkPass(
            self.generator_shape(encoder), "vocabulary_at_slots", updated, "generator"
        )
        if encoder.dropout and not self.sampling.dropout and not self.frozen_generator:
            return first, first._replace(updated=False)  # once more without dropout, to sample
        return (first,)
