"""Task heads on a fine-tuned encoder: dropout and one linear layer for every kind of task.

Letters: B windows, T positions, h hidden width, C labels.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lab.config.tasks import (
    ClassificationTask,
    PairTask,
    QuestionAnsweringTask,
    RegressionTask,
    TaggingTask,
)
from lab.data.vocabulary import PAD
from lab.finetuning.features import IGNORE_INDEX, TaskWindow
from lab.tasks.examples import Examples, TextExample

_MAX_ANSWER = 30  # tokens of an answer, at most: `max_answer_length` of the official code


class Span(NamedTuple):
    """The predicted answer to a question in one window.

    Attributes:
        start: position of the answer's first token.
        end: position of the answer's last token.
        score: sum of the start logit and the end logit.
        no_answer_score: the same sum at [CLS], which represents that there is no answer.
    """

    start: int
    end: int
    score: float
    no_answer_score: float


Answer = int | float | list[int] | Span  # the prediction for one window, by the kind of task


class HeadInputs(NamedTuple):
    """A batch of windows, padded to the longest.

    Attributes:
        ids_BT: tokens.
        target_BX: targets (`TaskWindow.target`), IGNORE_INDEX at padding.
        windows: the windows without padding.
    """

    ids_BT: Tensor
    target_BX: Tensor
    windows: Sequence[TaskWindow]


def collate_windows(windows: Sequence[TaskWindow], device: torch.device) -> HeadInputs:
    """Return windows as tensors on `device`."""
    T = max(len(window.ids) for window in windows)
    X = max(len(window.target) for window in windows)
    ids = [[*window.ids, *[PAD] * (T - len(window.ids))] for window in windows]
    targets = [[*window.target, *[IGNORE_INDEX] * (X - len(window.target))] for window in windows]
    return HeadInputs(
        torch.tensor(ids, device=device), torch.tensor(targets, device=device), windows
    )


class Head(nn.Module, ABC):
    """Dropout and a linear layer on hidden states.

    Args:
        hidden: width of the hidden states.
        outputs: outputs at each position.
        dropout: dropout probability.

    Attributes:
        outputs: outputs at each position.
    """

    def __init__(self, hidden: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.outputs = outputs
        self.dense = nn.Linear(hidden, outputs)
        self._dropout = dropout

    def init_weights(self, generator: torch.Generator) -> None:
        """Initialize as `tf.layers.dense` does by default: Glorot uniform weights, zero biases."""
        nn.init.xavier_uniform_(self.dense.weight, generator=generator)
        nn.init.zeros_(self.dense.bias)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the outputs for each hidden state; the last dimension has size `outputs`."""
        logits: Tensor = self.dense(F.dropout(hidden, self._dropout, self.training))
        return logits

    @abstractmethod
    def loss(self, hidden_BTh: Tensor, inputs: HeadInputs) -> Tensor:
        """Return the mean loss, a scalar."""

    @abstractmethod
    def predict(self, hidden_BTh: Tensor, inputs: HeadInputs) -> Sequence[Answer]:
        """Return the prediction for each window."""

    def count_positions(self, inputs: HeadInputs) -> int:
        """Return the number of positions that the linear layer is applied to."""
        return len(inputs.ids_BT)


class ClassificationHead(Head):
    """Predicts one of C labels from the hidden state at [CLS]."""

    def loss(self, hidden_BTh: Tensor, inputs: HeadInputs) -> Tensor:
        """Return the mean cross-entropy over windows."""
        return F.cross_entropy(self.logits(hidden_BTh[:, 0]), inputs.target_BX[:, 0].long())

    def predict(self, hidden_BTh: Tensor, inputs: HeadInputs) -> list[int]:  # noqa: ARG002
        """Return the index of the most likely label of each window."""
        labels: list[int] = self.logits(hidden_BTh[:, 0]).argmax(-1).tolist()
        return labels


class RegressionHead(Head):
    """Predicts a number from the hidden state at [CLS].

    The linear layer learns the numbers scaled to [0, 1] by the range of the training split.

    Args:
        hidden: width of the hidden states.
        dropout: dropout probability.
        low: smallest number of the training split.
        high: largest number of the training split.
    """

    def __init__(self, hidden: int, dropout: float, low: float, high: float) -> None:
        super().__init__(hidden, 1, dropout)
        self._low, self._range = low, (high - low) or 1.0

    def loss(self, hidden_BTh: Tensor, inputs: HeadInputs) -> Tensor:
        """Return the mean squared error of the scaled numbers."""
        scaled_B = (inputs.target_BX[:, 0] - self._low) / self._range
        return F.mse_loss(self.logits(hidden_BTh[:, 0])[:, 0], scaled_B)

    def predict(self, hidden_BTh: Tensor, inputs: HeadInputs) -> list[float]:  # noqa: ARG002
        """Return the number of each window, on the scale of the task."""
        scaled_B = self.logits(hidden_BTh[:, 0])[:, 0].double()
        numbers: list[float] = (scaled_B * self._range + self._low).tolist()
        return numbers


