"""Linear probes on frozen features: what the encoder knows, whatever objective taught it.

The encoder is read once, layer by layer, without gradient; a logistic regression on one layer,
or on a learned mix of all (Peters et al. 2018, equation 1), is fitted to the end by L-BFGS from
zero. Nothing is drawn by chance, so the same encoder gets the same score to the last bit.

Letters: N labelled units (words or sentences), L layers, h hidden width, W windows, T positions.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from lab.data.batches import segment_ids
from lab.data.vocabulary import CLS, PAD, SEP, Vocabulary
from lab.tasks.embedded import Split, TaggedSentences, Task, read_embedded
from lab.training.model import Encoder

_PENALTY = 1e-3  # of the squared weights, on standardised features
_STEPS = 40
_WINDOWS = 256  # windows read at once


@dataclass(frozen=True, kw_only=True)
class ProbeWindows:
    """A task's text as windows, and what each window contributes to.

    Attributes:
        ids_WT: tokens.
        unit_WT: the labelled unit that a position's hidden state belongs to; -1 for none.
        labels_N: the label of each unit.
        classes: number of labels.
    """

    ids_WT: Tensor
    unit_WT: Tensor
    labels_N: Tensor
    classes: int


def probe_accuracy(
    encoder: Encoder, vocabulary: Vocabulary, task: Task, layer: int | None = None
) -> float:
    """Return the share of units of the test split that a probe labels right.

    Args:
        encoder: in evaluation mode.
        vocabulary: its own.
        task: `pos` probes each word at its first token, `sentiment` each sentence's mean.
        layer: which layer to read, 0 the embeddings; None for a learned mix of all.
    """
    length = encoder.length
    train, test = (probe_windows(vocabulary, task, split, length) for split in ("train", "test"))
    features_LNh, mean_L1h, spread_L1h = _standardised(_features(encoder, train))
    device = features_LNh.device
    chosen = slice(None) if layer is None else slice(layer, layer + 1)
    probe = _fit(features_LNh[chosen], train.labels_N.to(device), train.classes)
    questions_LNh = (_features(encoder, test) - mean_L1h) / spread_L1h
    answers_N = probe(questions_LNh[chosen]).argmax(-1)
    return (answers_N == test.labels_N.to(device)).double().mean().item()


@lru_cache(maxsize=8)
def probe_windows(vocabulary: Vocabulary, task: Task, split: Split, length: int) -> ProbeWindows:
    """Return a task's split cut into windows of `length`; no word is left out."""
    sentences = read_embedded(task, split)
    rows = list(_cut(vocabulary, sentences, length - 2, by_word=task == "pos"))
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


def _cut(
    vocabulary: Vocabulary, sentences: TaggedSentences, room: int, *, by_word: bool
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield (tokens, unit of each token) of at most `room`; by word, only first tokens count."""
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
    """Return each layer's mean hidden state over each unit's positions, shape (L, N, h)."""
    device = next(encoder.parameters()).device
    N, sums_LNh = len(text.labels_N), torch.empty(0)
    lengths_W = (text.ids_WT != PAD).sum(1)
    for rows in lengths_W.argsort(stable=True).split(_WINDOWS):  # alike in length: little padding
        longest = int(lengths_W[rows].max())
        ids_WT = text.ids_WT[rows, :longest].to(device)
        unit_WT = text.unit_WT[rows, :longest].to(device)
        states_LWTh = torch.stack(encoder.every_layer(ids_WT, segment_ids(ids_WT))).float()
        if not len(sums_LNh):
            sums_LNh = states_LWTh.new_zeros(len(states_LWTh), N, states_LWTh.shape[-1])
        counted = unit_WT >= 0
        sums_LNh.index_add_(1, unit_WT[counted], states_LWTh[:, counted])
    counts_N = torch.bincount(text.unit_WT[text.unit_WT >= 0], minlength=N).clamp(min=1)
    return sums_LNh / counts_N.to(device)[:, None]


def _standardised(features_LNh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    mean_L1h = features_LNh.mean(1, keepdim=True)
    spread_L1h = features_LNh.std(1, keepdim=True).clamp(min=1e-6)
    return (features_LNh - mean_L1h) / spread_L1h, mean_L1h, spread_L1h


class _Probe:
    """Softmax regression on gamma * sum_l softmax(s)_l h_l."""

    def __init__(self, features_LNh: Tensor, classes: int) -> None:
        L, _, h = features_LNh.shape
        self.mix_L = features_LNh.new_zeros(L, requires_grad=True)
        self.weight_Ch = features_LNh.new_zeros(classes, h, requires_grad=True)
        self.bias_C = features_LNh.new_zeros(classes, requires_grad=True)

    def __call__(self, features_LNh: Tensor) -> Tensor:
        mixed_Nh = torch.einsum("l,lnh->nh", self.mix_L.softmax(0), features_LNh)
        return F.linear(mixed_Nh, self.weight_Ch, self.bias_C)


def _fit(features_LNh: Tensor, labels_N: Tensor, classes: int) -> _Probe:
    probe = _Probe(features_LNh, classes)
    parameters = [probe.mix_L, probe.weight_Ch, probe.bias_C]
    solver = torch.optim.LBFGS(parameters, max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(probe(features_LNh), labels_N)
        value = value + _PENALTY * probe.weight_Ch.square().sum()
        value.backward()
        return value

    solver.step(loss)
    return probe
