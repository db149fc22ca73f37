"""The one place that knows `transformers`: its names for the weights of an ELECTRA.

A network here is an encoder with one head, by the lab's names (`weights`): `encoder.*`, and
`detection.*` or `vocabulary.*`. Rows that stand for tokens are in the lab's order inside and in the
tokenizer's outside.
"""

import json
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
    """An encoder with a head, as it leaves the lab.

    Attributes:
        shape: of the encoder.
        length: positions.
        weights: by the lab's names.
        vocabulary: its tokens.
    """

    shape: EncoderConfig
    length: int
    weights: Weights
    vocabulary: Vocabulary


def build_hf_model(network: HfNetwork) -> Any:
    """Return an `ElectraForPreTraining`, or an `ElectraForMaskedLM` for a vocabulary head.

    Raises:
        UserError: `norm: pre`, for which `transformers` has no counterpart.
    """
    if network.shape.norm != "post":
        raise UserError(
            "encoder.norm: pre has no counterpart in transformers; what is to leave the lab is "
            "trained with encoder.norm: post, the default"
        )
    detects = bool(weights_below(network.weights, "detection"))
    made = (ElectraForPreTraining if detects else ElectraForMaskedLM)(_config(network))
    inner_V = torch.from_numpy(np.argsort(network.vocabulary.outer_V))
    theirs = {}
    for name, value in network.weights.items():
        theirs[to_hf_name(name)] = value[inner_V] if name in _TOKEN_ROWS else value
    if not detects:
        theirs[_TIED] = theirs[to_hf_name(_TABLE)]
    made.load_state_dict(theirs, strict=True)
    made.tie_weights()
    return made.eval()


def save_hf_model(network: HfNetwork, folder: File) -> None:
    """Write configuration, weights and tokenizer.

    Raises:
        UserError: as `build_hf_model`.
    """
    made = build_hf_model(network)
    made.save_pretrained(folder)
    build_hf_tokenizer(network.vocabulary, network.length).save_pretrained(folder)
    # transformers 5 writes the name of a class that version 4 does not have; both read this one.
    said = folder / "tokenizer_config.json"
    fields = json.loads(said.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    said.write_text(json.dumps(fields, indent=2) + "\n")


def load_hf_model(folder: File) -> Any:
    """Return the model that `save_hf_model` wrote, whole: nothing missing, its head tied to its table.

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


def to_lab_name(made: Any, vocabulary: Vocabulary) -> Weights:
    """Return the weights of `made` by the lab's names, tokens in the lab's order."""
    config, theirs = made.config, made.state_dict()
    shape = EncoderConfig(
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
    weights = {name: theirs[to_hf_name(name)].detach() for name in names}
    return weights | {name: weights[name][outer_V] for name in _TOKEN_ROWS if name in weights}


def to_hf_name(name: str) -> str:
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


def build_hf_tokenizer(vocabulary: Vocabulary, length: int) -> Any:
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
