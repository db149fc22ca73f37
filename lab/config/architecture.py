"""Shapes of the two networks: the encoder that a trial exports, and the generator."""

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from annotated_types import Interval
from pydantic import Field

from lab.config.base import StrictConfig
from lab.config.bounds import InitialStd
from lab.config.parametrization import Parametrization, StandardParametrization

Count = Annotated[int, Interval(ge=1, le=1_000_000)]
_LEAST_HIDDEN = 2  # units; LayerNorm over one unit is constant
Share = Annotated[float, Interval(ge=0, lt=1)]


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(StrictConfig):
    """Shape of a transformer encoder.

    Attributes:
        layers: number of transformer blocks.
        hidden: width of the residual stream.
        ffn: inner width of the feed-forward network.
        heads: number of attention heads; must divide `hidden`.
        embedding: width of the embedding tables; if it differs from `hidden`, a linear projection
            follows the tables.
        init_std: standard deviation of the initial weights, drawn from a normal distribution
            truncated at two standard deviations. BERT uses 0.02 at width 768; narrow encoders
            need more (reports/LOG.md).
        dropout: dropout probability on hidden states and attention weights during training.
        norm: position of LayerNorm; `post` is after each block, as in BERT and ELECTRA, `pre` is
            before it.
        parametrization: dependence of initial weights and learning rates on the width. The
            generator has that of the encoder.
    """

    layers: Count
    hidden: Count
    ffn: Count
    heads: Count
    embedding: Count
    init_std: InitialStd = 0.02
    dropout: Share = 0.1
    norm: Literal["post", "pre"] = "post"
    parametrization: Annotated[Parametrization, Field(discriminator="kind")] = field(
        default_factory=StandardParametrization
    )

    def __post_init__(self) -> None:
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is not a multiple of its {self.heads} heads")


# small, base and large: paper, table 6. The other sizes are the lab's own, for CPU cores.
SIZES: dict[str, EncoderConfig] = {
    "nano32": EncoderConfig(
        layers=1, hidden=32, ffn=128, heads=2, embedding=32, init_std=0.1, dropout=0
    ),
    "nano48": EncoderConfig(
        layers=2, hidden=48, ffn=192, heads=2, embedding=48, init_std=0.05, dropout=0
    ),
    "nano": EncoderConfig(
        layers=2, hidden=64, ffn=256, heads=2, embedding=64, init_std=0.05, dropout=0
    ),
    "nano96": EncoderConfig(
        layers=2, hidden=96, ffn=384, heads=3, embedding=96, init_std=0.05, dropout=0
    ),
    "tiny": EncoderConfig(
        layers=2, hidden=128, ffn=512, heads=4, embedding=128, init_std=0.05, dropout=0
    ),
    "mini": EncoderConfig(
        layers=4, hidden=256, ffn=1024, heads=4, embedding=128, init_std=0.04, dropout=0
    ),
    "small": EncoderConfig(layers=12, hidden=256, ffn=1024, heads=4, embedding=128),
    "base": EncoderConfig(layers=12, hidden=768, ffn=3072, heads=12, embedding=768),
    "large": EncoderConfig(layers=24, hidden=1024, ffn=4096, heads=16, embedding=1024),
}


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig(StrictConfig):
    """Size of the generator relative to the discriminator, on two axes.

    Attributes:
        width: hidden size of the generator divided by that of the discriminator (the axis that
            the ELECTRA paper varies); `ffn` and `heads` follow from it as in the paper.
        depth: number of layers of the generator divided by that of the discriminator (the axis
            that DeBERTaV3 and COCO-LM vary).
    """

    width: Annotated[float, Interval(gt=0, le=1)] = 0.5
    depth: Annotated[float, Interval(gt=0, le=1)] = 1.0

    def derive_shape(self, encoder: EncoderConfig) -> EncoderConfig:
        """Return the shape of the generator for a discriminator of shape `encoder`.

        Follows `run_pretraining.get_generator_config`: ffn = 4 x hidden, and as many heads of the
        encoder's head width (64 at the paper's sizes) as fit, at least one. The hidden size is
        rounded, so that 0.333 of 768 is 256. The embedding width is the encoder's, because the
        two networks share the embedding tables.

        Raises:
            ValueError: the resulting hidden size is below 2 or not a multiple of its number of
                heads, or the depth is less than half a layer.
        """
        hidden = round(encoder.hidden * self.width)
        if hidden < _LEAST_HIDDEN:
            raise ValueError(
                f"width must be at least {_LEAST_HIDDEN / encoder.hidden:.4g} of the hidden size "
                f"{encoder.hidden}, not {self.width:g}: LayerNorm over fewer than {_LEAST_HIDDEN} "
                f"units is constant"
            )
        if encoder.layers * self.depth < 0.5:
            raise ValueError(
                f"depth must be at least {0.5 / encoder.layers:.4g} of the {encoder.layers} "
                f"layers, not {self.depth:g}: the generator has at least one layer"
            )
        head_width = encoder.hidden // encoder.heads
        heads = max(1, hidden // head_width)
        if hidden % heads:
            raise ValueError(
                f"width {self.width:g} gives a generator of hidden size {hidden}, which is not a "
                f"multiple of its {heads} heads (one for each {head_width}); the largest valid "
                f"width below is {hidden // heads * heads / encoder.hidden:g}"
            )
        return replace(
            encoder,
            layers=max(1, round(encoder.layers * self.depth)),
            hidden=hidden,
            ffn=4 * hidden,
            heads=heads,
        )
