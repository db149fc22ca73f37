"""Zero-shot minimal pairs: the share of pairs in which the good sentence has the higher score.

The form is that of BLiMP (Warstadt et al. 2020). Nothing is trained. The score of a sentence is the
sum of these log-probabilities over its tokens, without special tokens:

- discriminators: the probability that the token is original, given the sentence;
- `mlm`: the probability of the token, given the sentence without its word (pseudo-log-likelihood,
  Salazar et al. 2020). All tokens of a word are masked together, because the other tokens of a word
  reveal a masked one (Kauf and Ivanova 2023);
- encoders that predict tokens from a text with replaced ones: the probability of the token, given
  the sentence.

If a sentence is longer than the window, only the tokens around the difference are read and scored;
both sentences of the pair keep the same tokens before and after it. A difference that is longer
than the window is cut at its end.

Letters: P pairs, N sentences (all good ones, then all bad ones), B windows or rows of a batch, T
positions, R rows with a masked word, M masked tokens, V vocabulary, h hidden width.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Tensor
from torch.nn import functional as F

from lab.config.metrics import PAIRS_ACCURACY, category_metric
from lab.config.results import MetricRow
from lab.data.batches import segment_ids
from lab.data.vocabulary import CLS, MASK, PAD, SEP, Encoded, Ids, Vocabulary
from lab.score_blocks import ScoreBlocks, assign_blocks, ratio_blocks
from lab.tasks.minimal_pairs import MinimalPair, list_categories
from lab.training.objectives.base import Detector, Objective
from lab.training.objectives.generator import cross_entropy
from lab.training.objectives.mlm import Mlm
from lab.training.objectives.predictors import AllTokensMlm, Predictor

_ROWS = 512  # windows encoded at once
_LOGITS = 2**24  # logits over the vocabulary computed at once


@dataclass(frozen=True, kw_only=True)
class PairWindows:
    """The sentences of pairs as windows, no longer than the longest sentence needs.

    Attributes:
        ids_NT: tokens.
        word_NT: index of the word in its sentence that a position belongs to; -1 for none.
    """

    ids_NT: Tensor
    word_NT: Tensor


def score_pairs(
    objective: Objective,
    vocabulary: Vocabulary,
    pairs: tuple[MinimalPair, ...],
    blocks: ScoreBlocks | None = None,
) -> MetricRow:
    """Return the accuracy in each category, and their mean.

    The objective is in evaluation mode meanwhile, and none of its state changes. The row is empty
    for an objective that gives tokens no probability.

    Args:
        objective: objective to score.
        vocabulary: vocabulary of the encoder.
        pairs: pairs.
        blocks: mapping to which the contribution of each block of pairs is added, by score.
    """
    training = objective.training
    objective.eval()
    scores_N = score_sentences(objective, pair_windows(vocabulary, pairs, objective.encoder.length))
    objective.train(training)
    if scores_N is None:
        return {}
    if blocks is not None:
        blocks |= accuracy_blocks(scores_N, pairs)
    return accuracies(scores_N, pairs)


def accuracies(scores_N: Tensor, pairs: Sequence[MinimalPair]) -> MetricRow:
    """Return the share of pairs with the higher score for the good sentence, as metrics.

    A tie counts half. The overall accuracy is the mean of the categories' accuracies.

    Args:
        scores_N: score of each sentence; an accuracy is NaN if a score of its category is.
        pairs: the pairs.
    """
    right_P, members = _right_pairs(scores_N), _members_of_categories(pairs)
    means = {name: right_P[in_category_P].mean().item() for name, in_category_P in members.items()}
    return {PAIRS_ACCURACY: sum(means.values()) / len(means)} | means


def accuracy_blocks(scores_N: Tensor, pairs: Sequence[MinimalPair]) -> ScoreBlocks:
    """Return the contributions of contiguous groups of pairs to each accuracy of `accuracies`.

    Pairs have no documents. Neighboring pairs of the package exchange the same two words in
    opposite directions, and are mostly in the same group.

    Args:
        scores_N: score of each sentence.
        pairs: the pairs.
    """
    right_P, members = _right_pairs(scores_N), _members_of_categories(pairs)
    block_P = assign_blocks(len(pairs))
    overall_P = torch.zeros_like(right_P)
    weight_P = torch.zeros_like(right_P)
    blocks: ScoreBlocks = {}
    for name, in_category_P in members.items():
        mean = right_P[in_category_P].mean()
        blocks[name] = ratio_blocks(right_P.where(in_category_P, 0.0), in_category_P, block_P)
        overall_P[in_category_P] = (right_P[in_category_P] - mean) / in_category_P.sum()
        weight_P[in_category_P] = 1 / in_category_P.sum()
    blocks[PAIRS_ACCURACY] = ratio_blocks(overall_P, weight_P, block_P)
    return blocks


def _right_pairs(scores_N: Tensor) -> Tensor:
    """Return 1 for each pair whose good sentence has the higher score, .5 for a tie, (P,)."""
    good_P, bad_P = scores_N.double().chunk(2)
    right_P = (good_P > bad_P).double() + (good_P == bad_P).double() / 2
    right_P[good_P.isnan() | bad_P.isnan()] = math.nan
    return right_P


def _members_of_categories(pairs: Sequence[MinimalPair]) -> dict[str, Tensor]:
    """Return whether each pair is in a category, bool, shape (P,), by the category's metric."""
    names = [pair.category for pair in pairs]
    return {
        category_metric(category).name: torch.tensor([name == category for name in names])
        for category in list_categories(pairs)
    }


