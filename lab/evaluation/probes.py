"""Linear probes: classifiers on the frozen features of an encoder, the same for all objectives.

The hidden states of all layers are computed once, without gradient. A softmax regression on one
layer, or on a learned mix of all layers (Peters et al. 2018, equation 1), is fitted by L-BFGS,
starting from zero. The penalty of its weights is chosen by cross-validation on the training rows,
since the best one depends on the width of the encoder. No step is random, so the same encoder gets
bitwise the same score.

Letters: N labelled units (words or sentences), S sentences, L layers, h hidden width, W windows,
T positions.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from lab.data.batches import segment_ids
from lab.data.vocabulary import CLS, PAD, SEP, Vocabulary
from lab.evaluation.calibration import alternate_halves
from lab.score_blocks import document_blocks
from lab.tasks.embedded import UNSEEN, Split, TaggedSentences, Task, read_embedded
from lab.training.model import Encoder

_PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # of the squared weights, on standardised features
_STEPS = 30  # iterations of L-BFGS, at most
_SEARCH_STEPS = 15  # the same, of the fits that choose the penalty
_WINDOWS = 256  # windows encoded at once


@dataclass(frozen=True, kw_only=True)
class ProbeWindows:
    """Windows of a task's text, with the labelled unit of each position.

    Attributes:
        ids_WT: tokens.
        unit_WT: index of the labelled unit that a position belongs to; -1 for none.
        labels_N: label of each unit.
        classes: number of labels.
    """

    ids_WT: Tensor
    unit_WT: Tensor
    labels_N: Tensor
    classes: int


@dataclass(frozen=True, kw_only=True)
class ProbeScore:
    """Score of a probe on the test split of its task.

    Attributes:
        correct_N: whether each unit of the test split is labelled correctly.
        losses_N: loss of each unit in nats; 0 for units whose label is not in the training split.
        seen_N: whether the label of each unit occurs in the training split. This does not depend on
            the encoder.
    """

    correct_N: Tensor
    losses_N: Tensor
    seen_N: Tensor

    @property
    def accuracy(self) -> float:
        """Share of the units with the right label."""
        return self.correct_N.double().mean().item()

    @property
    def nats(self) -> float:
        """Mean loss in nats over the units with a label that occurs in the training split."""
        return (self.losses_N.sum() / self.seen_N.sum()).item()


def evaluate_probe(
    encoder: Encoder, vocabulary: Vocabulary, task: Task, layer: int | None = None
) -> ProbeScore:
    """Fit a probe on the training split of a task and return its score on the test split.

    Args:
        encoder: encoder in evaluation mode.
        vocabulary: vocabulary of the encoder.
        task: `pos`, which labels each word at its first token, or `sentiment`, which labels each
            sentence by the mean of its hidden states.
        layer: index of the probed layer, 0 for the embeddings; None for a learned mix of all.
    """
    length = encoder.length
    train, test = (probe_windows(vocabulary, task, split, length) for split in ("train", "test"))
    train_LNh, mean_L1h, std_L1h = _standardise(_features(encoder, train))
    layers = slice(None) if layer is None else slice(layer, layer + 1)
    train_LNh, labels_N = train_LNh[layers], train.labels_N.to(train_LNh.device)
    penalty = _choose_penalty(train_LNh, labels_N, train.classes)
    probe = _fit_probe(train_LNh, labels_N, train.classes, penalty, _STEPS)
    test_LNh = (_features(encoder, test) - mean_L1h) / std_L1h
    with torch.no_grad():
        logits_NC = probe(test_LNh[layers])
    tests_N = test.labels_N.to(logits_NC.device)
    losses_N = F.cross_entropy(logits_NC.double(), tests_N, ignore_index=UNSEEN, reduction="none")
    return ProbeScore(
        correct_N=(logits_NC.argmax(-1) == tests_N).cpu(),
        losses_N=losses_N.cpu(),
        seen_N=test.labels_N != UNSEEN,
    )


def sentence_blocks(task: Task) -> Tensor:
    """Return the block (`score_blocks`) of each unit of the test split, by its document."""
    sentences = read_embedded(task, "test")
    numbers = {name: number for number, name in enumerate(dict.fromkeys(sentences.documents))}
    document_S = torch.tensor([numbers[name] for name in sentences.documents])
    counts_S = torch.tensor([len(labels) for labels in sentences.labels])
    return document_blocks(document_S).repeat_interleave(counts_S)


@lru_cache(maxsize=8)
def probe_windows(vocabulary: Vocabulary, task: Task, split: Split, length: int) -> ProbeWindows:
    """Return a task's split as windows of `length` positions; no word is left out."""
    sentences = read_embedded(task, split)
    rows = list(_split_sentences(vocabulary, sentences, length - 2, by_word=task == "pos"))
    return ProbeWindows(
        ids_WT=torch.tensor(
            [[CLS, *ids, SEP] + [PAD] * (length - 2 - len(ids)) for ids, _ in rows]
        ),
        unit_WT=torch.tensor(
            [[-1, *units, -1] + [-1] * (length - 2 - len(units)) for _, units in rows]
        ),
        labels_N=torch.tensor([label for labels in sentences.labels for label in labels]),
        classes=sentences.classes,
    )


