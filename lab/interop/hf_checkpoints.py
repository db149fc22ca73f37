"""ELECTRA checkpoints of `transformers`, from a folder or the hub, by the lab's names.

What is missing, or is not what the lab's networks compute, is refused: `transformers` would draw a
missing head by chance and only warn (trap 11).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path as File
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining
from transformers.utils import cached_file

from lab.data.vocabulary import Vocabulary
from lab.errors import UserError
from lab.interop.hf_weights import to_lab_name
from lab.training.weights import Weights

_WHERE_THERE = {
    "_raise_exceptions_for_missing_entries": False,
    "_raise_exceptions_for_connection_errors": False,
}


def read_checkpoint(name: str, vocabulary: Vocabulary, *, detects: bool) -> tuple[Weights, int]:
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
    return to_lab_name(made, vocabulary), made.config.num_attention_heads


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
