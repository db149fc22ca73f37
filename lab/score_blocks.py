"""Contributions of the blocks of a test set to a score, for the sampling error of the test set.

A test set is cut into contiguous blocks: its documents, or groups of whole documents where there
are many. Test sets without documents (sentences, minimal pairs, evaluation rows of tasks) and those
of few documents are cut into groups of neighboring units. The contribution of a block is the sum of
the influence of its units on the score, so that the contributions sum to zero. Where the influence
has no formula, it is that of the jackknife (`jackknife_blocks`).

The sum of the squares of the contributions estimates the variance of the score over test sets; it
equals the variance of a bootstrap of blocks up to terms of higher order. The difference between two
trials on the same test set has the differences of the contributions.

Letters: N units of a test set (words, positions), B blocks.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

BLOCKS = 100
_FEWEST = 10  # documents from which the variance between documents is estimated

ScoreBlocks = dict[str, list[float]]  # contribution of each block, by the name of the metric


def assign_blocks(groups: int) -> Tensor:
    """Return the block of each of `groups` consecutive groups (windows, sentences), int64."""
    return torch.arange(groups) * min(BLOCKS, groups) // max(1, groups)


def document_blocks(document_G: Tensor) -> Tensor:
    """Return the block of each of G consecutive groups of a text with documents, int64, shape (G,).

    The blocks are the documents, or contiguous groups of whole documents if there are more than
    `BLOCKS`. With fewer than `_FEWEST` documents, they are contiguous groups of `document_G`
    without regard to documents, and the variance is that over texts of the same documents.

    Args:
        document_G: index of the document of each group (window, word), ascending.
    """
    rank_G = (document_G.diff(prepend=document_G[:1]) != 0).cumsum(0)
    documents = int(rank_G[-1]) + 1 if len(rank_G) else 0
    if documents < _FEWEST:
        return assign_blocks(len(document_G))
    return assign_blocks(documents)[rank_G]


def mean_blocks(values_N: Tensor, block_N: Tensor) -> list[float]:
    """Return the contributions to the mean of `values_N`: accuracy, or mean loss."""
    return ratio_blocks(values_N, torch.ones_like(values_N, dtype=torch.float64), block_N)


def ratio_blocks(values_N: Tensor, weights_N: Tensor, block_N: Tensor) -> list[float]:
    """Return the contributions to the sum of `values_N` over the sum of `weights_N`."""
    values_N, weights_N = values_N.double(), weights_N.double()
    total = weights_N.sum()
    return _sum_blocks((values_N - values_N.sum() / total * weights_N) / total, block_N)


def auroc_blocks(scores_N: Tensor, positive_N: Tensor, block_N: Tensor) -> list[float]:
    """Return the contributions to the area under the ROC curve.

    The influence of a positive is its placement, the share of negatives with a lower score, minus
    the area, over the number of positives; correspondingly for a negative (DeLong et al. 1988; the
    sum over blocks is the estimate for clustered data of Obuchowski 1997).
    """
    positive, negative = scores_N[positive_N], scores_N[~positive_N]
    above_P = _placements(positive, negative)
    below_M = 1 - _placements(negative, positive)
    influence_N = torch.zeros(len(scores_N), dtype=torch.float64)
    influence_N[positive_N] = (above_P - above_P.mean()) / len(positive)
    influence_N[~positive_N] = (below_M - below_M.mean()) / len(negative)
    return _sum_blocks(influence_N, block_N)


def jackknife_blocks(score: Callable[[Tensor], float], block_N: Tensor) -> list[float]:
    """Return the contributions to any score, from its values without each of the blocks.

    With s the score, s_b the score without block b, and w_b the share of the units in the block,
    the contribution is (1 - w_b) (s - s_b), minus the mean over blocks. For a mean of units it
    equals `mean_blocks`. For blocks of equal size, B / (B - 1) times the sum of squares is the
    jackknife estimate of the variance (Efron and Stein 1981; the weights for unequal blocks are
    those of Busing, Meijer and van der Leeden 1999).

    Args:
        score: function that returns the score of some units, NaN if it is undefined. Its argument
            is a mask of the units, bool, shape (N,).
        block_N: block of each unit, int64.

    Returns:
        An empty list with fewer than two blocks, or if the score is undefined without one of them.
    """
    B = int(block_N.max()) + 1 if len(block_N) else 0
    if B < 2:
        return []
    shares_B = block_N.bincount(minlength=B).double() / len(block_N)
    whole = score(torch.ones_like(block_N, dtype=torch.bool))
    without_B = torch.tensor([score(block_N != b) for b in range(B)], dtype=torch.float64)
    values_B = (1 - shares_B) * (whole - without_B)
    return _round_finite(values_B - values_B.mean())


def _placements(scores: Tensor, others: Tensor) -> Tensor:
    """Return the share of `others` below each score, where a tie counts as half."""
    ordered = others.sort().values
    below = torch.searchsorted(ordered, scores)
    not_above = torch.searchsorted(ordered, scores, right=True)
    return (below + not_above).double() / (2 * len(others))


def _sum_blocks(influence_N: Tensor, block_N: Tensor) -> list[float]:
    """Return the sum of each block (`_round_finite`)."""
    sums = torch.zeros(int(block_N.max()) + 1, dtype=torch.float64)
    sums.index_add_(0, block_N.cpu(), influence_N.cpu())
    return _round_finite(sums)


def _round_finite(values_B: Tensor) -> list[float]:
    """Return the values with four digits; an empty list if one is not finite."""
    values = [float(f"{value:.3e}") for value in values_B.tolist()]
    return values if all(map(math.isfinite, values)) else []
