"""Numbers of parameters N of a trial, by definition.

Laws with N that counts embeddings, or that does not, have different exponents
(`lab.scaling.definitions`), so every number of the section on scaling states its definition.
"""

import math
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from lab.config.architecture import EncoderConfig, GeneratorConfig
from lab.config.flops import encoder_weights
from lab.config.objectives import AnyObjectiveConfig

BLOCKS = "encoder without embeddings"  # the definition of the fits
HEADS = "encoder without embeddings, with its head"
TABLES = "encoder with embeddings"
NETWORKS = "all networks with embeddings"
_SEGMENTS = 2  # rows of the table of token types
_PREDICTORS = frozenset(
    get_args(get_type_hints(objective)["kind"])[0]
    for objective in get_args(AnyObjectiveConfig)
    if "predictor" in objective.networks
)
SHAPE = ("layers", "hidden", "ffn", "heads", "embedding")


def count_parameters(trial: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of parameters of a trial, by the name of the definition.

    They count the weights of the encoder that the trial exports: its blocks and the projection of
    the embeddings; the same and its head; the blocks and the embedding tables; the same and the
    blocks of the generator, if there is one. The head has the output matrix of a vocabulary head,
    although that is tied to the token embeddings: of the two, it is the one that computes (Porian
    et al. 2024).

    Args:
        trial: row of `SweepFrames.trials`.
    """
    encoder = _encoder(trial)
    rows = trial["data.vocab"] + trial["data.length"] + _SEGMENTS
    blocks = float(encoder_weights(encoder))
    tables = blocks + float(rows) * encoder.embedding
    head = _head_weights(encoder, int(trial["data.vocab"]), str(trial["objective.kind"]))
    counts = {BLOCKS: blocks, HEADS: blocks + head, TABLES: tables}
    generator = _generator(trial, encoder)
    if generator is not None:
        counts[NETWORKS] = tables + encoder_weights(generator)
    return counts


def describe_shape(trial: Mapping[str, Any]) -> str:
    """Return width and layers of a trial's encoder: `64 × 2`."""
    return f"{int(trial['encoder.hidden'])} × {int(trial['encoder.layers'])}"


def _head_weights(encoder: EncoderConfig, vocab: int, objective: str) -> float:
    """Return the weights of the head of the exported encoder (`lab.training.model`)."""
    h, e = encoder.hidden, encoder.embedding
    if objective in _PREDICTORS:  # dense layer, LayerNorm, output matrix and its bias
        return h * e + e + 2 * e + vocab * e + vocab
    return h * h + h + h + 1  # dense layer, and one logit


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
