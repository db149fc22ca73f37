"""The encoder and its heads, compared with transformers and with their definitions."""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lab.config.architecture import SIZES, EncoderConfig, GeneratorConfig
from lab.training.initialization import initialize_weights
from lab.training.model import (
    DetectionHead,
    DisentangledEmbeddings,
    Encoder,
    VocabularyHead,
    gather_slots,
)

VOCAB, LENGTH = 60, 12
PROJECTED = EncoderConfig(layers=3, hidden=24, ffn=40, heads=3, embedding=8, dropout=0)
STRAIGHT = replace(PROJECTED, embedding=24)
PRE = replace(PROJECTED, norm="pre")
IDS_BT = torch.randint(VOCAB, (5, LENGTH), generator=torch.Generator().manual_seed(0))
ALL_BT = torch.ones(5, LENGTH, dtype=torch.bool)
PADDED_BT = torch.arange(LENGTH) < torch.tensor([12, 9, 3, 1, 11])[:, None]

Model = Callable[..., Any]
shapes = pytest.mark.parametrize("shape", [PROJECTED, STRAIGHT], ids=["projected", "straight"])
texts = pytest.mark.parametrize("text_BT", [ALL_BT, PADDED_BT], ids=["unpadded", "padded"])


def randomized(module: nn.Module, seed: int = 1) -> Any:
    """Return the module with random weights, including those of biases and LayerNorm."""
    rng = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        nn.init.normal_(parameter, parameter.mean().item(), 0.2, rng)
    return module.eval()


@shapes
@texts
@torch.no_grad()
def test_discriminator_equals_transformers_electra(
    shape: EncoderConfig, text_BT: Tensor, transformers_model: Model
) -> None:
    encoder, head = randomized(Encoder(shape, VOCAB, LENGTH)), randomized(DetectionHead(shape))
    reference = transformers_model(encoder, head, shape, VOCAB, LENGTH)
    expected_BT = reference(IDS_BT, attention_mask=text_BT.long()).logits
    actual_BT = head(encoder(IDS_BT, text_BT))
    assert expected_BT.std() > 0.1
    assert actual_BT[text_BT].equal(expected_BT[text_BT])


@shapes
@texts
@torch.no_grad()
def test_generator_equals_transformers_electra_at_the_slots(
    shape: EncoderConfig, text_BT: Tensor, transformers_model: Model
) -> None:
    encoder, head = (
        randomized(Encoder(shape, VOCAB, LENGTH)),
        randomized(VocabularyHead(shape, VOCAB)),
    )
    reference = transformers_model(encoder, head, shape, VOCAB, LENGTH)
    expected_BTV = reference(IDS_BT, attention_mask=text_BT.long()).logits
    slots_BK = torch.tensor([[0, 11, 3], [8, 8, 1], [2, 1, 0], [0, 0, 0], [5, 6, 7]])
    table_Ve = encoder.embeddings.word_embeddings.weight
    actual_BKV = head(gather_slots(encoder(IDS_BT, text_BT), slots_BK), table_Ve)
    expected_BKV = torch.stack([expected_BTV[b, slots] for b, slots in enumerate(slots_BK)])
    assert actual_BKV.shape == (5, 3, VOCAB)
    assert actual_BKV.equal(expected_BKV)


@pytest.mark.parametrize("disentangled", [False, True], ids=["own", "disentangled"])
@torch.no_grad()
def test_offset_is_the_row_of_the_position_table_of_the_first_token(
    disentangled: bool,
) -> None:
    """The output equals that of an encoder with a position table that starts at this row."""

    encoder = Encoder(PROJECTED, VOCAB, LENGTH)
    if disentangled:
        encoder.embeddings = DisentangledEmbeddings(encoder.embeddings, PROJECTED)
    rolled = deepcopy(randomized(encoder))
    tables = ["position_delta", "base.position_embeddings.weight"]
    for name in tables if disentangled else ["position_embeddings.weight"]:
        table = rolled.embeddings.get_parameter(name)
        table.copy_(table.roll(-5, 0))
    ids_BT, text_BT = IDS_BT[:, :7], PADDED_BT[:, :7]
    actual_BTh = encoder(ids_BT, text_BT, 5)
    assert actual_BTh.equal(rolled(ids_BT, text_BT))
    assert not actual_BTh.equal(encoder(ids_BT, text_BT))


