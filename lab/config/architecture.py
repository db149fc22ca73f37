"""Shapes of the two networks: the encoder that is kept, and the generator relative to it."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from annotated_types import Gt, Interval

from lab.config.base import StrictConfig

Count = Annotated[int, Interval(ge=1, le=1_000_000)]
Share = Annotated[float, Interval(ge=0, lt=1)]


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(StrictConfig):
    """Shape of a transformer encoder.

    Attributes:
        layers: number of blocks.
        hidden: width of the residual stream.
        ffn: inner width of the feed-forward network.
        heads: attention heads; must divide `hidden`.
        embedding: width of the token table; a linear map follows where it differs from `hidden`.
        init_std: standard deviation of the initial weights (truncated at two). 0.02 is BERT's
            and suits width 768; narrow encoders need more (reports/LOG.md).
        dropout: on hidden states and attention weights while training.
        norm: LayerNorm after each block, as BERT and ELECTRA, or before it.
    """

    layers: Count
    hidden: Count
    ffn: Count
    heads: Count
    embedding: Count
    init_std: Annotated[float, Gt(0)] = 0.02
    dropout: Share = 0.1
    norm: Literal["post", "pre"] = "post"

    def __post_init__(self) -> None:
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is not a multiple of its {self.heads} heads")


# Paper, table 6 (small, base, large). The others are the lab's own, for CPU cores.
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
    """The generator relative to the discriminator, on two axes.

    Attributes:
        width: ratio of hidden sizes (the paper's axis); ffn and heads follow the paper.
        depth: ratio of layer counts (the axis of DeBERTaV3 and COCO-LM).
    """

    width: Annotated[float, Interval(gt=0, le=1)] = 0.5
    depth: Annotated[float, Interval(gt=0, le=1)] = 1.0

    def of(self, encoder: EncoderConfig) -> EncoderConfig:
        """Return the generator's shape beside `encoder`.

        As `run_pretraining.get_generator_config`: ffn = 4 x hidden, and as many heads of the
        encoder's head width as fit, at least one (64 at the paper's sizes). Rounded, so that
        0.333 of 768 is 256. The embedding width stays, because the table is shared.

        Raises:
            ValueError: the width is no multiple of the heads it calls for.
        """
        hidden = max(1, round(encoder.hidden * self.width))
        head_width = encoder.hidden // encoder.heads
        heads = max(1, hidden // head_width)
        if hidden % heads:
            raise ValueError(
                f"width {self.width:g} makes the generator {hidden} wide, which its {heads} heads "
                f"(one for each {head_width}) do not divide; "
                f"{hidden // heads * heads / encoder.hidden:g} is the nearest below that they do"
            )
        return replace(
            encoder,
            layers=max(1, round(encoder.layers * self.depth)),
            hidden=hidden,
            ffn=4 * hidden,
            heads=heads,
        )
