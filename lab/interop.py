"""The one place that knows `transformers`: its names for the weights of an ELECTRA.

A network here is an encoder with one head, by the lab's names (`weights`): `encoder.*`, and
`detection.*` or `vocabulary.*`. Rows that stand for tokens are in the lab's order inside and in the
tokenizer's outside.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import (
    ElectraConfig,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    PreTrainedTokenizerFast,
)
from transformers.utils import cached_file, logging

from lab.errors import UserError
from lab.model import DetectionHead, Encoder, VocabularyHead
from lab.shapes import Encoder as Shape
from lab.vocabulary import PAD, Vocabulary
from lab.weights import Weights, part

_TABLE = "encoder.embeddings.word_embeddings.weight"
_TOKEN_ROWS = (_TABLE, "vocabulary.bias")
_TIED = "generator_lm_head.weight"
_BLOCK = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "output_norm": "output.LayerNorm",
}

logging.set_verbosity_error()
logging.disable_progress_bar()


@dataclass(frozen=True, kw_only=True)
class Network:
    """An encoder with a head, as it leaves the lab.

    Attributes:
        shape: of the encoder.
        length: positions.
        weights: by the lab's names.
        vocabulary: its tokens.
    """

    shape: Shape
    length: int
    weights: Weights
    vocabulary: Vocabulary


def model(network: Network) -> Any:
    """Return an `ElectraForPreTraining`, or an `ElectraForMaskedLM` for a vocabulary head.

    Raises:
        UserError: `norm: pre`, for which `transformers` has no counterpart.
    """
    if network.shape.norm != "post":
        raise UserError(
            "encoder.norm: pre has no counterpart in transformers; what is to leave the lab is "
            "trained with encoder.norm: post, the default"
        )
    detects = bool(part(network.weights, "detection"))
    made = (ElectraForPreTraining if detects else ElectraForMaskedLM)(_config(network))
    inner_V = torch.from_numpy(np.argsort(network.vocabulary.outer_V))
    theirs = {}
    for name, value in network.weights.items():
        theirs[outer_name(name)] = value[inner_V] if name in _TOKEN_ROWS else value
    if not detects:
        theirs[_TIED] = theirs[outer_name(_TABLE)]
    made.load_state_dict(theirs, strict=True)
    made.tie_weights()
    return made.eval()


def save(network: Network, folder: File) -> None:
    """Write configuration, weights and tokenizer.

    Raises:
        UserError: as `model`.
    """
    made = model(network)
    made.save_pretrained(folder)
    tokenizer(network.vocabulary, network.length).save_pretrained(folder)
    # transformers 5 writes the name of a class that version 4 does not have; both read this one.
    said = folder / "tokenizer_config.json"
    fields = json.loads(said.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    said.write_text(json.dumps(fields, indent=2) + "\n")


def load(folder: File) -> Any:
    """Return the model that `save` wrote, whole: nothing missing, its head tied to its table.

    Raises:
        RuntimeError: it is not.
    """
    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    kind = {c.__name__: c for c in (ElectraForPreTraining, ElectraForMaskedLM)}[architecture]
    made, said = kind.from_pretrained(folder, output_loading_info=True, use_safetensors=True)
    head = made.get_output_embeddings()
    tied = head is None or head.weight is made.get_input_embeddings().weight
    if any(said[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")) or not tied:
        raise RuntimeError(f"{folder.name}: transformers reads something else than was written")
    return made.eval()


def read(name: str, vocabulary: Vocabulary, *, detects: bool) -> tuple[Weights, int]:
    """Return a released network by the lab's names, and how many heads it has.

    Weights come from safetensors, or from a pickle that `torch.load(weights_only=True)` reads,
    which runs no code.

    Args:
        name: a folder, or a name on the hub.
        vocabulary: whose tokens it must have.
        detects: whether its head finds replaced tokens; it predicts tokens otherwise.

    Raises:
        UserError: it cannot be read, is no ELECTRA as the lab has it, or lacks weights.
    """
    # transformers would ask a service of the hub to convert a pickle, from a thread of its own.
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "true"
    kind = ElectraForPreTraining if detects else ElectraForMaskedLM
    with _in_one_line():
        settings, _ = ElectraConfig.get_config_dict(name)
        _check_settings(settings, vocabulary)
        _check_tokens(name, vocabulary)
        made, said = kind.from_pretrained(
            name, output_loading_info=True, dtype=torch.float32, weights_only=True
        )
    if missing := sorted(said["missing_keys"]):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"it lacks {missing[0]}{more}; it must be an {kind.__name__}")
    if not detects and not made.generator_lm_head.weight.equal(made.get_input_embeddings().weight):
        raise UserError("its head has a table of its own; the lab's is tied to the embeddings")
    return _inner(made, vocabulary), made.config.num_attention_heads


def _inner(made: Any, vocabulary: Vocabulary) -> Weights:
    """Return a model's weights by the lab's names, tokens in the lab's order."""
    config, theirs = made.config, made.state_dict()
    shape = Shape(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        ffn=config.intermediate_size,
        heads=config.num_attention_heads,
        embedding=config.embedding_size,
    )
    with torch.device("meta"):
        encoder = Encoder(shape, config.vocab_size, config.max_position_embeddings)
        detects = isinstance(made, ElectraForPreTraining)
        head = DetectionHead(shape) if detects else VocabularyHead(shape, config.vocab_size)
    places = {"encoder": encoder, "detection" if detects else "vocabulary": head}
    names = [f"{place}.{name}" for place, module in places.items() for name in module.state_dict()]
    outer_V = torch.from_numpy(vocabulary.outer_V)
    weights = {name: theirs[outer_name(name)].detach() for name in names}
    return weights | {name: weights[name][outer_V] for name in _TOKEN_ROWS if name in weights}


