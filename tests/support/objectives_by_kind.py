"""What the tests of several rungs share: a small trial, a text, and the weights as others see them.

Letters: B examples, T positions, K slots.
"""

from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lab.config import trial as spec
from lab.config.architecture import EncoderConfig
from lab.config.budget import Budget
from lab.config.data import DataConfig
from lab.config.objectives import AnyObjectiveConfig
from lab.data.batches import Batch
from lab.data.vocabulary import CLS, FIRST_WORD, PAD, SEP
from lab.training.model import DisentangledEmbeddings, Embeddings, Encoder
from lab.training.objectives import build_objective
from lab.training.objectives.base import StepLoss
from lab.training.objectives.masking import MaskedBatch

VOCAB, LENGTH, SEED = 48, 16, 3
SHAPE = EncoderConfig(layers=2, hidden=16, ffn=64, heads=2, embedding=8, init_std=0.2, dropout=0)
SHARES = [0.5, 0.2, 0.1, 0.1, 0.05, 0.05]  # of the few words in the text, so that samples hit some
TABLES = ("word", "position", "token_type")


def made(
    objective: AnyObjectiveConfig, vocab: int = VOCAB, length: int = LENGTH, noise: float = 0.1
) -> Any:
    """Return the objective; noise gives every weight, biases and differences too, its own value."""
    trial = spec.Trial(
        encoder=SHAPE,
        objective=objective,
        data=DataConfig(vocab=vocab, length=length),
        budget=Budget(kind="tokens", amount=1e6),
        seeds=spec.Seeds(init=1, mask=SEED),
    )
    counts_V = torch.ones(vocab)
    counts_V[FIRST_WORD : FIRST_WORD + len(SHARES)] += 100 * torch.tensor(SHARES)
    built, chance = build_objective(trial, counts_V), torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += noise * torch.randn(parameter.shape, generator=chance)
    return built


def text(rows: int = 12, length: int = LENGTH) -> Batch:
    """Return windows of 14, 13, … words at length 16."""
    draw = np.random.default_rng(0)
    ids_BT = np.full((rows, length), PAD)
    for place, row in enumerate(ids_BT):
        n = length - 2 - place % (length - 5)
        row[: n + 2] = [CLS, *FIRST_WORD + draw.choice(len(SHARES), n, p=SHARES), SEP]
    return Batch(torch.from_numpy(ids_BT), torch.arange(rows) + 100)


class Drawn(NamedTuple):
    """What chance gave in a step, position by position.

    Attributes:
        loss: that the objective made of it.
        chosen_BT: the used slots.
        shown_BT: what the generator read.
        written_BT: the text with the samples.
        labels_BT: the original at the used slots, -100 elsewhere, as transformers wants it.
    """

    loss: StepLoss
    chosen_BT: Tensor
    shown_BT: Tensor
    written_BT: Tensor
    labels_BT: Tensor


def placed(loss: StepLoss, masked: MaskedBatch, tokens_BK: Tensor, batch: Batch) -> Drawn:
    """Write what was drawn slot by slot to its positions, one at a time."""
    chosen_BT = torch.zeros_like(batch.ids_BT, dtype=torch.bool)
    written_BT, labels_BT = batch.ids_BT.clone(), torch.full_like(batch.ids_BT, -100)
    for b, k in masked.used_BK.nonzero().tolist():
        place = masked.slots_BK[b, k]
        chosen_BT[b, place] = True
        written_BT[b, place] = tokens_BK[b, k]
        labels_BT[b, place] = batch.ids_BT[b, place]
    return Drawn(loss, chosen_BT, masked.ids_BT, written_BT, labels_BT)


def observed(objective: Any, batch: Batch, step: int, *learns: Any) -> Drawn:
    """Return the loss of an objective with a generator, and what was drawn on the way."""
    seen: list[Any] = []
    handle = objective.generator.register_forward_hook(lambda *given: seen.append(given[2]))
    loss = objective(batch, step, *learns)
    handle.remove()
    (corrupted,) = seen
    return placed(loss, corrupted.masked, corrupted.sampled_BK, batch)


def only_masked(loss: StepLoss, masked: MaskedBatch, batch: Batch) -> Drawn:
    """Return what was drawn where nothing is sampled: the slots, and what stands there."""
    return placed(loss, masked, masked.labels_BK, batch)


def plain(encoder: Encoder) -> Encoder:
    """Return a copy whose tables, where they are sums of two, are written out."""
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
    """Return a copy with the gradients as its weights, so that they can go where weights go.

    Of tables that are sums the encoder learns one part, the difference; the other counts as 0.
    """
    copy = deepcopy(module)
    for mine, its in zip(copy.parameters(), module.parameters(), strict=True):
        mine.data = its.grad.clone()
    if isinstance(copy, Encoder) and isinstance(copy.embeddings, DisentangledEmbeddings):
        for parameter in copy.embeddings.base.parameters():
            parameter.data.zero_()
    return copy


def assert_same_gradients(ours: nn.Module, theirs: nn.Module) -> None:
    """Compare our gradients, which stand where weights stand, with theirs, name by name."""
    found = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        size = parameter.grad.norm().item()
        # The softmax ignores what is added to all keys.
        assert size > 1e-5 or name.endswith("key.bias"), name
        torch.testing.assert_close(
            found[name].detach(),
            parameter.grad,
            rtol=1e-4,
            atol=1e-5 * max(size, 0.1),
            msg=lambda text, name=name: f"{name}: {text}",
        )