@shapes
@texts
@torch.no_grad()
def test_every_layer_equals_transformers_hidden_states(
    shape: EncoderConfig, text_BT: Tensor, transformers_model: Model
) -> None:
    encoder, head = randomized(Encoder(shape, VOCAB, LENGTH)), randomized(DetectionHead(shape))
    reference = transformers_model(encoder, head, shape, VOCAB, LENGTH)
    expected = reference(
        IDS_BT, attention_mask=text_BT.long(), output_hidden_states=True
    ).hidden_states
    actual = encoder.compute_hidden_states(IDS_BT, text_BT)
    assert len(actual) == len(expected) == shape.layers + 1
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours[text_BT].equal(theirs[text_BT])
    assert encoder(IDS_BT, text_BT).equal(actual[-1])


def pre_norm(encoder: Encoder, shape: EncoderConfig, ids_BT: Tensor, text_BT: Tensor) -> Tensor:
    """Return the last layer by definition: x + f(norm(x)) twice per block, then a LayerNorm."""
    tables = encoder.embeddings
    positions = torch.arange(ids_BT.shape[1])
    x = tables.word_embeddings(ids_BT) + tables.position_embeddings(positions)
    x = encoder.embeddings_project(x + tables.token_type_embeddings(torch.zeros_like(ids_BT)))
    d = shape.hidden // shape.heads
    for block in encoder.layers:
        normed = F.layer_norm(
            x, (shape.hidden,), block.attention_norm.weight, block.attention_norm.bias, 1e-12
        )
        mixed = []
        for head in range(shape.heads):
            own = slice(head * d, (head + 1) * d)
            q, k, v = (part(normed)[..., own] for part in (block.query, block.key, block.value))
            scores_BTT = q @ k.mT / math.sqrt(d)
            scores_BTT = scores_BTT.masked_fill(~text_BT[:, None, :], -torch.inf)
            mixed.append(scores_BTT.softmax(-1) @ v)
        x = x + block.attention_output(torch.cat(mixed, -1))
        normed = F.layer_norm(
            x, (shape.hidden,), block.output_norm.weight, block.output_norm.bias, 1e-12
        )
        x = x + block.output(F.gelu(block.intermediate(normed)))
    last = encoder.final_norm
    return F.layer_norm(x, (shape.hidden,), last.weight, last.bias, 1e-12)


@texts
@torch.no_grad()
def test_pre_norm_equals_its_definition(text_BT: Tensor) -> None:
    encoder = randomized(Encoder(PRE, VOCAB, LENGTH))
    expected_BTh = pre_norm(encoder, PRE, IDS_BT, text_BT)
    actual_BTh = encoder(IDS_BT, text_BT)
    torch.testing.assert_close(actual_BTh[text_BT], expected_BTh[text_BT], atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [PROJECTED, PRE], ids=["post", "pre"])
@torch.no_grad()
def test_padding_does_not_affect_the_text(shape: EncoderConfig) -> None:
    encoder = randomized(Encoder(shape, VOCAB, LENGTH))
    other_BT = torch.where(PADDED_BT, IDS_BT, 7)
    first, second = encoder(IDS_BT, PADDED_BT), encoder(other_BT, PADDED_BT)
    assert first[PADDED_BT].equal(second[PADDED_BT])
    alone = encoder(IDS_BT[1:2, :9], ALL_BT[1:2, :9])
    torch.testing.assert_close(first[1:2, :9], alone, atol=1e-5, rtol=0)


