"""Tokens drawn by chance that belongs to the position: what is written over the text.

Letters: B examples, T positions, K slots, V vocabulary, C tokens of a chunk, M chunks.
"""

import torch
from torch import Tensor

from lab.data.batches import Batch
from lab.data.vocabulary import FIRST_WORD
from lab.training import counter_rng

_CHUNK = 64  # tokens; about the root of a vocabulary, so that both levels of a draw are short


def sampling_logits_BKV(
    logits_BKV: Tensor, labels_BK: Tensor, *, temperature: float, disallow_correct: bool
) -> Tensor:
    """Return the logits, in fp32 (trap 6), of the distribution that tokens are drawn from.

    Args:
        logits_BKV: the generator's.
        labels_BK: the original tokens.
        temperature: divides the logits.
        disallow_correct: whether the original may not be drawn.
    """
    logits_BKV = logits_BKV.float()
    if temperature != 1:
        logits_BKV = logits_BKV / temperature
    if disallow_correct:
        logits_BKV = logits_BKV.scatter(-1, labels_BK[..., None], -torch.inf)
    return logits_BKV


def sample_tokens(
    logits_BKV: Tensor, slots_BK: Tensor, batch: Batch, *, seed: int, step: int
) -> Tensor:
    """Draw a token at each slot from the full softmax, without gradient.

    By inversion: one uniform number a slot against the cumulated probabilities, which has the
    law of the official Gumbel-max with V times less noise. It finds first the chunk of tokens
    and then the token in it, because sums over chunks are vectorised and a cumulated sum is not.
    In fp32 whatever the logits' type (trap 6). The noise belongs to the position, so a slot
    drawn twice gets one token. A token of probability 0 is never drawn. Where logits are NaN, the
    token is any of the vocabulary: the loss of the step says that the run has diverged.

    Returns:
        int64 tokens, shape (B, K).
    """
    with torch.no_grad():
        chance_BK = _chance(slots_BK, batch, seed, step)
        share_BKV = logits_BKV.float().softmax(-1)
        whole = share_BKV.shape[-1] // _CHUNK * _CHUNK
        share_BKM = torch.cat(
            [
                share_BKV[..., :whole].unflatten(-1, (-1, _CHUNK)).sum(-1),
                share_BKV[..., whole:].sum(-1, keepdim=True),
            ],
            -1,
        )
        # The shares add up to 1 but for rounding.
        chunk_BK1, rest_BK1 = _invert(share_BKM, chance_BK[..., None])
        token_BKC = chunk_BK1 * _CHUNK + torch.arange(_CHUNK, device=share_BKV.device)
        inside_BKC = token_BKC < share_BKV.shape[-1]
        share_BKC = share_BKV.gather(-1, token_BKC.where(inside_BKC, 0)).where(inside_BKC, 0)
        token_BK1 = chunk_BK1 * _CHUNK + _invert(share_BKC, rest_BK1)[0]
        # NaN exceeds nothing: the index found is then past the end, which no table can look up.
        return token_BK1.clamp(max=share_BKV.shape[-1] - 1)[..., 0]


def _invert(share_BKN: Tensor, target_BK1: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first index whose cumulated share exceeds the target, and what is left of it.

    Rounding may put a target at or above the sum of all shares; it is lowered to the number
    before that sum, so that an index with a share of its own is found.
    """
    cumulated_BKN = share_BKN.cumsum(-1)
    end_BK1 = cumulated_BKN[..., -1:]
    target_BK1 = target_BK1.minimum(end_BK1.nextafter(torch.zeros_like(end_BK1)))
    index_BK1 = torch.searchsorted(cumulated_BKN, target_BK1, right=True)
    before_BK1 = cumulated_BKN.gather(-1, (index_BK1 - 1).clamp(min=0)).where(index_BK1 > 0, 0)
    return index_BK1, target_BK1 - before_BK1


def cumulative_distribution(law: str, counts_V: Tensor) -> Tensor:
    """Return the cumulated probabilities of words under a fixed law, shape (V,), float64.

    Args:
        law: `uniform` or `unigram`; special tokens have none in either.
        counts_V: how often each token stands in the training text.
    """
    weights_V = torch.ones_like(counts_V) if law == "uniform" else counts_V.clone()
    weights_V[:FIRST_WORD] = 0
    cumulated_V: Tensor = weights_V.double().cumsum(0)
    return cumulated_V / cumulated_V[-1]


def sample_from_cumulative(
    cumulated_V: Tensor, slots_BK: Tensor, batch: Batch, *, seed: int, step: int
) -> Tensor:
    """Draw a word at each slot by its place in `cumulated_V`; int64, shape (B, K)."""
    chance_BK = _chance(slots_BK, batch, seed, step).double()
    return torch.searchsorted(cumulated_V, chance_BK, right=True)


def _chance(slots_BK: Tensor, batch: Batch, seed: int, step: int) -> Tensor:
    length = batch.ids_BT.shape[1]
    chance_BT = counter_rng.uniform(seed, counter_rng.SAMPLE, step, batch.example_B, length)
    return chance_BT.gather(1, slots_BK)
