"""Numbers of parameters N of a trial, by definition.

Laws with N that counts embeddings, or that does not, have different exponents
(`lab.scaling.definitions`), so every number of the section on scaling states its definition.
"""

import math
from collections.abc import Mapping
from typing import Any

from lab.config.architecture import EncoderConfig, GeneratorConfig
from lab.config.flops import encoder_weights

BLOCKS = "encoder without embeddings"  # the definition of the fits
TABLES = "encoder with embeddings"
NETWORKS = "all networks with embeddings"
_SEGMENTS = 2  # rows of the table of token types
SHAPE = ("layers", "hidden", "ffn", "heads", "embedding")


def count_parameters(trial: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of parameters of a trial, by the name of the definition.

    They count the weights of the encoder that the trial exports: its blocks and the projection of
    the embeddings; the same and the embedding tables; the same and the blocks of the generator,
    if there is one. Heads are not counted.

    Args:
        trial: row of `SweepFrames.trials`.
    """
    encoder = _encoder(trial)
    rows = trial["data.vocab"] + trial["data.length"] + _SEGMENTS
    blocks = float(encoder_weights(encoder))
    tables = blocks + float(rows) * encoder.embedding
    counts = {BLOCKS: blocks, TABLES: tables}
    generator = _generator(trial, encoder)
    if generator is not None:
        counts[NETWORKS] = tables + encoder_weights(generator)
    return counts


def describe_shape(trial: Mapping[str, Any]) -> str:
    """Return width and layers of a trial's encoder: `64 × 2`."""
    return f"{int(trial['encoder.hidden'])} × {int(trial['encoder.layers'])}"


def _encoder(trial: Mapping[str, Any]) -> EncoderConfig:
    layers, hidden, ffn, heads, embedding = (int(trial[f"encoder.{name}"]) for name in SHAPE)
    return EncoderConfig(layers=layers, hidden=hidden, ffn=ffn, heads=heads, embedding=embedding)


def _generator(trial: Mapping[str, Any], encoder: EncoderConfig) -> EncoderConfig | None:
    """Return the shape of the trial's generator; None if it has none."""
    width, depth = (
        trial.get(f"objective.generator.{name}", math.nan) for name in ("width", "depth")
    )
    if math.isnan(width):  # of an objective without a generator
        return None
    return GeneratorConfig(width=float(width), depth=float(depth)).derive_shape(encoder)
