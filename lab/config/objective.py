"""Configuration of the pre-training objectives.

Sources in the ELECTRA paper: section 3.4 (ELECTRA 15 %, replace MLM, all-tokens MLM), section 3.2
(two-stage training, weight sharing), appendix F (adversarial training). Two further objectives are
baselines: masked language modeling as in BERT, and replaced-token detection without a generator.
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
    """Sampling from the generator (`run_pretraining.PretrainingModel._get_fake_data`).

    Attributes:
        temperature: temperature of the sampling distribution (it divides the generator's logits);
            a number or a ramp. It does not affect the generator's loss.
        dropout: whether the generator samples with dropout, as in the official code; if false, a
            second forward pass without dropout makes the samples.
        disallow_correct: whether the original token is excluded from sampling, so that every
            masked position is replaced.
    """

    temperature: Positive = 1.0
    dropout: bool = True
    disallow_correct: bool = False


@dataclass(frozen=True, kw_only=True)
class FrozenGeneratorConfig(GeneratorConfig):
    """A generator that is trained before the trial and not updated by it.

    From Fast-ELECTRA (Dong et al. 2023, arXiv 2310.07347). A frozen generator samples without
    dropout and costs one forward pass. As in that paper, the sampling temperature may decrease
    during training (`sampling.temperature`).

    Attributes:
        width: hidden size of the generator divided by that of the discriminator.
        depth: number of layers of the generator divided by that of the discriminator.
        init_from: source of the generator's weights: a masked-language-model run that the sweep
            trains (`mlm`), or another trial (`trial`), from which the generator is taken, or the
            encoder if it predicts tokens.
    """

    kind: Literal["frozen"]
    init_from: Annotated[FromMlmRun | FromTrial, Field(discriminator="kind")]


def _kind_of_generator(raw: object) -> str:
    frozen = "kind" in raw if isinstance(raw, dict) else isinstance(raw, FrozenGeneratorConfig)
    return "FrozenGeneratorConfig" if frozen else "GeneratorConfig"


# Only a frozen generator has the key `kind`, so it selects the class that errors refer to.
AnyGeneratorConfig = Annotated[
    Annotated[GeneratorConfig, Tag("GeneratorConfig")]
    | Annotated[FrozenGeneratorConfig, Tag("FrozenGeneratorConfig")],
    Discriminator(_kind_of_generator),
]


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig(StrictConfig):
    """Settings of all objectives.

    Attributes:
        mask_prob: share of the tokens that are masked or replaced; a number or a ramp.
    """

    networks: ClassVar[frozenset[Network]] = frozenset({"generator", "discriminator"})

    mask_prob: Probability = 0.15


@dataclass(frozen=True, kw_only=True)
class MaskedObjectiveConfig(ObjectiveConfig):
    """Settings of all objectives with a generator or another source of replaced tokens.

    Attributes:
        masking: rule of masking; `paper` draws distinct positions and writes [MASK] at all of
            them; `code` follows the official `pretrain_helpers.py`: it draws positions with
            replacement and writes [MASK] with probability .85.
    """

    masking: Literal["paper", "code"] = "paper"


@dataclass(frozen=True, kw_only=True)
class JointObjectiveConfig(MaskedObjectiveConfig):
    """Settings of all objectives that train an encoder on the samples of a generator.

    Attributes:
        gen_weight: weight of the generator's loss.
        generator: size of the generator relative to the encoder, and whether it is frozen.
        sharing: weights that generator and encoder share; `none`: no weights; `tokens`: the whole
            embedding layer, as in the official code; `all`: all weights of two encoders of equal
            size; `gdes`: the encoder adds a learned difference to the generator's embedding
            tables and sends them no gradient (DeBERTaV3, section 3.3).
        sampling: sampling of replacement tokens from the generator.
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
                f"a frozen generator cannot share weights with a network that is trained: sharing "
                f"must be none, not {self.sharing}"
            )
        if self.gen_weight != 1:
            raise ValueError("gen_weight: must be omitted, because a frozen generator has no loss")


@dataclass(frozen=True, kw_only=True)
class ElectraConfig(JointObjectiveConfig):
    """ELECTRA: replaced-token detection at every position (paper, section 2).

    Attributes:
        disc_weight: weight of the discriminator's loss (lambda in the paper); a number or a ramp.
    """

    kind: Literal["electra"]
    disc_weight: Positive = 50.0


@dataclass(frozen=True, kw_only=True)
class Electra15Config(JointObjectiveConfig):
    """ELECTRA 15 %: replaced-token detection at the masked positions only (paper, section 3.4).

    Attributes:
        disc_weight: weight of the discriminator's loss (lambda in the paper); a number or a ramp.
    """

    kind: Literal["electra_15"]
    disc_weight: Positive = 50.0


