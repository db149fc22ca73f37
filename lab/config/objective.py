"""The ladder of objectives: what a trial may minimise, as a search space names it.

From the paper's section 3.4 (ELECTRA 15 %, replace MLM, all-tokens MLM), section 3.2 (two-stage,
sharing), appendix F (adversarial), and its two ends: BERT, and replacement without a generator.
"""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from annotated_types import Gt, Interval
from pydantic import Discriminator, Field, Tag

from lab.config.architecture import Count, EncoderConfig, GeneratorConfig
from lab.config.base import StrictConfig
from lab.config.init_from import FromMlmRun, FromTrial
from lab.config.metrics import Network
from lab.config.ramps import Positive, Probability, value_at

_Probability = Annotated[float, Interval(gt=0, lt=1)]


@dataclass(frozen=True, kw_only=True)
class SamplingConfig(StrictConfig):
    """How the generator's tokens are drawn (`run_pretraining.PretrainingModel._get_fake_data`).

    Attributes:
        temperature: divides the logits, a number or a ramp; the generator's own loss is taken
            without it.
        dropout: whether the generator's dropout is on while it samples, as officially; without
            it a second pass makes the samples.
        disallow_correct: never draw the original token, so that every chosen slot is replaced.
    """

    temperature: Positive = 1.0
    dropout: bool = True
    disallow_correct: bool = False


@dataclass(frozen=True, kw_only=True)
class FrozenGeneratorConfig(GeneratorConfig):
    """A generator that is trained before the trial and stays as it is (Fast-ELECTRA, 2310.07347).

    It samples without dropout and costs one forward pass. Its temperature (`sampling`) may fall
    while the discriminator learns, as in the paper.

    Attributes:
        init_from: a masked-language-model run that the sweep makes, or another trial, of which it
            takes the generator, or the encoder where that predicts tokens.
    """

    kind: Literal["frozen"]
    init_from: Annotated[FromMlmRun | FromTrial, Field(discriminator="kind")]


def _kind_of_generator(raw: object) -> str:
    frozen = "kind" in raw if isinstance(raw, dict) else isinstance(raw, FrozenGeneratorConfig)
    return "FrozenGeneratorConfig" if frozen else "GeneratorConfig"


# A generator that learns has no kind, so that an error speaks of the one that was meant.
AnyGeneratorConfig = Annotated[
    Annotated[GeneratorConfig, Tag("GeneratorConfig")]
    | Annotated[FrozenGeneratorConfig, Tag("FrozenGeneratorConfig")],
    Discriminator(_kind_of_generator),
]


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig(StrictConfig):
    """What all rungs have in common.

    Attributes:
        mask_prob: share of the tokens that are chosen; a number or a ramp.
    """

    networks: ClassVar[frozenset[Network]] = frozenset({"generator", "discriminator"})

    mask_prob: Probability = 0.15


@dataclass(frozen=True, kw_only=True)
class MaskedObjectiveConfig(ObjectiveConfig):
    """A rung that fills the chosen slots with something else than the original.

    Attributes:
        masking: `paper` draws distinct positions and always writes [MASK]; `code` does as the
            official `pretrain_helpers.py`: with replacement, and [MASK] with probability .85.
    """

    masking: Literal["paper", "code"] = "paper"


@dataclass(frozen=True, kw_only=True)
class JointObjectiveConfig(MaskedObjectiveConfig):
    """A rung on which a generator and the encoder that is kept learn beside each other.

    Attributes:
        gen_weight: the weight of the generator's loss.
        generator: its size, and whether it learns or is frozen.
        sharing: `none`; `tokens`, the whole embedding layer, as officially; `all` weights of two
            encoders of one size; `gdes`, the encoder reads the generator's tables, sends them no
            gradient, and learns its difference to them (DeBERTaV3, section 3.3).
        sampling: how its tokens are drawn.
    """

    gen_weight: Annotated[float, Gt(0)] = 1.0
    generator: AnyGeneratorConfig = field(default_factory=GeneratorConfig)
    sharing: Literal["none", "tokens", "all", "gdes"] = "tokens"
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        if not isinstance(self.generator, FrozenGeneratorConfig):
            return
        if self.sharing != "none":
            raise ValueError(
                f"a frozen generator cannot share weights with a network that learns: sharing must "
                f"be none, not {self.sharing}"
            )
        if self.gen_weight != 1:
            raise ValueError("gen_weight: a frozen generator has no loss to weigh; leave it out")


@dataclass(frozen=True, kw_only=True)
class ElectraConfig(JointObjectiveConfig):
    """Replaced-token detection at every token (paper, section 2).

    Attributes:
        disc_weight: the weight of the discriminator's loss, lambda; a number or a ramp.
    """

    kind: Literal["electra"]
    disc_weight: Positive = 50.0


@dataclass(frozen=True, kw_only=True)
class Electra15Config(JointObjectiveConfig):
    """Replaced-token detection at the chosen slots only.

    Attributes:
        disc_weight: the weight of the discriminator's loss, lambda; a number or a ramp.
    """

    kind: Literal["electra_15"]
    disc_weight: Positive = 50.0


@dataclass(frozen=True, kw_only=True)
class ReplaceMlmConfig(JointObjectiveConfig):
    """The original tokens are predicted at the chosen slots, from the generator's samples there.

    Attributes:
        mlm_weight: the weight of the encoder's loss.
    """

    networks: ClassVar[frozenset[Network]] = frozenset({"generator", "predictor"})

    kind: Literal["replace_mlm"]
    mlm_weight: Annotated[float, Gt(0)] = 1.0


