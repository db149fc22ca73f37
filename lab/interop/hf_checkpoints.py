"""Read ELECTRA checkpoints of `transformers` from a folder or the Hugging Face hub.

Checkpoints with missing weights are refused, since `transformers` would initialize a missing head
at random and only warn. So are checkpoints with settings that the lab's networks do not implement.
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

_NONE_IF_MISSING = {  # cached_file returns None instead of raising an error
    "_raise_exceptions_for_missing_entries": False,
    "_raise_exceptions_for_connection_errors": False,
}


def read_checkpoint(name: str, vocabulary: Vocabulary, *, detects: bool) -> tuple[Weights, int]:
    """Return a checkpoint's weights, by the lab's names, and its number of attention heads.

    Weights are read from safetensors, or from a pickle by `torch.load(weights_only=True)`, which
    executes no code of the file.

    Args:
        name: a folder, or a name on the hub.
        vocabulary: the vocabulary that the checkpoint must have.
        detects: True for a discriminator with its detection head, False for a masked language
            model.

    Raises:
        UserError: the checkpoint cannot be read, lacks weights, has another vocabulary, or is not
            an ELECTRA that the lab implements.
    """
    # Otherwise transformers starts a thread that requests a conversion of pickles from the hub.
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "true"
    kind = ElectraForPreTraining if detects else ElectraForMaskedLM
    with _one_line_errors():
        settings, _ = ElectraConfig.get_config_dict(name)
        _check_settings(settings, vocabulary)
        _check_tokens(name, vocabulary)
        model, loading = kind.from_pretrained(
            name, output_loading_info=True, dtype=torch.float32, weights_only=True
        )
    if missing := sorted(loading["missing_keys"]):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"it lacks {missing[0]}{more}; the checkpoint must be an {kind.__name__}")
    if not detects:
        output, embeddings = model.generator_lm_head.weight, model.get_input_embeddings().weight
        if not output.equal(embeddings):
            raise UserError("its output weights differ from its embeddings; the lab ties the two")
    return to_lab_name(model, vocabulary), model.config.num_attention_heads


def _check_settings(settings: dict[str, Any], vocabulary: Vocabulary) -> None:
    """Raise `UserError` for settings that the lab's networks do not implement."""
    if not settings:
        raise UserError("cannot be read: it has no config.json")
    if settings.get("model_type") != "electra":
        raise UserError(f"its model_type is {settings.get('model_type')!r}, not 'electra'")
    required = {"hidden_act": "gelu", "type_vocab_size": 2, "layer_norm_eps": 1e-12}
    for key, value in required.items():
        if settings.get(key, value) != value:
            raise UserError(f"its {key} is {settings[key]!r}; the lab's is {value!r}")
    vocab = settings.get("vocab_size", ElectraConfig().vocab_size)
    if vocab != vocabulary.size:
        raise UserError(f"its vocab_size is {vocab}, base.data.vocab has {vocabulary.size}")


def _check_tokens(name: str, vocabulary: Vocabulary) -> None:
    """Raise `UserError` if the checkpoint has a tokenizer with other tokens than `vocabulary`."""
    for number, token in _tokens(name):
        expected = vocabulary.tokenizer.id_to_token(number)
        if expected != token:
            raise UserError(f"its token {number} is {token!r}, and base.data's is {expected!r}")


def _tokens(name: str) -> Iterator[tuple[int, str]]:
    """Yield id and text of each token; nothing if the checkpoint has no tokenizer."""
    file = cached_file(name, "tokenizer.json", **_NONE_IF_MISSING)
    if file is not None:
        tokens = Tokenizer.from_file(file).get_vocab()
        yield from sorted((number, token) for token, number in tokens.items())
        return
    file = cached_file(name, "vocab.txt", **_NONE_IF_MISSING)
    if file is not None:
        yield from enumerate(File(file).read_text(encoding="utf-8").splitlines())


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Replace the errors of bad folders, damaged files and the hub by a `UserError` of one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # several libraries raise errors without a common base class
        if "weights_only" in str(error):  # torch's advice would execute the code of the file
            raise UserError(
                "cannot be read: its weights are a pickle of other objects than tensors, which "
                "could execute code; save them as model.safetensors"
            ) from None
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise UserError(f"cannot be read: {first}") from None
