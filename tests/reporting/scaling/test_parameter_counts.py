"""Numbers of parameters are those of the networks that are trained."""

from dataclasses import asdict

import pytest
from frames.scaling_frames import flatten

from lab.config.architecture import EncoderConfig
from lab.loading.search_space import build_trial
from lab.reporting.scaling.parameter_counts import (
    BLOCKS,
    HEADS,
    NETWORKS,
    TABLES,
    count_parameters,
)
from lab.training.model import DetectionHead, Encoder, VocabularyHead


def count_weights(shape: EncoderConfig, vocab: int, length: int) -> tuple[int, int]:
    """Return the weights of the blocks and the embedding projection, and those of the tables."""
    encoder = Encoder(shape, vocab, length)
    tables = sum(
        weights.numel()
        for name, weights in encoder.embeddings.named_parameters()
        if name.endswith("embeddings.weight")
    )
    norm = sum(weights.numel() for weights in encoder.embeddings.parameters()) - tables
    return sum(weights.numel() for weights in encoder.parameters()) - tables - norm, tables


@pytest.mark.parametrize("size", ["nano32", "nano", "mini"])
def test_counts_are_those_of_the_modules(size: str) -> None:
    base = {
        "encoder": {"size": size}, "budget": {"kind": "flops", "amount": 1e13},
        "objective": {"kind": "electra", "generator": {"width": 0.5}},
    }  # fmt: skip
    trial = build_trial(base, {})
    data, generator = trial.data, trial.objective.generator_shape(trial.encoder)
    assert generator is not None
    blocks, tables = count_weights(trial.encoder, data.vocab, data.length)
    others, _ = count_weights(generator, data.vocab, data.length)
    head = sum(weights.numel() for weights in DetectionHead(trial.encoder).parameters())
    assert count_parameters(dict(flatten(asdict(trial)))) == {
        BLOCKS: blocks, HEADS: blocks + head, TABLES: blocks + tables,
        NETWORKS: blocks + tables + others,
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["mlm", "replace_mlm", "all_tokens_mlm"])
def test_head_of_a_predictor_has_the_output_matrix(kind: str) -> None:
    base = {
        "encoder": {"size": "nano"}, "budget": {"kind": "flops", "amount": 1e13},
        "objective": {"kind": kind},
    }  # fmt: skip
    trial = build_trial(base, {})
    vocab = trial.data.vocab
    head = sum(weights.numel() for weights in VocabularyHead(trial.encoder, vocab).parameters())
    counts = count_parameters(dict(flatten(asdict(trial))))
    assert counts[HEADS] == counts[BLOCKS] + head + vocab * trial.encoder.embedding