def _check_settings(settings: dict[str, Any], vocabulary: Vocabulary) -> None:
    """Refuse what the lab's network does not compute."""
    if not settings:
        raise UserError("cannot be read: it has no config.json")
    if settings.get("model_type") != "electra":
        raise UserError(f"its model_type is {settings.get('model_type')!r}, not 'electra'")
    wanted = {"hidden_act": "gelu", "type_vocab_size": 2, "layer_norm_eps": 1e-12}
    for key, value in wanted.items():
        if settings.get(key, value) != value:
            raise UserError(f"its {key} is {settings[key]!r}; the lab's is {value!r}")
    vocab = settings.get("vocab_size", ElectraConfig().vocab_size)
    if vocab != vocabulary.size:
        raise UserError(f"{vocab} tokens, base.data.vocab has {vocabulary.size}")


def _check_tokens(name: str, vocabulary: Vocabulary) -> None:
    """Refuse a checkpoint whose tokens are others, where it says which they are."""
    for number, token in _tokens(name):
        mine = vocabulary.tokenizer.id_to_token(number)
        if mine != token:
            raise UserError(f"its token {number} is {token!r}, and base.data's is {mine!r}")


def _tokens(name: str) -> Iterator[tuple[int, str]]:
    file = cached_file(name, "tokenizer.json", **_WHERE_THERE)
    if file is not None:
        tokens = Tokenizer.from_file(file).get_vocab()
        yield from sorted((number, token) for token, number in tokens.items())
        return
    file = cached_file(name, "vocab.txt", **_WHERE_THERE)
    if file is not None:
        yield from enumerate(File(file).read_text(encoding="utf-8").splitlines())


_WHERE_THERE = {
    "_raise_exceptions_for_missing_entries": False,
    "_raise_exceptions_for_connection_errors": False,
}


@contextmanager
def _in_one_line() -> Iterator[None]:
    """Turn what a bad folder, a damaged file or the hub throws into one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of many libraries, with no common base
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise UserError(f"cannot be read: {first}") from None


def outer_name(name: str) -> str:
    """Return transformers' name of a weight."""
    match name.split("."):
        case ["encoder", "layers", number, block, kind]:
            outer = f"electra.encoder.layer.{number}.{_BLOCK[block]}.{kind}"
        case ["encoder", "embeddings", "norm", kind]:
            outer = f"electra.embeddings.LayerNorm.{kind}"
        case ["encoder", *rest]:
            outer = ".".join(["electra", *rest])
        case ["detection", *rest]:
            outer = ".".join(["discriminator_predictions", *rest])
        case ["vocabulary", "bias"]:
            outer = "generator_lm_head.bias"
        case ["vocabulary", layer, kind]:
            outer = f"generator_predictions.{layer.replace('norm', 'LayerNorm')}.{kind}"
        case _:
            raise ValueError(f"{name}: no weight of a network that can leave the lab")
    return outer


def tokenizer(vocabulary: Vocabulary, length: int) -> Any:
    """Return the tokenizer as `transformers` has it: [CLS] A [SEP] B [SEP], types 0 and 1."""
    own = Tokenizer.from_str(vocabulary.tokenizer.to_str())  # "[MASK]" in a text is a mask here
    special = vocabulary.special
    cls, sep = special["cls"], special["sep"]
    own.post_processor = TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(token, own.token_to_id(token)) for token in (cls, sep)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=own,
        model_max_length=length,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **{f"{role}_token": spelt for role, spelt in special.items()},
    )


def _config(network: Network) -> Any:
    shape, outer_V = network.shape, network.vocabulary.outer_V
    return ElectraConfig(
        vocab_size=network.vocabulary.size,
        embedding_size=shape.embedding,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.ffn,
        hidden_dropout_prob=shape.dropout,
        attention_probs_dropout_prob=shape.dropout,
        max_position_embeddings=network.length,
        initializer_range=shape.init_std,
        pad_token_id=int(outer_V[PAD]),
        tie_word_embeddings=True,
    )
