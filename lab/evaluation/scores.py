"""Scores that are comparable across trials: detection, linear probes and hidden words.

Letters: N windows, T positions.
"""

import math

import torch
from torch import Tensor

from lab.config.results import MetricRow
from lab.data.batches import Corpus, segment_ids
from lab.data.vocabulary import FIRST_WORD, Vocabulary
from lab.evaluation.calibration import calibrated_losses
from lab.evaluation.corruption import HeldOut
from lab.evaluation.hidden_words import HiddenWords, hide_words
from lab.evaluation.probes import evaluate_probe, sentence_blocks
from lab.evaluation.word_prediction import WordScore, score_head, score_readout
from lab.score_blocks import (
    ScoreBlocks,
    auroc_blocks,
    document_blocks,
    mean_blocks,
    ratio_blocks,
)
from lab.tasks.embedded import Task
from lab.training.objectives.base import Detector, Objective
from lab.training.objectives.mlm import Mlm
from lab.training.objectives.predictors import Predictor

_WINDOWS = 256  # windows encoded at once


def score_detection(
    objective: Objective, held_out: HeldOut, blocks: ScoreBlocks | None = None
) -> MetricRow:
    """Return the calibrated loss and the AUROC of the discriminator on each held-out corruption.

    Special tokens and padding are not scored. The objective is in evaluation mode meanwhile, and
    none of its state changes. The row is empty for an objective without a discriminator.

    Args:
        objective: objective to score.
        held_out: corrupted windows.
        blocks: mapping to which the contribution of each block of documents is added, by score.
    """
    if not isinstance(objective, Detector):
        return {}
    row: MetricRow = {}
    training = objective.training
    objective.eval()
    words_NT = held_out.original_NT >= FIRST_WORD
    for name, corrupted_NT in held_out.corrupted_NT.items():
        logits_N = _detect(objective, corrupted_NT, segment_ids(held_out.original_NT))[words_NT]
        replaced_N = (corrupted_NT != held_out.original_NT)[words_NT]
        row[f"detect/{name}/auroc"] = auroc(logits_N, replaced_N)
        losses_N = calibrated_losses(logits_N, replaced_N)
        row[f"detect/{name}/calibrated_loss"] = losses_N.mean().item()
        if blocks is not None:
            block_N = document_blocks(held_out.document_N)[words_NT.nonzero()[:, 0]]
            blocks[f"detect/{name}/auroc"] = auroc_blocks(logits_N, replaced_N, block_N)
            blocks[f"detect/{name}/calibrated_loss"] = mean_blocks(losses_N, block_N)
    objective.train(training)
    return row


def score_probe(
    objective: Objective,
    vocabulary: Vocabulary,
    task: Task,
    blocks: ScoreBlocks | None = None,
) -> MetricRow:
    """Return the accuracy and the loss of a probe on a learned mix of the encoder's layers.

    The objective is in evaluation mode meanwhile, and none of its state changes.

    Args:
        objective: objective to score.
        vocabulary: vocabulary of the encoder.
        task: task of the probe.
        blocks: mapping to which the contribution of each block of the test split is added, by
            score.
    """
    training = objective.training
    objective.eval()
    score = evaluate_probe(objective.encoder, vocabulary, task)
    if blocks is not None:
        block_N = sentence_blocks(task)
        blocks[f"probe/{task}/accuracy"] = mean_blocks(score.correct_N, block_N)
        blocks[f"probe/{task}/nats"] = ratio_blocks(score.losses_N, score.seen_N, block_N)
    objective.train(training)
    return {f"probe/{task}/accuracy": score.accuracy, f"probe/{task}/nats": score.nats}


def score_hidden_words(
    objective: Objective, corpus: Corpus, blocks: ScoreBlocks | None = None
) -> MetricRow:
    """Return the nats per character of hidden words, by the frozen encoder.

    The row is empty if the held-out text has too few words. The objective is in evaluation mode
    meanwhile, and none of its state changes.

    Args:
        objective: objective to score.
        corpus: prepared text.
        blocks: mapping to which the contribution of each block of documents is added.
    """
    hidden = hide_words(corpus.vocabulary, corpus.passages, objective.encoder.length, "one")
    training = objective.training
    objective.eval()
    score = score_readout(objective.encoder, hidden)
    objective.train(training)
    return _word_row("mlm/nats_per_character", score, hidden, blocks)


def score_own_head(
    objective: Objective, corpus: Corpus, blocks: ScoreBlocks | None = None
) -> MetricRow:
    """Return the nats per character of hidden words, by the encoder's own vocabulary head.

    The row is empty for an objective without such a head, and if the held-out text has no words.
    The objective is in evaluation mode meanwhile, and none of its state changes.

    Args:
        objective: objective to score.
        corpus: prepared text.
        blocks: mapping to which the contribution of each block of documents is added.
    """
    if not isinstance(objective, Mlm | Predictor):
        return {}
    hidden = hide_words(corpus.vocabulary, corpus.passages, objective.encoder.length, "each")
    training = objective.training
    objective.eval()
    score = score_head(objective.encoder, objective.vocabulary, hidden)
    objective.train(training)
    return _word_row("mlm/own_head/nats_per_character", score, hidden, blocks)


def _word_row(
    name: str, score: WordScore | None, hidden: HiddenWords, blocks: ScoreBlocks | None
) -> MetricRow:
    """Return the score of hidden words as a row, and add its contributions to `blocks`."""
    if score is None:
        return {}
    if blocks is not None:
        block_N = document_blocks(hidden.document_N)
        blocks[name] = ratio_blocks(score.nats_N, score.characters_N, block_N)
    return {name: score.nats_per_character}


def auroc(scores_N: Tensor, positive_N: Tensor) -> float:
    """Return the area under the ROC curve; NaN if a score is NaN.

    It is the Mann-Whitney statistic divided by the number of pairs: the share of pairs of a
    positive and a negative in which the positive has the higher score. A tie counts as half.

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
        [
            detector.detect(ids.to(device), segment.to(device)).double().cpu()
            for ids, segment in parts
        ]
    )
