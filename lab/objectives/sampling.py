"""Tokens drawn by chance that belongs to the position: what is written over the text.

Letters: B examples, T positions, K slots, V vocabulary.
"""

import torch
from torch import Tensor

from lab import noise, spec
from lab.data import Batch
from lab.vocabulary import FIRST_WORD


def law(logits_BKV: Tensor, labels_BK: Tensor, settings: spec.Sampling) -> Tensor:
    """Return the logits, in fp32 (trap 6), of the distribution that tokens are drawn from.

    Args:
        logits_BKV: the generator's.
        labels_BK: the original tokens.
        settings: temperature, and whether the original may be drawn.
    """
    logits_BKV = logits_BKV.float()
    if settings.temperature != 1:
        logits_BKV = logits_BKV / settings.temperature
    if settings.disallow_correct:
        logits_BKV = logits_BKV.scatter(-1, labels_BK[..., None], -torch.inf)
    return logits_BKV


def sample(logits_BKV: Tensor, slots_BK: Tensor, batch: Batch, *, seed: int, step: int) -> Tensor:
    """Draw a token at each slot from the full softmax, without gradient.

    By inversion: one uniform number a slot against the cumulated probabilities, which has the
    law of the official Gumbel-max with V times less noise. In fp32 whatever the logits' type
    (trap 6). The noise belongs to the position, so a slot drawn twice gets one token.

    Returns:
        int64 tokens, shape (B, K).
    """
    with torch.no_grad():
        chance_BK = _chance(slots_BK, batch, seed, step)
        cumulated_BKV = logits_BKV.float().softmax(-1).cumsum(-1)
        # The last cumulated value is 1 but for rounding; scaling keeps the draw inside.
        target_BK1 = (chance_BK * cumulated_BKV[..., -1])[..., None]
        return torch.searchsorted(cumulated_BKV, target_BK1, right=True)[..., 0].clamp(
            max=logits_BKV.shape[-1] - 1
        )


def cumulated(law: str, counts_V: Tensor) -> Tensor:
    """Return the cumulated probabilities of words under a fixed law, shape (V,), float64.

    Args:
        law: `uniform` or `unigram`; special tokens have none in either.
        counts_V: how often each token stands in the training text.
    """
    weights_V = torch.ones_like(counts_V) if law == "uniform" else counts_V.clone()
    weights_V[:FIRST_WORD] = 0
    cumulated_V: Tensor = weights_V.double().cumsum(0)
    return cumulated_V / cumulated_V[-1]


def sample_words(
    cumulated_V: Tensor, slots_BK: Tensor, batch: Batch, *, seed: int, step: int
) -> Tensor:
    """Draw a word at each slot by its place in `cumulated_V`; int64, shape (B, K)."""
    chance_BK = _chance(slots_BK, batch, seed, step).double()
    return torch.searchsorted(cumulated_V, chance_BK, right=True)


def _chance(slots_BK: Tensor, batch: Batch, seed: int, step: int) -> Tensor:
    length = batch.ids_BT.shape[1]
    chance_BT = noise.uniform(seed, noise.SAMPLE, step, batch.example_B, length)
    return chance_BT.gather(1, slots_BK)