class TaggingHead(Head):
    """Predicts one of C tags from the hidden state at the first token of each word."""

    def loss(self, hidden_BTh: Tensor, inputs: HeadInputs) -> Tensor:
        """Return the mean cross-entropy over words."""
        tagged_BT = inputs.target_BX != IGNORE_INDEX
        logits = self.logits(hidden_BTh[tagged_BT])
        return F.cross_entropy(logits, inputs.target_BX[tagged_BT].long())

    def predict(self, hidden_BTh: Tensor, inputs: HeadInputs) -> list[list[int]]:
        """Return the index of the most likely tag of each word, by window."""
        tagged_BT = inputs.target_BX != IGNORE_INDEX
        tags = self.logits(hidden_BTh[tagged_BT]).argmax(-1)
        return [tags_W.tolist() for tags_W in tags.split(tagged_BT.sum(1).tolist())]

    def count_positions(self, inputs: HeadInputs) -> int:
        """Return the number of words."""
        return int((inputs.target_BX != IGNORE_INDEX).sum())


class SpanHead(Head):
    """Predicts the first and the last token of an answer independently, as in BERT.

    In the official code the last token depends on the first, and a classifier decides whether there
    is an answer. Both need weights beyond the one linear layer of the other tasks.
    """

    def loss(self, hidden_BTh: Tensor, inputs: HeadInputs) -> Tensor:
        """Return the mean cross-entropy of both ends, a softmax over the unpadded positions."""
        logits_B2T = self._end_logits(hidden_BTh, inputs.ids_BT != PAD)
        return F.cross_entropy(logits_B2T.flatten(0, 1), inputs.target_BX.long().flatten())

    def _end_logits(self, hidden_BTh: Tensor, unpadded_BT: Tensor) -> Tensor:
        logits_B2T = self.logits(hidden_BTh).transpose(1, 2)
        return logits_B2T.masked_fill(~unpadded_BT[:, None], -torch.inf)

    def predict(self, hidden_BTh: Tensor, inputs: HeadInputs) -> list[Span]:
        """Return the best span of each window (`best_span`)."""
        logits_B2T = self._end_logits(hidden_BTh, inputs.ids_BT != PAD).double().cpu()
        return [
            best_span(logits_2T[0], logits_2T[1], window)
            for logits_2T, window in zip(logits_B2T, inputs.windows, strict=True)
        ]

    def count_positions(self, inputs: HeadInputs) -> int:
        """Return the number of positions, padding included."""
        return inputs.ids_BT.numel()


def best_span(start_T: Tensor, end_T: Tensor, window: TaskWindow) -> Span:
    """Return the span of a window's context with the largest sum of start and end logit.

    A span has 1 to `_MAX_ANSWER` tokens. If the window has no context token, the score is minus
    infinity.

    Args:
        start_T: logit of each position as an answer's first token.
        end_T: logit of each position as an answer's last token.
        window: window that the logits belong to.
    """
    no_answer_score = float(start_T[0] + end_T[0])
    first, N = window.context_start, len(window.spans_N2)
    if not N:
        return Span(0, 0, -torch.inf, no_answer_score)
    sums_NN = start_T[first : first + N, None] + end_T[None, first : first + N]
    allowed_NN = torch.ones(N, N, dtype=torch.bool).triu().tril(_MAX_ANSWER - 1)
    best = int(sums_NN.masked_fill(~allowed_NN, -torch.inf).argmax())
    start, end = divmod(best, N)
    return Span(first + start, first + end, float(sums_NN[start, end]), no_answer_score)


def build_head(task: Examples, hidden: int, dropout: float) -> Head:
    """Return the head of a task; call `Head.init_weights` before training.

    Args:
        task: task to fine-tune on.
        hidden: width of the encoder's hidden states.
        dropout: dropout probability before the linear layer.
    """
    match task.config:
        case ClassificationTask() | PairTask():
            return ClassificationHead(hidden, len(task.labels), dropout)
        case RegressionTask():
            numbers = [float(e.label) for e in task.train if isinstance(e, TextExample)]
            return RegressionHead(hidden, dropout, min(numbers), max(numbers))
        case TaggingTask():
            return TaggingHead(hidden, len(task.labels), dropout)
        case QuestionAnsweringTask():
            return SpanHead(hidden, 2, dropout)
        case _:
            assert_never(task.config)
