"""The yardstick: what a trial's encoder is worth, whatever trained it.

Letters: N windows, T positions.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from lab.config.results import MetricRow
from lab.data.batches import segment_ids
from lab.data.vocabulary import FIRST_WORD, Vocabulary
from lab.evaluation.corruption import HeldOut
from lab.evaluation.probes import probe_accuracy
from lab.tasks.embedded import Task
from lab.training.objectives.base import Detector, Objective

_WINDOWS = 256  # windows read at once


def score_detection(objective: Objective, held_out: HeldOut) -> MetricRow:
    """Return loss and AUROC of finding each frozen corruption; nothing without a discriminator.

    Over words only, special tokens and padding left out. The objective is put into evaluation
    mode and back; no state of it changes.
    """
    if not isinstance(objective, Detector):
        return {}
    row: MetricRow = {}
    training = objective.training
    objective.eval()
    for name, corrupted_NT in held_out.corrupted_NT.items():
        words_NT = held_out.original_NT >= FIRST_WORD
        logits_N = _detect(objective, corrupted_NT, segment_ids(held_out.original_NT))[words_NT]
        replaced_N = (corrupted_NT != held_out.original_NT)[words_NT]
        row[f"detect/{name}/auroc"] = auroc(logits_N, replaced_N)
        row[f"detect/{name}/loss"] = F.binary_cross_entropy_with_logits(
            logits_N, replaced_N.double()
        ).item()
    objective.train(training)
    return row


def score_probe(objective: Objective, vocabulary: Vocabulary, task: Task) -> MetricRow:
    """Return a probe's accuracy on a learned mix of the encoder's layers."""
    training = objective.training
    objective.eval()
    row = {f"probe/{task}/accuracy": probe_accuracy(objective.encoder, vocabulary, task)}
    objective.train(training)
    return row


def auroc(scores_N: Tensor, positive_N: Tensor) -> float:
    """Return the chance that a positive outranks a negative, ties counting half.

    The Mann-Whitney statistic over its number of pairs; NaN where a score is.

    Raises:
        ValueError: one of the two classes is empty.
    """
    positive, negative = scores_N[positive_N], scores_N[~positive_N].sort().values
    if not (len(positive) and len(negative)):
        raise ValueError("AUROC needs both replaced and original tokens")
    if scores_N.isnan().any():
        return math.nan
    below = torch.searchsorted(negative, positive).sum()
    not_above = torch.searchsorted(negative, positive, right=True).sum()
    return float(below + not_above) / (2 * len(positive) * len(negative))


@torch.no_grad()
def _detect(detector: Detector, ids_NT: Tensor, segment_NT: Tensor) -> Tensor:
    device = next(detector.parameters()).device
    parts = zip(ids_NT.split(_WINDOWS), segment_NT.split(_WINDOWS), strict=True)
    return torch.cat(
        [detector.detect(ids.to(device), where.to(device)).double().cpu() for ids, where in parts]
    )
