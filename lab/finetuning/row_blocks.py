"""Contributions of the blocks of evaluation rows to the score of a fine-tuned head.

The blocks are contiguous groups of rows (`score_blocks.assign_blocks`), with all words of their
rows for tagging. The contributions to a mean over rows or words are its influence; those to all
other metrics are those of the jackknife.

Letters: R rows, U scored units (rows; words for tagging).
"""

import math
from collections.abc import Callable, Sequence
from typing import assert_never

import numpy as np
import torch
from torch import Tensor

from lab.config.tasks import (
    ClassificationTask,
    PairTask,
    QuestionAnsweringTask,
    RegressionTask,
    TaggingTask,
)
from lab.finetuning.features import TaskWindow
from lab.finetuning.heads import Answer
from lab.finetuning.metrics import (
    classification_score,
    describe_uncorrelated,
    gold_labels,
    numbers,
    predicted_labels,
    predicted_numbers,
    question_scores,
    regression_scores,
)
from lab.score_blocks import assign_blocks, jackknife_blocks, mean_blocks
from lab.tasks.examples import Examples, TagExample

_ScoreOfKept = Callable[[Tensor], float]


def find_row_blocks(
    task: Examples, windows: Sequence[TaskWindow], answers: Sequence[Answer]
) -> list[float]:
    """Return the contribution of each block of evaluation rows to the task's main metric.

    Args:
        task: task with the evaluation split that was predicted.
        windows: windows of the evaluation split.
        answers: prediction for each window.

    Returns:
        An empty list if the score is undefined without one of the blocks, as for evaluation rows
        that loading a task refuses (`lab.tasks.label_checks`), or for predictions without a
        correlation.
    """
    metric, block_R = task.config.metric, assign_blocks(len(task.evaluation))
    match task.config:
        case RegressionTask():
            gold_R, predicted_R = numbers(task.evaluation), predicted_numbers(answers)
            return jackknife_blocks(_correlation(metric, gold_R, predicted_R), block_R)
        case QuestionAnsweringTask():
            values_R = question_scores(task, windows, answers)[metric]
            return mean_blocks(torch.tensor(values_R), block_R)
        case ClassificationTask() | PairTask() | TaggingTask():
            gold_U, predicted_U = gold_labels(task), predicted_labels(answers)
            block_U = block_R[_rows_of_labels(task)]
            if metric == "accuracy":
                return mean_blocks(torch.tensor(gold_U) == torch.tensor(predicted_U), block_U)
            return jackknife_blocks(_label_score(metric, gold_U, predicted_U), block_U)
        case _:
            assert_never(task.config)


def _rows_of_labels(task: Examples) -> Tensor:
    """Return the row of each scored label, int64, shape (U,)."""
    labels_R = [len(e.tags) if isinstance(e, TagExample) else 1 for e in task.evaluation]
    return torch.arange(len(labels_R)).repeat_interleave(torch.tensor(labels_R))


def _label_score(metric: str, gold: Sequence[int], predicted: Sequence[int]) -> _ScoreOfKept:
    gold_U, predicted_U = np.array(gold), np.array(predicted)

    def score(kept_U: Tensor) -> float:
        kept_gold, kept_predicted = gold_U[kept_U.numpy()], predicted_U[kept_U.numpy()]
        # Matthews of constant predictions is 0 by convention for all rows, hence not undefined.
        without_label = metric == "f1" and not (kept_gold == 1).any()
        if without_label or (metric == "matthews" and np.ptp(kept_gold) == 0):
            return math.nan
        return classification_score(metric, kept_gold, kept_predicted)

    return score


def _correlation(metric: str, gold: Sequence[float], predicted: Sequence[float]) -> _ScoreOfKept:
    gold_R, predicted_R = np.array(gold), np.array(predicted)

    def score(kept_R: Tensor) -> float:
        kept_gold, kept_predicted = gold_R[kept_R.numpy()], predicted_R[kept_R.numpy()]
        if np.ptp(kept_gold) == 0 or describe_uncorrelated(kept_predicted):
            return math.nan
        return regression_scores(kept_gold, kept_predicted)[metric]

    return score
