"""Sampling of replacement tokens with random numbers that depend on the position.

Letters: B examples, T positions, K slots, V vocabulary, C tokens of a chunk, M chunks.
"""

import torch
from torch import Tensor

from lab.data.batches import Batch
from lab.data.vocabulary import FIRST_WORD
from lab.training import counter_rng

_CHUNK = (
    64  # tokens; about the square root of a vocabulary, so that both levels of a search are short
)


def sampling_logits_BKV(
    logits_BKV: Tensor, labels_BK: Tensor, *, temperature: float, disallow_correct: bool
) -> Tensor:
    """Return the logits of the distribution that tokens are sampled from, in fp32.

    Args:
        logits_BKV: logits of the generator.
        labels_BK: original tokens.
        temperature: divisor of the logits.
        disallow_correct: whether the original token has probability 0.
    """
    logits_BKV = logits_BKV.float()
    if temperature != 1:
        logits_BKV = logits_BKV / temperature
    if disallow_correct:
        logits_BKV = logits_BKV.scatter(-1, labels_BK[..., None], -torch.inf)
    return logits_BKV


def sample_tokens(
    logits_BKV: Tensor, draws_BK: Tensor, batch: Batch, *, seed: int, step: int
) -> Tensor:
    """Sample a token at each slot from the full softmax, without gradient.

    Inverse transform sampling: one uniform number per slot is looked up in the cumulative
    probabilities. The distribution is that of the official Gumbel-max sampling, with V times fewer
    random numbers. The search finds a chunk of tokens first and then the token in it, because sums
    over chunks are vectorised and cumulative sums are not. It runs in fp32 for any type of logits,
    because low-precision noise cannot reach unlikely tokens: Gumbel noise from bf16 uniform numbers
    is at most 5.54. A token of probability 0 is never sampled. NaN logits give an arbitrary valid
    token; divergence is then detected from the loss of the step.

    Args:
        logits_BKV: logits of the distribution, -inf for impossible tokens.
        draws_BK: index of each slot's random number (`MaskedBatch`), below the window length.
        batch: windows, for the identities of their examples.
        seed: seed of the sampling.
        step: index of the optimizer step.

    Returns:
        int64 token ids, shape (B, K).
    """
    with torch.no_grad():
        uniform_BK = _uniform_at(draws_BK, batch, seed, step)
        share_BKV = logits_BKV.float().softmax(-1)
        whole = share_BKV.shape[-1] // _CHUNK * _CHUNK
        share_BKM = torch.cat(
            [
                share_BKV[..., :whole].unflatten(-1, (-1, _CHUNK)).sum(-1),
                share_BKV[..., whole:].sum(-1, keepdim=True),
            ],
            -1,
        )
        # The shares add up to 1 except for rounding.
        chunk_BK1, rest_BK1 = _invert(share_BKM, uniform_BK[..., None])
        token_BKC = chunk_BK1 * _CHUNK + torch.arange(_CHUNK, device=share_BKV.device)
        inside_BKC = token_BKC < share_BKV.shape[-1]
        share_BKC = share_BKV.gather(-1, token_BKC.where(inside_BKC, 0)).where(inside_BKC, 0)
        token_BK1 = chunk_BK1 * _CHUNK + _invert(share_BKC, rest_BK1)[0]
        # With NaN the search returns an index past the end of the vocabulary.
        return token_BK1.clamp(max=share_BKV.shape[-1] - 1)[..., 0]


def _invert(share_BKN: Tensor, target_BK1: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first index with a cumulative share above the target, and the remaining target.

    The remaining target is the target minus the cumulative share before the index. Because of
    rounding a target may be at or above the sum of all shares; it is then lowered to the largest
    number below this sum, so that the index has a positive share.
    """
    cumulative_BKN = share_BKN.cumsum(-1)
    end_BK1 = cumulative_BKN[..., -1:]
    target_BK1 = target_BK1.minimum(end_BK1.nextafter(torch.zeros_like(end_BK1)))
    index_BK1 = torch.searchsorted(cumulative_BKN, target_BK1, right=True)
    before_BK1 = cumulative_BKN.gather(-1, (index_BK1 - 1).clamp(min=0)).where(index_BK1 > 0, 0)
    return index_BK1, target_BK1 - before_BK1


def cumulative_distribution(distribution: str, counts_V: Tensor) -> Tensor:
    """Return the cumulative probabilities of a distribution over words, shape (V,), float64.

    Args:
        distribution: `uniform` or `unigram`; special tokens have probability 0 in both.
        counts_V: number of occurrences of each token in the training text.
    """
    weights_V = torch.ones_like(counts_V) if distribution == "uniform" else counts_V.clone()
    weights_V[:FIRST_WORD] = 0
    cumulative_V: Tensor = weights_V.double().cumsum(0)
    return cumulative_V / cumulative_V[-1]


def sample_from_cumulative(
    cumulated_V: Tensor, draws_BK: Tensor, batch: Batch, *, seed: int, step: int
) -> Tensor:
    """Sample a word at each slot from cumulative probabilities.

    Args:
        cumulated_V: cumulative probabilities of the words.
        draws_BK: index of each slot's random number (`MaskedBatch`), below the window length.
        batch: windows, for the identities of their examples.
        seed: seed of the sampling.
        step: index of the optimizer step.

    Returns:
        int64 token ids, shape (B, K).
    """
    uniform_BK = _uniform_at(draws_BK, batch, seed, step).double()
    return torch.searchsorted(cumulated_V, uniform_BK, right=True)


def _uniform_at(draws_BK: Tensor, batch: Batch, seed: int, step: int) -> Tensor:
    """Return the uniform random number of each slot."""
    length = batch.ids_BT.shape[1]
    uniform_BT = counter_rng.uniform(seed, counter_rng.SAMPLE, step, batch.example_B, length)
    return uniform_BT.gather(1, draws_BK)
