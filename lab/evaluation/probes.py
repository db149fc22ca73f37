"""Linear probes: classifiers on the frozen features of an encoder, the same for all objectives.

The hidden states of all layers are computed once, without gradient. A softmax regression on one
layer, or on a learned mix of all layers (Peters et al. 2018, equation 1), is fitted by L-BFGS,
starting from zero. No step is random, so the same encoder gets bitwise the same score.

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
from lab.evaluation.score_blocks import assign_blocks
from lab.tasks.embedded import Split, TaggedSentences, Task, read_embedded
from lab.training.model import Encoder

_PENALTY = 1e-3  # coefficient of the squared weights, on standardised features
_STEPS = 40  # iterations of L-BFGS, at most
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


def probe_accuracy(
    encoder: Encoder, vocabulary: Vocabulary, task: Task, layer: int | None = None
) -> float:
    """Return a probe's accuracy on the test split, a share of its units (see `probe_correct`)."""
    return probe_correct(encoder, vocabulary, task, layer).double().mean().item()


def probe_correct(
    encoder: Encoder, vocabulary: Vocabulary, task: Task, layer: int | None = None
) -> Tensor:
    """Return whether a probe predicts each unit of the test split correctly; bool, shape (N,).

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
    device = train_LNh.device
    layers = slice(None) if layer is None else slice(layer, layer + 1)
    probe = _fit_probe(train_LNh[layers], train.labels_N.to(device), train.classes)
    test_LNh = (_features(encoder, test) - mean_L1h) / std_L1h
    predicted_N = probe(test_LNh[layers]).argmax(-1)
    return predicted_N.cpu() == test.labels_N


def sentence_blocks(task: Task) -> Tensor:
    """Return the block (`score_blocks`) of each unit of the test split, by its sentence."""
    counts = [len(labels) for labels in read_embedded(task, "test").labels]
    return assign_blocks(len(counts)).repeat_interleave(torch.tensor(counts))


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
    """Softmax regression on sum_l softmax(s)_l h_l, without the scale gamma of Peters et al."""

    def __init__(self, features_LNh: Tensor, classes: int) -> None:
        L, _, h = features_LNh.shape
        self.mix_L = features_LNh.new_zeros(L, requires_grad=True)
        self.weight_Ch = features_LNh.new_zeros(classes, h, requires_grad=True)
        self.bias_C = features_LNh.new_zeros(classes, requires_grad=True)

    def __call__(self, features_LNh: Tensor) -> Tensor:
        mixed_Nh = torch.einsum("l,lnh->nh", self.mix_L.softmax(0), features_LNh)
        return F.linear(mixed_Nh, self.weight_Ch, self.bias_C)


def _fit_probe(features_LNh: Tensor, labels_N: Tensor, classes: int) -> _Probe:
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