@torch.no_grad()
def score_sentences(objective: Objective, windows: PairWindows) -> Tensor | None:
    """Return the score of each sentence, float64, shape (N,); None if the objective has none.

    Args:
        objective: objective in evaluation mode.
        windows: sentences.
    """
    match objective:
        case Detector():
            return _sum_over_tokens(objective, windows, partial(_log_original, objective))
        case Predictor():
            return _sum_over_tokens(objective, windows, partial(_log_predicted, objective))
        case Mlm():
            return _pseudo_log_likelihood(objective, windows)
        case _:
            return None


def _log_original(detector: Detector, ids_BT: Tensor) -> Tensor:
    """Return the log-probability that a token is original, shape (B, T)."""
    return F.logsigmoid(-detector.detect(ids_BT, segment_ids(ids_BT)).float())


def _log_predicted(predictor: Predictor, ids_BT: Tensor) -> Tensor:
    """Return the log-probability that the original token is the one that is read, shape (B, T)."""
    hidden_BTh = predictor.encoder(ids_BT, segment_ids(ids_BT))
    logits_BTV = predictor.vocabulary(hidden_BTh, predictor.encoder.embeddings.table())
    log_softmax_BT = -cross_entropy(logits_BTV, ids_BT)
    if not isinstance(predictor, AllTokensMlm):
        return log_softmax_BT
    gate_BT = predictor.gate(hidden_BTh).float()[..., 0]
    return torch.logaddexp(F.logsigmoid(gate_BT), F.logsigmoid(-gate_BT) + log_softmax_BT)


