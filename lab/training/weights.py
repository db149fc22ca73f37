"""An objective's weights by name, whatever its networks share: to leave with, and to start from.

`encoder.*`, `detection.*`, `vocabulary.*`, `generator.encoder.*`, `generator.vocabulary.*`, and
what else an objective has. Here every encoder has tables of its own, under the names of
`Embeddings`: what two networks share stands here twice, and a table that is a sum of two is one.
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

_KEPT, _GENERATORS = "encoder", "generator.encoder"
_WORDS, _POSITIONS = "embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"
_DELTAS = {
    "embeddings.word_delta": _WORDS,
    "embeddings.position_delta": _POSITIONS,
    "embeddings.token_type_delta": "embeddings.token_type_embeddings.weight",
}


class EncoderDims(NamedTuple):
    """What the weights of an encoder say of its shape; its heads they do not."""

    layers: int
    hidden: int
    ffn: int
    embedding: int
    vocab: int
    length: int


def collect_weights(objective: Objective) -> Weights:
    """Return all its weights, on the CPU."""
    named = {
        f"{place}.{name}": value.detach().cpu()
        for place, module in _parts(objective).items()
        for name, value in _state(module).items()
    }
    return dict(sorted(named.items()))


@torch.no_grad()
def assign_weights(weights: Weights, objective: Objective) -> None:
    """Give an objective the weights of those of its parts that are there; the others stay.

    Of more positions than the objective has, it takes the first. Where `weights` have no
    generator, one whose tables differ from the encoder's begins with the encoder's.

    Args:
        weights: by the names of `collect_weights`, of encoders of the objective's shapes.
        objective: gets them.
    """
    for place, module in _parts(objective).items():
        given = weights_below(weights, place)
        if not isinstance(module, Encoder):
            if given:
                module.load_state_dict(given)
        elif given:
            base = not weights_below(weights, _GENERATORS)
            module.load_state_dict(_stored(module, given, with_base=base))


def load_weights(file: File, objective: Objective) -> None:
    """Give an objective the weights of those of its parts that are in a file."""
    assign_weights(load_file(file), objective)


def weights_below(weights: Mapping[str, Tensor], place: str) -> Weights:
    """Return the weights below `place`, by their names there; none where it has none."""
    return {
        name.removeprefix(f"{place}."): value
        for name, value in weights.items()
        if name.startswith(f"{place}.")
    }


def infer_dims(encoder: Mapping[str, Tensor]) -> EncoderDims:
    """Return the shape that an encoder's weights have."""
    vocab, embedding = encoder[_WORDS].shape
    ffn, hidden = encoder["layers.0.intermediate.weight"].shape
    layers = sum(name.endswith(".query.weight") for name in encoder)
    return EncoderDims(layers, hidden, ffn, embedding, vocab, len(encoder[_POSITIONS]))


def _parts(objective: Objective) -> dict[str, nn.Module]:
    """Return what an objective is made of by place, the generator's first."""
    parts: dict[str, nn.Module] = {}
    for name, module in objective.named_children():
        match module:
            case Generator(encoder=encoder, vocabulary=vocabulary):
                parts = {_GENERATORS: encoder, "generator.vocabulary": vocabulary} | parts
            case _:
                parts[name] = module
    return parts


def _state(module: nn.Module) -> Weights:
    state: Weights = dict(module.state_dict())
    if not isinstance(module, Encoder):
        return state
    if isinstance(module.embeddings, DisentangledEmbeddings):
        base = {name: state.pop(name) for name in list(state) if ".base." in name}
        for delta, table in _DELTAS.items():
            state[table] = _of_base(base, table) + state.pop(delta)
    return state


def _stored(encoder: Encoder, given: Weights, *, with_base: bool) -> Weights:
    """Return an encoder's weights as it holds them itself."""
    given = given | {_POSITIONS: given[_POSITIONS][: encoder.length]}
    if not isinstance(encoder.embeddings, DisentangledEmbeddings):
        return given
    stored = encoder.state_dict()
    for delta, table in _DELTAS.items():
        wanted = given.pop(table)
        if with_base:
            stored[table.replace("embeddings.", "embeddings.base.", 1)] = wanted
        given[delta] = wanted - _of_base(stored, table)
    return stored | given


def _of_base(state: Mapping[str, Tensor], table: str) -> Tensor:
    return state[table.replace("embeddings.", "embeddings.base.", 1)]