@dataclass(frozen=True, kw_only=True)
class ReplaceMlmConfig(JointObjectiveConfig):
    """Replace MLM: the encoder predicts the original tokens at the positions that were replaced.

    The generator's samples take the place of [MASK] in the encoder's input (paper, section 3.4).

    Attributes:
        mlm_weight: weight of the encoder's loss.
    """

    networks: ClassVar[frozenset[Network]] = frozenset({"generator", "predictor"})

    kind: Literal["replace_mlm"]
    mlm_weight: Annotated[float, Gt(0)] = 1.0


@dataclass(frozen=True, kw_only=True)
class AllTokensMlmConfig(JointObjectiveConfig):
    """All-tokens MLM: the encoder predicts the original token at every position.

    A learned gate may copy the input token (paper, section 3.4).

    Attributes:
        mlm_weight: weight of the encoder's loss.
    """

    networks: ClassVar[frozenset[Network]] = frozenset({"generator", "predictor"})

    kind: Literal["all_tokens_mlm"]
    mlm_weight: Annotated[float, Gt(0)] = 1.0


@dataclass(frozen=True, kw_only=True)
class MlmConfig(ObjectiveConfig):
    """Masked language modeling with the encoder alone, as a baseline.

    Attributes:
        masking: rule of masking; `paper` draws distinct positions and writes [MASK] at all of
            them; `code` follows the official `pretrain_helpers.py`: it draws positions with
            replacement and writes [MASK] with probability .85; `bert` replaces a chosen token by
            [MASK] in 80 % of cases, by a random word in 10 %, and keeps it in 10 %.
    """

    networks: ClassVar[frozenset[Network]] = frozenset({"predictor"})

    kind: Literal["mlm"]
    masking: Literal["paper", "code", "bert"] = "paper"


@dataclass(frozen=True, kw_only=True)
class TwoStageConfig(MaskedObjectiveConfig):
    """Two-stage training: first the generator, then a discriminator initialized from it.

    Both networks have the encoder's size. The generator is frozen in the second stage. Each stage
    runs through the whole learning rate schedule (paper, section 3.2).

    Attributes:
        switch: share of the budget that trains the generator.
        sampling: sampling of replacement tokens from the generator.
    """

    kind: Literal["two_stage"]
    switch: _Probability = 0.5
    sampling: SamplingConfig = field(default_factory=SamplingConfig)


@dataclass(frozen=True, kw_only=True)
class ReinforceConfig(StrictConfig):
    """Every step updates both networks, as in the paper's appendix F."""

    kind: Literal["reinforce"]


@dataclass(frozen=True, kw_only=True)
class AlternationConfig(StrictConfig):
    """Steps update the discriminator and the generator alternately, the discriminator first.

    Attributes:
        steps: number of consecutive steps that update the same network.
    """

    kind: Literal["alternation"]
    steps: Count = 1


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig(JointObjectiveConfig):
    """Adversarial training: the generator maximizes the discriminator's loss (paper, appendix F).

    The generator's gradient is estimated by REINFORCE with a learned baseline.

    Attributes:
        disc_weight: weight of the discriminator's loss (lambda in the paper); a number or a ramp.
        adversarial_weight: share of the adversarial loss in the generator's loss; the rest is the
            masked-language-model loss. 0 is the same as objective `electra`, without alternation.
        rule: networks that each step updates: both (`reinforce`), or one at a time
            (`alternation`).
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


@dataclass(frozen=True, kw_only=True)
class RandomReplacementConfig(MaskedObjectiveConfig):
    """Replaced-token detection with random replacements, without a generator.

    Attributes:
        replacement_distribution: distribution of the replacement tokens; `unigram` is their
            frequency in the training text, `uniform` gives every word the same probability.
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
    """Return the shape of the objective's generator for `encoder`; None if it has no generator.

    Raises:
        ValueError: the generator's relative size is not valid for `encoder`.
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
                    "sharing all requires a generator of the encoder's size: width 1 and depth 1"
                )
            return shape


def has_frozen_generator(objective: ObjectiveConfig) -> bool:
    """Return whether the objective's generator is trained before the trial and never updated."""
    return isinstance(objective, JointObjectiveConfig) and isinstance(
        objective.generator, FrozenGeneratorConfig
    )


def disc_weight_at(objective: AnyObjectiveConfig, progress: float) -> float:
    """Return the weight of the discriminator's loss at `progress`; 1 if the objective has none."""
    match objective:
        case ElectraConfig() | Electra15Config() | AdversarialConfig():
            return value_at(objective.disc_weight, progress)
        case _:
            return 1.0


def temperature_at(objective: AnyObjectiveConfig, progress: float) -> float:
    """Return the sampling temperature at `progress`; 1 if the objective does not sample."""
    match objective:
        case JointObjectiveConfig(sampling=sampling) | TwoStageConfig(sampling=sampling):
            return value_at(sampling.temperature, progress)
        case _:
            return 1.0
