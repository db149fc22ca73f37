"""What several files share: one thread, a little prepared text, and weights for transformers."""

import os
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

# No test asserts a time: how long an example takes depends on what else the machine does.
settings.register_profile("lab", deadline=None)
settings.load_profile("lab")

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, by whatever test
os.environ["HF_HUB_OFFLINE"] = "1"  # transformers builds models here, and fetches none

# A shell starts background jobs with SIGINT ignored, which the processes that tests interrupt would
# inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if TYPE_CHECKING:
    from pathlib import Path

    from prepared_text import PreparedText
    from torch import Tensor, nn


@pytest.fixture(scope="session")
def prepared_text(tmp_path_factory: pytest.TempPathFactory) -> "PreparedText":
    """Return one hundredth of the embedded documents, with the smallest tokenizer and windows."""
    from prepared_text import PreparedText

    from lab.config.data import DataConfig
    from lab.data import batches, preparation

    settings = DataConfig(share=0.01, held_out=0.1, vocab=400, length=16)
    text = preparation.prepare_text(settings, tmp_path_factory.mktemp("text"))
    return PreparedText(settings, text, batches.open_corpus(text))


@pytest.fixture(scope="session")
def held_out(
    prepared_text: "PreparedText", tmp_path_factory: pytest.TempPathFactory
) -> "Iterator[Path]":
    """Return the frozen corruptions of the prepared text; their model has hardly been trained."""
    from lab.evaluation import corruption

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corruption, "_FROZEN_TOKENS", 16_384)
        patch.setattr(corruption, "_TOKENS", 4_096)
        cache = tmp_path_factory.mktemp("held_out")
        yield corruption.prepare_held_out(prepared_text.corpus, prepared_text.data, cache)


@pytest.fixture(scope="session")
def few_sentences() -> Iterator[None]:
    """Let probes read few sentences and fit for few steps, so that one takes some milliseconds."""
    from lab.evaluation import probes
    from lab.tasks import embedded

    limits = {("pos", "train"): 100, ("pos", "test"): 50}
    limits |= {("sentiment", "train"): 200, ("sentiment", "test"): 150}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "_LIMITS", limits)
        patch.setattr(probes, "_STEPS", 12)
        for cached in (embedded.read_embedded, embedded._labels, probes.probe_windows):
            cached.cache_clear()
        yield
    for cached in (embedded.read_embedded, embedded._labels, probes.probe_windows):
        cached.cache_clear()


@pytest.fixture(scope="session")
def unsynced() -> Iterator[None]:
    """Let databases not wait for the disk: no test cuts the power."""
    from sqlalchemy import Engine, event

    def connected(connection: Any, _: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", connected)
    yield
    event.remove(Engine, "connect", connected)


@pytest.fixture(scope="session")
def transformers_model() -> "Callable[..., Any]":
    """Return a function that gives a model of transformers the weights of ours, name by name."""
    return _transformers_model


# transformers' name of each part of ours, as a reader of a checkpoint would look it up.
_EMBEDDINGS = {
    "word_embeddings": "word_embeddings",
    "position_embeddings": "position_embeddings",
    "token_type_embeddings": "token_type_embeddings",
    "norm": "LayerNorm",
}
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


def _transformers_model(
    encoder: "nn.Module", head: "nn.Module", shape: Any, vocab: int, length: int
) -> Any:
    """Return `ElectraForPreTraining` or `ElectraForMaskedLM`, whichever has a head like `head`."""
    import torch
    from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

    from lab.training.model import DetectionHead

    config = ElectraConfig(
        vocab_size=vocab,
        embedding_size=shape.embedding,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.ffn,
        max_position_embeddings=length,
        hidden_dropout_prob=shape.dropout,
        attention_probs_dropout_prob=shape.dropout,
    )
    names = {f"embeddings.{a}": f"electra.embeddings.{b}" for a, b in _EMBEDDINGS.items()}
    names |= {"embeddings_project": "electra.embeddings_project"}
    names |= {
        f"layers.{layer}.{a}": f"electra.encoder.layer.{layer}.{b}"
        for layer in range(shape.layers)
        for a, b in _BLOCK.items()
    }
    weights: dict[str, Tensor] = {}
    for name, value in encoder.state_dict().items():
        part, kind = name.rsplit(".", 1)
        weights[f"{names[part]}.{kind}"] = value
    own = head.state_dict()
    if isinstance(head, DetectionHead):
        model = ElectraForPreTraining(config)
        weights |= {f"discriminator_predictions.{name}": value for name, value in own.items()}
    else:
        model = ElectraForMaskedLM(config)
        weights["generator_lm_head.weight"] = weights["electra.embeddings.word_embeddings.weight"]
        weights["generator_lm_head.bias"] = own["bias"]
        for name in ("dense.weight", "dense.bias"):
            weights[f"generator_predictions.{name}"] = own[name]
        for name in ("weight", "bias"):
            weights[f"generator_predictions.LayerNorm.{name}"] = own[f"norm.{name}"]
    with torch.no_grad():
        model.load_state_dict(weights, strict=True)
    return model.eval()