def _sum_over_tokens(
    objective: Objective, windows: PairWindows, log_probabilities: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return the sum of log-probabilities over the words of each sentence, shape (N,)."""
    device = next(objective.parameters()).device
    sums_N = torch.empty(len(windows.ids_NT), dtype=torch.float64)
    limit = _LOGITS // (_vocabulary_size(objective) * windows.ids_NT.shape[1])
    for rows_B, ids_BT, word_BT in _batches(windows, torch.arange(len(sums_N)), limit):
        log_BT = log_probabilities(ids_BT.to(device)).double().cpu()
        sums_N[rows_B] = (log_BT * (word_BT >= 0)).sum(1)
    return sums_N


def _pseudo_log_likelihood(objective: Mlm, windows: PairWindows) -> Tensor:
    """Return the sum of log-probabilities of the tokens of each word, masked together, (N,)."""
    device = next(objective.parameters()).device
    words_N = windows.word_NT.amax(1) + 1
    sentence_R = torch.arange(len(words_N)).repeat_interleave(words_N)
    word_R = torch.cat([torch.arange(int(count)) for count in words_N])
    sums_N = torch.zeros(len(words_N), dtype=torch.float64)
    limit = _LOGITS // _vocabulary_size(objective)
    for rows_B, ids_BT, word_BT in _batches(windows, sentence_R, limit):
        masked_BT = word_BT == word_R[rows_B, None]
        input_BT = ids_BT.masked_fill(masked_BT, MASK).to(device)
        hidden_BTh = objective.encoder(input_BT, segment_ids(input_BT))
        hidden_Mh = hidden_BTh[masked_BT.to(device)]
        logits_MV = objective.vocabulary(hidden_Mh, objective.encoder.embeddings.table())
        log_M = -F.cross_entropy(logits_MV.float(), ids_BT[masked_BT].to(device), reduction="none")
        row_M = masked_BT.nonzero()[:, 0]
        sums_N.index_add_(0, sentence_R[rows_B[row_M]], log_M.double().cpu())
    return sums_N


def _vocabulary_size(objective: Objective) -> int:
    return len(objective.encoder.embeddings.table())


def _batches(
    windows: PairWindows, sentence_R: Tensor, limit: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield rows of similar length, with the tokens and words of their sentences.

    Args:
        windows: sentences.
        sentence_R: sentence of each row.
        limit: most rows in a batch, if less than `_ROWS`.
    """
    length_R = (windows.ids_NT != PAD).sum(1)[sentence_R]
    for rows_B in length_R.argsort(stable=True).split(max(1, min(_ROWS, limit))):
        sentence_B, longest = sentence_R[rows_B], int(length_R[rows_B].max())
        yield rows_B, windows.ids_NT[sentence_B, :longest], windows.word_NT[sentence_B, :longest]


@lru_cache(maxsize=4)
def pair_windows(
    vocabulary: Vocabulary, pairs: tuple[MinimalPair, ...], length: int
) -> PairWindows:
    """Return the sentences of pairs as windows of at most `length` positions."""
    good, bad = ([getattr(pair, key) for pair in pairs] for key in ("good", "bad"))
    encoded = zip(vocabulary.spans(good), vocabulary.spans(bad), strict=True)
    cut = [_cut_to_difference(one, other, length - 2) for one, other in encoded]
    sentences = [one for one, _ in cut] + [other for _, other in cut]
    longest = max(len(ids) for ids, _ in sentences)
    return PairWindows(
        ids_NT=torch.tensor(
            [[CLS, *ids, SEP] + [PAD] * (longest - len(ids)) for ids, _ in sentences]
        ),
        word_NT=torch.tensor(
            [[-1, *words, -1] + [-1] * (longest - len(words)) for _, words in sentences]
        ),
    )


_Sentence = tuple[list[int], list[int]]  # tokens; index of the word of each


def _cut_to_difference(good: Encoded, bad: Encoded, room: int) -> tuple[_Sentence, _Sentence]:
    """Return the tokens around the difference, at most `room` of each sentence."""
    before, after = _count_equal_ends(good.ids_T.tolist(), bad.ids_T.tolist())
    different = max(len(good.ids_T), len(bad.ids_T)) - before - after
    context = max(0, room - different)
    left = min(before, max(context - context // 2, context - after))
    right = min(after, context - left)

    def cut(encoded: Encoded) -> _Sentence:
        kept = slice(before - left, len(encoded.ids_T) - after + right)
        return encoded.ids_T[kept].tolist()[:room], _number_words(encoded.word_T[kept])[:room]

    return cut(good), cut(bad)


def _count_equal_ends(one: list[int], other: list[int]) -> tuple[int, int]:
    """Return the number of equal tokens at the beginning, and of further ones at the end."""
    most = min(len(one), len(other))
    before = next((i for i in range(most) if one[i] != other[i]), most)
    after = next((i for i in range(most - before) if one[-1 - i] != other[-1 - i]), most - before)
    return before, after


def _number_words(word_T: Ids) -> list[int]:
    """Return the words of tokens numbered from 0; a token outside of words is a word of its own."""
    numbers: list[int] = []
    previous = -1
    for word in word_T.tolist():
        begins = not numbers or word == -1 or word != previous
        numbers.append((numbers[-1] if numbers else -1) + begins)
        previous = word
    return numbers