@dataclass(frozen=True, kw_only=True)
class AllTokensMlmConfig(JointObjectiveConfig):
    """The original of every token is predicted, with a gate that may copy what stands there.

    Attributes:
        mlm_weight: the weight of the encoder's loss.
    """

    networks: ClassVar[frozenset[Network]] = frozenset({"generator", "predictor"})

    kind: Literal["all_tokens_mlm"]
    mlm_weight: Annotated[float, Gt(0)] = 1.0


@dataclass(frozen=True, kw_only=True)
class MlmConfig(ObjectiveConfig):
    """Masked language modelling by the encoder itself: the baseline.

    Attributes:
        masking: as for the others; or `bert`: a chosen token becomes [MASK] in 80 % of cases, a
            random word in 10 %, and stays in 10 %.
    """

    networks: ClassVar[frozenset[Network]] = frozenset({"predictor"})

    kind: Literal["mlm"]
    masking: Literal["paper", "code", "bert"] = "paper"


@dataclass(frozen=True, kw_only=True)
class TwoStageConfig(MaskedObjectiveConfig):
    """First the generator alone; then a discriminator that starts from its weights (section 3.2).

    Both have one size, and the generator is frozen once the discriminator learns. Each stage has
    the whole schedule to itself.

    Attributes:
        switch: the generator's share of the budget.
        sampling: how its tokens are drawn.
    """

    kind: Literal["two_stage"]
    switch: _Probability = 0.5
    sampling: SamplingConfig = field(default_factory=SamplingConfig)


@dataclass(frozen=True, kw_only=True)
class ReinforceConfig(StrictConfig):
    """Both networks learn in each step, as in the paper's appendix F."""

    kind: Literal["reinforce"]


@dataclass(frozen=True, kw_only=True)
class AlternationConfig(StrictConfig):
    """One network is frozen while the other takes its steps; the discriminator begins.

    Attributes:
        steps: that one network takes in a row.
    """

    kind: Literal["alternation"]
    steps: Count = 1


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig(JointObjectiveConfig):
    """The generator is trained to make the discriminator fail (paper, appendix F).

    Its gradient is REINFORCE's, against a learned baseline.

    Attributes:
        disc_weight: the weight of the discriminator's loss, lambda; a number or a ramp.
        adversarial_weight: the share of the generator's loss that is adversarial; the rest is
            its likelihood. Without any there is no game and no turns: ELECTRA.
        rule: whose turn it is to learn.
    """

    kind: Literal["adversarial"]
    disc_weight: Positive = 50.0
    adversarial_weight: Annotated[float, Interval(ge=0, le=1)] = 1.0
    rule: Annotated[ReinforceConfig | AlternationConfig, Field(discriminator="kind")] = field(
        default_factory=lambda: ReinforceConfig(kind="reinforce")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.generator, FrozenGeneratorConfig):
            raise ValueError("an adversarial generator learns in every step: it cannot be frozen")
        if isinstance(self.rule, AlternationConfig) and self.sharing != "none":
            raise ValueError(
                f"alternation freezes one network while the other learns, which weights of both "
                f"cannot: sharing must be none, not {self.sharing}"
            )
        if not self.sampling.dropout:
            raise ValueError(
                "an adversarial generator learns from the law it sampled from: sampling.dropout "
                "must be true"
            )


@dataclass(frozen=True, kw_only=True)
class RandomReplacementConfig(MaskedObjectiveConfig):
    """Replaced-token detection without a generator.

    Attributes:
        replacement_distribution: `unigram` draws replacements by their frequency, `uniform` all words alike.
    """

    networks: ClassVar[frozenset[Network]] = frozenset({"discriminator"})

    kind: Literal["random"]
    replacement_distribution: Literal["unigram", "uniform"] = "unigram"


AnyObjectiveConfig = (
    ElectraConfig
    | Electra15Config
    | ReplaceMlmConfig
    | AllTokensMlmConfig
    | MlmConfig
    | TwoStageConfig
    | AdversarialConfig
    | RandomReplacementConfig
)


def generator_of(objective: AnyObjectiveConfig, encoder: EncoderConfig) -> EncoderConfig | None:
    """Return the shape of the objective's generator beside `encoder`; None where it has none.

    Raises:
        ValueError: `encoder` allows no such generator.
    """
    match objective:
        case TwoStageConfig():
            return encoder
        case MlmConfig() | RandomReplacementConfig():
            return None
        case JointObjectiveConfig(generator=generator, sharing=sharing):
            shape = generator.of(encoder)
            if sharing == "all" and shape != encoder:
                raise ValueError(
                    "sharing all needs a generator of the encoder's size: width 1 and depth 1"
                )
            return shape


def has_frozen_generator(objective: ObjectiveConfig) -> bool:
    """Return whether the objective's generator is trained before the trial and never updated."""
    return isinstance(objective, JointObjectiveConfig) and isinstance(
        objective.generator, FrozenGeneratorConfig
    )


def disc_weight_at(objective: AnyObjectiveConfig, progress: float) -> float:
    """Return the weight of the discriminator's loss; 1 where the objective sets none."""
    match objective:
        case ElectraConfig() | Electra15Config() | AdversarialConfig():
            return value_at(objective.disc_weight, progress)
        case _:
            return 1.0


def temperature_at(objective: AnyObjectiveConfig, progress: float) -> float:
    """Return the temperature of the generator's samples; 1 where none are drawn."""
    match objective:
        case JointObjectiveConfig(sampling=sampling) | TwoStageConfig(sampling=sampling):
            return value_at(sampling.temperature, progress)
        case _:
            return 1.0