@torch.no_grad()
def test_dropout_applies_in_training_only() -> None:
    shape = replace(PROJECTED, dropout=0.1)
    encoder = randomized(Encoder(shape, VOCAB, LENGTH))
    assert encoder(IDS_BT, ALL_BT).equal(encoder(IDS_BT, ALL_BT))
    encoder.train()
    assert not encoder(IDS_BT, ALL_BT).equal(encoder(IDS_BT, ALL_BT))


def test_small_has_the_parameter_counts_of_the_paper() -> None:
    small, vocab, length = SIZES["small"], 30_522, 512
    narrow = GeneratorConfig(width=1 / 4).derive_shape(small)
    with torch.device("meta"):
        discriminator = [Encoder(small, vocab, length), DetectionHead(small)]
        body, head = Encoder(narrow, vocab, length), VocabularyHead(narrow, vocab)
    body.embeddings = discriminator[0].embeddings
    shared = {p for part in discriminator for p in part.parameters()}
    own = {p for part in (body, head) for p in part.parameters()} - shared
    assert sum(p.numel() for p in shared) == 13_549_057
    assert sum(p.numel() for p in own) == pytest.approx(0.65e6, rel=0.01)


def test_vocabulary_head_has_no_embedding_table() -> None:
    shapes = [p.shape for p in VocabularyHead(PROJECTED, VOCAB).parameters()]
    assert [shape for shape in shapes if VOCAB in shape] == [(VOCAB,)]


def test_vocabulary_head_bias_is_initialized_to_unigram_frequencies() -> None:
    head = VocabularyHead(PROJECTED, 4)
    head.initialize_bias(torch.tensor([0, 0, 5, 11]))
    expected = torch.tensor([1, 1, 6, 12]) / 20
    torch.testing.assert_close(head.bias.detach().softmax(0), expected)


def test_initial_weights_depend_on_the_seed_alone() -> None:
    def weights(seed: int) -> dict[str, Tensor]:
        torch.rand(torch.seed() % 17)  # changes the state of torch's generator
        encoder = randomized(Encoder(PRE, VOCAB, LENGTH), seed=torch.seed() % 1_000)
        initialize_weights(encoder, replace(PRE, init_std=0.05), seed)
        return encoder.state_dict()

    first, same, other = weights(1), weights(1), weights(2)
    assert all(first[name].equal(same[name]) for name in first)
    assert all(
        first[name].equal(other[name]) == ("norm" in name or name.endswith("bias"))
        for name in first
    )


@pytest.mark.parametrize("std", [0.02, 0.05])
def test_initial_weights_are_normal_truncated_at_two_deviations(std: float) -> None:
    encoder = Encoder(replace(PRE, hidden=96, ffn=384), 500, 64)
    initialize_weights(encoder, replace(PRE, init_std=std), 0)
    truncated = 0.8796  # deviation of the standard normal truncated at two
    for name, value in encoder.named_parameters():
        if value.ndim > 1:
            assert value.abs().max() <= 2 * std, name
            if value.numel() > 5_000:
                assert value.std().item() == pytest.approx(truncated * std, rel=0.05), name
                assert value.mean().item() == pytest.approx(0, abs=0.1 * std), name
        else:
            norm = "norm" in name and name.endswith("weight")
            assert (value == (1 if norm else 0)).all(), name


def test_shared_module_is_initialized_once() -> None:
    """A module shared by two encoders has the weights of a single encoder with the same seed."""
    pair = nn.ModuleList([Encoder(PRE, VOCAB, LENGTH), Encoder(PRE, VOCAB, LENGTH)])
    single = Encoder(PRE, VOCAB, LENGTH)
    pair[1].embeddings = pair[0].embeddings
    initialize_weights(pair, PRE, 0)
    initialize_weights(single, PRE, 0)
    first = pair[0].state_dict()
    assert all(value.equal(first[name]) for name, value in single.state_dict().items())
