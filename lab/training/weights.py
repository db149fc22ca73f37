"""Weights of an objective by names that do not depend on weight sharing.

Used for export and for initial weights. The names are `encoder.*`, `detection.*`, `vocabulary.*`,
`generator.encoder.*`, `generator.vocabulary.*`, and those of further modules of the objective.
Every encoder has complete embedding tables under the names of `Embeddings`: a shared table occurs
once for each network, and a disentangled table is the sum of its two parts.
"""

from collections.abc import Mapping
from pathlib import Path as File
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lab.training.model import DisentangledEmbeddings, Encoder
from lab.training.objectives.base import Objective
from lab.training.objectives.generator import Generator

Weights = dict[str, Tensor]

_GENERATOR_ENCODER = "generator.encoder"
_WORDS, _POSITIONS = "embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"
_DELTAS = {
    "embeddings.word_delta": _WORDS,
    "embeddings.position_delta": _POSITIONS,
    "embeddings.token_type_delta": "embeddings.token_type_embeddings.weight",
}


class EncoderDims(NamedTuple):
    """Dimensions of an encoder that follow from its weights; the number of heads does not."""

    layers: int
    hidden: int
    ffn: int
    embedding: int
    vocab: int
    length: int


def collect_weights(objective: Objective) -> Weights:
    """Return all weights of an objective, on the CPU, sorted by name."""
    weights = {
        f"{prefix}.{name}": value.detach().cpu()
        for prefix, module in _modules_by_prefix(objective).items()
        for name, value in _merged_state(module).items()
    }
    return dict(sorted(weights.items()))


@torch.no_grad()
def assign_weights(weights: Weights, objective: Objective) -> None:
    """Set the weights of the modules that occur in `weights`; other modules do not change.

    If a position table is longer than the objective's, its first rows are used. If it is shorter,
    the further positions keep the values that the objective has. If `weights` contain no generator
    and the encoder's embeddings are disentangled, the generator's tables are set to the encoder's.

    Args:
        weights: weights by the names of `collect_weights`; other shapes must match
            the objective's.
        objective: objective that receives the weights.
    """
    for prefix, module in _modules_by_prefix(objective).items():
        state = weights_below(weights, prefix)
        if not isinstance(module, Encoder):
            if state:
                module.load_state_dict(state)
        elif state:
            with_base = not weights_below(weights, _GENERATOR_ENCODER)
            module.load_state_dict(_split_state(module, state, with_base=with_base))


def load_weights(file: File, objective: Objective) -> None:
    """Set the weights of the modules that occur in a safetensors file; others do not change."""
    assign_weights(load_file(file), objective)


def weights_below(weights: Mapping[str, Tensor], prefix: str) -> Weights:
    """Return the weights with names that start with `prefix` and a dot, by the rest of the name."""
    return {
        name.removeprefix(f"{prefix}."): value
        for name, value in weights.items()
        if name.startswith(f"{prefix}.")
    }


def infer_dims(encoder: Mapping[str, Tensor]) -> EncoderDims:
    """Return the dimensions of an encoder, inferred from its weights by name."""
    vocab, embedding = encoder[_WORDS].shape
    ffn, hidden = encoder["layers.0.intermediate.weight"].shape
    layers = sum(name.endswith(".query.weight") for name in encoder)
    return EncoderDims(layers, hidden, ffn, embedding, vocab, len(encoder[_POSITIONS]))


def _modules_by_prefix(objective: Objective) -> dict[str, nn.Module]:
    """Return the modules of an objective by the prefix of their weights, the generator's first."""
    parts: dict[str, nn.Module] = {}
    for name, module in objective.named_children():
        match module:
            case Generator(encoder=encoder, vocabulary=vocabulary):
                parts = {_GENERATOR_ENCODER: encoder, "generator.vocabulary": vocabulary} | parts
            case _:
                parts[name] = module
    return parts


def _merged_state(module: nn.Module) -> Weights:
    """Return a module's state; each disentangled table is the sum of its two parts."""
    state: Weights = dict(module.state_dict())
    if not isinstance(module, Encoder):
        return state
    if isinstance(module.embeddings, DisentangledEmbeddings):
        base = {name: state.pop(name) for name in list(state) if ".base." in name}
        for delta, table in _DELTAS.items():
            state[table] = _base_table(base, table) + state.pop(delta)
    return state


def _split_state(encoder: Encoder, merged: Weights, *, with_base: bool) -> Weights:
    """Return the state to load into `encoder`, with disentangled tables split into two parts.

    Args:
        encoder: encoder that will receive the state.
        merged: state with complete tables, as `_merged_state` returns it.
        with_base: whether to replace the base tables as well, so that the differences are zero.
    """
    positions = merged[_POSITIONS][: encoder.length]
    further = _merged_state(encoder)[_POSITIONS][len(positions) :].to(positions)
    merged = merged | {_POSITIONS: torch.cat([positions, further])}
    if not isinstance(encoder.embeddings, DisentangledEmbeddings):
        return merged
    state = encoder.state_dict()
    for delta, table in _DELTAS.items():
        total = merged.pop(table)
        if with_base:
            state[table.replace("embeddings.", "embeddings.base.", 1)] = total
        merged[delta] = total - _base_table(state, table)
    return state | merged


def _base_table(state: Mapping[str, Tensor], table: str) -> Tensor:
    return state[table.replace("embeddings.", "embeddings.base.", 1)]