def _split_sentences(
    vocabulary: Vocabulary, sentences: TaggedSentences, room: int, *, by_word: bool
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield at most `room` tokens and the unit of each.

    If `by_word`, the first token of a word has the word as its unit and the other tokens have
    none. Otherwise the sentence is the unit of all its tokens.
    """
    unit = 0
    for words, encoded in zip(sentences.words, vocabulary.words(sentences.words), strict=True):
        word_T = [-1, *encoded.word_T.tolist()]
        units = [
            (unit + word if word != before else -1) if by_word else unit
            for before, word in itertools.pairwise(word_T)
        ]
        unit += len(words) if by_word else 1
        for start in range(0, len(units), room):
            yield encoded.ids_T[start : start + room].tolist(), units[start : start + room]


@torch.no_grad()
def _features(encoder: Encoder, text: ProbeWindows) -> Tensor:
    """Return the mean hidden state of each unit in each layer, shape (L, N, h)."""
    device = next(encoder.parameters()).device
    N, sums_LNh = len(text.labels_N), torch.empty(0)
    lengths_W = (text.ids_WT != PAD).sum(1)
    for rows in lengths_W.argsort(stable=True).split(_WINDOWS):  # similar lengths: little padding
        longest = int(lengths_W[rows].max())
        ids_WT = text.ids_WT[rows, :longest].to(device)
        unit_WT = text.unit_WT[rows, :longest].to(device)
        states_LWTh = torch.stack(
            encoder.compute_hidden_states(ids_WT, segment_ids(ids_WT))
        ).float()
        if not len(sums_LNh):
            sums_LNh = states_LWTh.new_zeros(len(states_LWTh), N, states_LWTh.shape[-1])
        labelled_WT = unit_WT >= 0
        sums_LNh.index_add_(1, unit_WT[labelled_WT], states_LWTh[:, labelled_WT])
    counts_N = torch.bincount(text.unit_WT[text.unit_WT >= 0], minlength=N).clamp(min=1)
    return sums_LNh / counts_N.to(device)[:, None]


def _standardise(features_LNh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return standardised features, their means and their standard deviations."""
    mean_L1h = features_LNh.mean(1, keepdim=True)
    std_L1h = features_LNh.std(1, keepdim=True).clamp(min=1e-6)
    return (features_LNh - mean_L1h) / std_L1h, mean_L1h, std_L1h


class _Probe:
    """Softmax regression on sum_l softmax(s)_l h_l, without the scale gamma of Peters et al.

    Before the first step it predicts the class frequencies.
    """

    def __init__(self, features_LNh: Tensor, labels_N: Tensor, classes: int) -> None:
        L, N, h = features_LNh.shape
        self.mix_L = features_LNh.new_zeros(L, requires_grad=True)
        self.scaled_weight_Ch = features_LNh.new_zeros(classes, h, requires_grad=True)
        self.scaled_bias_C = features_LNh.new_zeros(classes, requires_grad=True)
        share_C = (torch.bincount(labels_N, minlength=classes) + 0.5) / (N + 0.5 * classes)
        self._log_share_C = share_C.log()
        # The curvature of the loss in the weights of a class is proportional to p (1 - p). Without
        # this scaling of the parameters, frequent classes converge long before rare ones, and the
        # same loss takes 1.6 times as many steps.
        self._scale_C = (share_C * (1 - share_C)) ** -0.25

    def parameters(self) -> list[Tensor]:
        """Return the fitted parameters."""
        return [self.mix_L, self.scaled_weight_Ch, self.scaled_bias_C]

    def weight_Ch(self) -> Tensor:
        """Return the weights of the classes."""
        return self.scaled_weight_Ch * self._scale_C[:, None]

    def __call__(self, features_LNh: Tensor) -> Tensor:
        mixed_Nh = torch.einsum("l,lnh->nh", self.mix_L.softmax(0), features_LNh)
        bias_C = self._log_share_C + self.scaled_bias_C * self._scale_C
        return F.linear(mixed_Nh, self.weight_Ch(), bias_C)


def _choose_penalty(features_LNh: Tensor, labels_N: Tensor, classes: int) -> float:
    """Return the penalty with the smallest loss in two-fold cross-validation.

    The penalties are tried from the smallest one until the loss rises.
    """
    half_N = alternate_halves(len(labels_N)).to(labels_N.device)
    best, least = _PENALTIES[0], math.inf
    for penalty in _PENALTIES:
        total = 0.0
        for held_N in (half_N, ~half_N):
            # The mean loss of half the rows has twice the penalty for the same sum over the rows.
            probe = _fit_probe(
                features_LNh[:, ~held_N], labels_N[~held_N], classes, 2 * penalty, _SEARCH_STEPS
            )
            with torch.no_grad():
                logits_NC = probe(features_LNh[:, held_N])
            total += F.cross_entropy(logits_NC, labels_N[held_N], reduction="sum").item()
        if not total < least:
            break
        best, least = penalty, total
    return best


def _fit_probe(
    features_LNh: Tensor, labels_N: Tensor, classes: int, penalty: float, steps: int
) -> _Probe:
    probe = _Probe(features_LNh, labels_N, classes)
    solver = torch.optim.LBFGS(probe.parameters(), max_iter=steps, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(probe(features_LNh), labels_N)
        value = value + penalty * probe.weight_Ch().square().sum()
        value.backward()
        return value

    solver.step(loss)
    return probe
