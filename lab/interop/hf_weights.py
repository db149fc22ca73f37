"""Conversion of ELECTRA weights between the lab's names and those of `transformers`.

A network is an encoder with one head. Its weights have the lab's names (`lab.training.weights`):
`encoder.*`, and `detection.*` or `vocabulary.*`. Rows of token tables and biases are in the lab's
order of tokens in the lab, and in the tokenizer's order in `transformers`.
"""

import json
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, processors
from transformers import (
    ElectraConfig,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from lab.config.architecture import EncoderConfig
from lab.data.vocabulary import PAD, Vocabulary
from lab.errors import UserError
from lab.training.model import DetectionHead, Encoder, VocabularyHead
from lab.training.weights import Weights, weights_below

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
class HfNetwork:
    """An encoder with a head, to be written for `transformers`.

    Attributes:
        shape: shape of the encoder.
        length: largest number of positions of a window.
        weights: weights by the lab's names.
        vocabulary: tokens and their order.
    """

    shape: EncoderConfig
    length: int
    weights: Weights
    vocabulary: Vocabulary


def build_hf_model(network: HfNetwork) -> Any:
    """Return an `ElectraForPreTraining`, or an `ElectraForMaskedLM` for a vocabulary head.

    Raises:
        UserError: the encoder has `norm: pre`, which ELECTRA in `transformers` does not support.
    """
    if network.shape.norm != "post":
        raise UserError(
            "encoder.norm: pre has no counterpart in transformers; only encoders trained with "
            "encoder.norm: post, the default, can be exported"
        )
    detects = bool(weights_below(network.weights, "detection"))
    model = (ElectraForPreTraining if detects else ElectraForMaskedLM)(_config(network))
    inner_V = torch.from_numpy(np.argsort(network.vocabulary.outer_V))
    state = {}
    for name, value in network.weights.items():
        state[to_hf_name(name)] = value[inner_V] if name in _TOKEN_ROWS else value
    if not detects:
        state[_TIED] = state[to_hf_name(_TABLE)]
    model.load_state_dict(state, strict=True)
    model.tie_weights()
    return model.eval()


def save_hf_model(network: HfNetwork, folder: File) -> None:
    """Write configuration, weights and tokenizer.

    Raises:
        UserError: as `build_hf_model`.
    """
    model = build_hf_model(network)
    model.save_pretrained(folder)
    build_hf_tokenizer(network.vocabulary, network.length).save_pretrained(folder)
    # transformers 5 writes the name of a class that version 4 lacks; both load this one.
    file = folder / "tokenizer_config.json"
    fields = json.loads(file.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    file.write_text(json.dumps(fields, indent=2) + "\n")


def load_hf_model(folder: File) -> Any:
    """Load a model that `save_hf_model` wrote.

    Raises:
        RuntimeError: weights are missing, unexpected or of another shape, or the output weights of
            a masked language model are not tied to its embeddings.
    """
    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    kind = {c.__name__: c for c in (ElectraForPreTraining, ElectraForMaskedLM)}[architecture]
    model, loading = kind.from_pretrained(folder, output_loading_info=True, use_safetensors=True)
    head = model.get_output_embeddings()
    tied = head is None or head.weight is model.get_input_embeddings().weight
    problems = [
        key for key in ("missing_keys", "unexpected_keys", "mismatched_keys") if loading[key]
    ]
    if problems or not tied:
        raise RuntimeError(
            f"{folder.name}: transformers does not load the weights that were written "
            f"({', '.join(problems) or 'untied embeddings'})"
        )
    return model.eval()


def to_lab_name(model: Any, vocabulary: Vocabulary) -> Weights:
    """Return the weights of a `transformers` model by the lab's names, tokens in the lab's order.

    Args:
        model: an `ElectraForPreTraining` or an `ElectraForMaskedLM`.
        vocabulary: tokens and their order.
    """
    config, state = model.config, model.state_dict()
    shape = EncoderConfig(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        ffn=config.intermediate_size,
        heads=config.num_attention_heads,
        embedding=config.embedding_size,
    )
    with torch.device("meta"):
        encoder = Encoder(shape, config.vocab_size, config.max_position_embeddings)
        detects = isinstance(model, ElectraForPreTraining)
        head = DetectionHead(shape) if detects else VocabularyHead(shape, config.vocab_size)
    modules = {"encoder": encoder, "detection" if detects else "vocabulary": head}
    names = [f"{path}.{name}" for path, module in modules.items() for name in module.state_dict()]
    outer_V = torch.from_numpy(vocabulary.outer_V)
    weights = {name: state[to_hf_name(name)].detach() for name in names}
    return weights | {name: weights[name][outer_V] for name in _TOKEN_ROWS if name in weights}


def to_hf_name(name: str) -> str:
    """Return the name that `transformers` gives to a weight of the lab."""
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
            raise ValueError(f"{name}: not a weight of a network that can be exported")
    return outer


def build_hf_tokenizer(vocabulary: Vocabulary, length: int) -> Any:
    """Return a tokenizer of `transformers`: [CLS] A [SEP] B [SEP], with token types 0 and 1.

    Args:
        vocabulary: the lab's tokenizer.
        length: largest number of positions of a window.
    """
    # A copy: unlike in the lab's own tokenizer, "[MASK]" in a text becomes the mask token.
    own = Tokenizer.from_str(vocabulary.tokenizer.to_str())
    special = vocabulary.special
    cls, sep = special["cls"], special["sep"]
    template = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(token, own.token_to_id(token)) for token in (cls, sep)],
    )
    trim = processors.ByteLevel(trim_offsets=True)
    byte_level = isinstance(own.decoder, decoders.ByteLevel)
    own.post_processor = processors.Sequence([trim, template]) if byte_level else template
    return PreTrainedTokenizerFast(
        tokenizer_object=own,
        model_max_length=length,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **{f"{role}_token": token for role, token in special.items()},
    )


def _config(network: HfNetwork) -> Any:
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
