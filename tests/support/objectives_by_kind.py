"""Shared by tests of several objectives: small objectives, a text, drawn samples, gradients.

Letters: B examples, T positions, K slots.
"""

from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lab.config.architecture import EncoderConfig
from lab.config.budget import Budget
from lab.config.data import DataConfig
from lab.config.objectives import AnyObjectiveConfig
from lab.config.trial import Seeds, Trial
from lab.data.batches import Batch
from lab.data.vocabulary import CLS, FIRST_WORD, PAD, SEP
from lab.training.model import DisentangledEmbeddings, Embeddings, Encoder
from lab.training.objectives import build_objective
from lab.training.objectives.base import StepLoss
from lab.training.objectives.masking import MaskedBatch

VOCAB, LENGTH, SEED = 48, 16, 3
SHAPE = EncoderConfig(layers=2, hidden=16, ffn=64, heads=2, embedding=8, init_std=0.2, dropout=0)
SHARES = [
    0.5,
    0.2,
    0.1,
    0.1,
    0.05,
    0.05,
]  # word frequencies; few words, so that samples often equal the original
TABLES = ("word", "position", "token_type")


def make_objective(
    objective: AnyObjectiveConfig, vocab: int = VOCAB, length: int = LENGTH, noise: float = 0.1
) -> Any:
    """Return a small objective with noise added to all parameters.

    Args:
        objective: settings of the objective.
        vocab: number of tokens.
        length: window length.
        noise: standard deviation of the noise.
    """
    trial = Trial(
        encoder=SHAPE,
        objective=objective,
        data=DataConfig(vocab=vocab, length=length),
        budget=Budget(kind="tokens", amount=1e6),
        seeds=Seeds(init=1, mask=SEED),
    )
    counts_V = torch.ones(vocab)
    counts_V[FIRST_WORD : FIRST_WORD + len(SHARES)] += 100 * torch.tensor(SHARES)
    built, chance = build_objective(trial, counts_V), torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += noise * torch.randn(parameter.shape, generator=chance)
    return built


def text(rows: int = 12, length: int = LENGTH) -> Batch:
    """Return a batch of windows with `length` - 2, `length` - 3, … words."""
    draw = np.random.default_rng(0)
    ids_BT = np.full((rows, length), PAD)
    for index, row in enumerate(ids_BT):
        n = length - 2 - index % (length - 5)
        row[: n + 2] = [CLS, *FIRST_WORD + draw.choice(len(SHARES), n, p=SHARES), SEP]
    return Batch(torch.from_numpy(ids_BT), torch.arange(rows) + 100)


class Drawn(NamedTuple):
    """The loss of a step and its random choices by position.

    Attributes:
        loss: loss of the objective.
        chosen_BT: mask of the chosen positions.
        shown_BT: token ids that the generator read.
        written_BT: token ids with the samples at the chosen positions.
        labels_BT: original token ids at the chosen positions, -100 elsewhere (the convention of
            `transformers`).
    """

    loss: StepLoss
    chosen_BT: Tensor
    shown_BT: Tensor
    written_BT: Tensor
    labels_BT: Tensor


def placed(loss: StepLoss, masked: MaskedBatch, tokens_BK: Tensor, batch: Batch) -> Drawn:
    """Return the choices by position, converted from slots one at a time."""
    chosen_BT = torch.zeros_like(batch.ids_BT, dtype=torch.bool)
    written_BT, labels_BT = batch.ids_BT.clone(), torch.full_like(batch.ids_BT, -100)
    for b, k in masked.used_BK.nonzero().tolist():
        position = masked.slots_BK[b, k]
        chosen_BT[b, position] = True
        written_BT[b, position] = tokens_BK[b, k]
        labels_BT[b, position] = batch.ids_BT[b, position]
    return Drawn(loss, chosen_BT, masked.ids_BT, written_BT, labels_BT)


def observed(objective: Any, batch: Batch, step: int, *updates: Any) -> Drawn:
    """Return the loss of an objective with a generator, and the choices of the step."""
    seen: list[Any] = []
    handle = objective.generator.register_forward_hook(lambda *call: seen.append(call[2]))
    loss = objective(batch, step, *updates)
    handle.remove()
    (corrupted,) = seen
    return placed(loss, corrupted.masked, corrupted.sampled_BK, batch)


def only_masked(loss: StepLoss, masked: MaskedBatch, batch: Batch) -> Drawn:
    """Return the loss and the chosen positions of an objective that samples no tokens."""
    return placed(loss, masked, masked.labels_BK, batch)


def plain(encoder: Encoder) -> Encoder:
    """Return a copy in which embedding tables that are sums of two parts are single tables."""
    copy = deepcopy(encoder)
    if isinstance(parts := copy.embeddings, DisentangledEmbeddings):
        vocab, length = len(parts.word_delta), len(parts.position_delta)
        copy.embeddings = Embeddings(SHAPE, vocab, length)
        copy.embeddings.norm = parts.norm
        with torch.no_grad():
            for name in TABLES:
                base = getattr(parts.base, f"{name}_embeddings").weight
                total = base + getattr(parts, f"{name}_delta")
                getattr(copy.embeddings, f"{name}_embeddings").weight.copy_(total)
    return copy


def gradient(module: nn.Module) -> Any:
    """Return a copy with the gradients as weights, so that they can be converted like weights.

    Of embedding tables that are sums only the difference is trained; the base is set to 0.
    """
    copy = deepcopy(module)
    for copied, original in zip(copy.parameters(), module.parameters(), strict=True):
        copied.data = original.grad.clone()
    if isinstance(copy, Encoder) and isinstance(copy.embeddings, DisentangledEmbeddings):
        for parameter in copy.embeddings.base.parameters():
            parameter.data.zero_()
    return copy


def assert_same_gradients(ours: nn.Module, theirs: nn.Module) -> None:
    """Compare the gradients stored as weights in `ours` with the gradients of `theirs`, by name."""
    gradients = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        size = parameter.grad.norm().item()
        # A bias added to all keys does not change the softmax, so its gradient is 0.
        assert size > 1e-5 or name.endswith("key.bias"), name
        torch.testing.assert_close(
            gradients[name].detach(),
            parameter.grad,
            rtol=1e-4,
            atol=1e-5 * max(size, 0.1),
            msg=lambda text, name=name: f"{name}: {text}",
        )
