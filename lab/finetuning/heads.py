"""What stands on an encoder while it is fine-tuned: dropout and one linear map, whatever the task.

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
from lab.finetuning.features import NOWHERE, TaskWindow
from lab.tasks.examples import Examples, TextExample

_ANSWER = 30  # tokens of an answer, at most: `max_answer_length` of the official code


class Span(NamedTuple):
    """An answer as one window has it.

    Attributes:
        start: position of its first token.
        end: position of its last token.
        score: sum of both logits.
        none: the same for no answer, which [CLS] stands for.
    """

    start: int
    end: int
    score: float
    none: float


Answer = int | float | list[int] | Span  # to one window


class HeadInputs(NamedTuple):
    """Windows, padded to the longest.

    Attributes:
        ids_BT: tokens.
        target_BX: as `Window.target`; of a tag a position, NOWHERE at padding.
        windows: themselves.
    """

    ids_BT: Tensor
    target_BX: Tensor
    windows: Sequence[TaskWindow]


def collate_windows(windows: Sequence[TaskWindow], device: torch.device) -> HeadInputs:
    """Return windows as tensors on `device`."""
    T = max(len(window.ids) for window in windows)
    X = max(len(window.target) for window in windows)
    ids = [[*window.ids, *[PAD] * (T - len(window.ids))] for window in windows]
    targets = [[*window.target, *[NOWHERE] * (X - len(window.target))] for window in windows]
    return HeadInputs(
        torch.tensor(ids, device=device), torch.tensor(targets, device=device), windows
    )


class Head(nn.Module, ABC):
    """Dropout and a linear map of hidden states.

    Attributes:
        outputs: numbers at each position that it reads.
    """

    def __init__(self, hidden: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.outputs = outputs
        self.dense = nn.Linear(hidden, outputs)
        self._dropout = dropout

    def start(self, chance: torch.Generator) -> None:
        """Draw the weights as `tf.layers.dense` does by default: Glorot's uniform, biases 0."""
        nn.init.xavier_uniform_(self.dense.weight, generator=chance)
        nn.init.zeros_(self.dense.bias)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return `outputs` numbers for each hidden state."""
        logits: Tensor = self.dense(F.dropout(hidden, self._dropout, self.training))
        return logits

    @abstractmethod
    def loss(self, hidden_BTh: Tensor, inputs: HeadInputs) -> Tensor:
        """Return the mean loss, a scalar."""

    @abstractmethod
    def answers(self, hidden_BTh: Tensor, inputs: HeadInputs) -> Sequence[Answer]:
        """Return what it says of each window."""

    def places(self, inputs: HeadInputs) -> int:
        """Return how many positions it reads."""
        return len(inputs.ids_BT)


class ClassificationHead(Head):
    """One of C labels, at [CLS]."""

    def loss(self, hidden_BTh: Tensor, inputs: HeadInputs) -> Tensor:
        """Return the mean cross-entropy over windows."""
        return F.cross_entropy(self.logits(hidden_BTh[:, 0]), inputs.target_BX[:, 0].long())

    def answers(self, hidden_BTh: Tensor, inputs: HeadInputs) -> list[int]:  # noqa: ARG002
        """Return the likeliest label's number."""
        labels: list[int] = self.logits(hidden_BTh[:, 0]).argmax(-1).tolist()
        return labels


class RegressionHead(Head):
    """A number, at [CLS]; learned as a share of the way from the smallest to the largest.

    Args:
        low: smallest number to learn from.
        high: the largest.
    """

    def __init__(self, hidden: int, dropout: float, low: float, high: float) -> None:
        super().__init__(hidden, 1, dropout)
        self._low, self._way = low, (high - low) or 1.0

    def loss(self, hidden_BTh: Tensor, inputs: HeadInputs) -> Tensor:
        """Return the mean squared error."""
        share_B = (inputs.target_BX[:, 0] - self._low) / self._way
        return F.mse_loss(self.logits(hidden_BTh[:, 0])[:, 0], share_B)

    def answers(self, hidden_BTh: Tensor, inputs: HeadInputs) -> list[float]:  # noqa: ARG002
        """Return the numbers."""
        share_B = self.logits(hidden_BTh[:, 0])[:, 0].double()
        numbers: list[float] = (share_B * self._way + self._low).tolist()
        return numbers


class TaggingHead(Head):
    """One of C tags, at the first token of each word."""

    def loss(self, hidden_BTh: Tensor, inputs: HeadInputs) -> Tensor:
        """Return the mean cross-entropy over words."""
        read_BT = inputs.target_BX != NOWHERE
        return F.cross_entropy(self.logits(hidden_BTh[read_BT]), inputs.target_BX[read_BT].long())

    def answers(self, hidden_BTh: Tensor, inputs: HeadInputs) -> list[list[int]]:
        """Return the likeliest tag's number for each word."""
        read_BT = inputs.target_BX != NOWHERE
        tags = self.logits(hidden_BTh[read_BT]).argmax(-1)
        return [tags_W.tolist() for tags_W in tags.split(read_BT.sum(1).tolist())]

    def places(self, inputs: HeadInputs) -> int:
        """Return the number of words."""
        return int((inputs.target_BX != NOWHERE).sum())


class SpanHead(Head):
    """The first and the last token of an answer, each by itself, as BERT has it.

    The official code has the last token depend on the first, and a classifier for no answer; both
    would be weights that no other task has.
    """

    def loss(self, hidden_BTh: Tensor, inputs: HeadInputs) -> Tensor:
        """Return the mean cross-entropy of both ends over all positions that are text."""
        ends_B2T = self._ends(hidden_BTh, inputs.ids_BT != PAD)
        return F.cross_entropy(ends_B2T.flatten(0, 1), inputs.target_BX.long().flatten())

    def _ends(self, hidden_BTh: Tensor, seen_BT: Tensor) -> Tensor:
        logits_B2T = self.logits(hidden_BTh).transpose(1, 2)
        return logits_B2T.masked_fill(~seen_BT[:, None], -torch.inf)

    def answers(self, hidden_BTh: Tensor, inputs: HeadInputs) -> list[Span]:
        """Return the best span of each window, of those that end where they begin or later."""
        ends_B2T = self._ends(hidden_BTh, inputs.ids_BT != PAD).double().cpu()
        return [
            best_span(ends_2T[0], ends_2T[1], window)
            for ends_2T, window in zip(ends_B2T, inputs.windows, strict=True)
        ]

    def places(self, inputs: HeadInputs) -> int:
        """Return the number of positions."""
        return inputs.ids_BT.numel()


def best_span(start_T: Tensor, end_T: Tensor, window: TaskWindow) -> Span:
    """Return the span of a window's text with the largest sum of logits, `_ANSWER` tokens at most.

    Where the window has no text there is no span, and its score is minus infinity.
    """
    none = float(start_T[0] + end_T[0])
    first, N = window.first, len(window.spans_N2)
    if not N:
        return Span(0, 0, -torch.inf, none)
    sums_NN = start_T[first : first + N, None] + end_T[None, first : first + N]
    allowed_NN = torch.ones(N, N, dtype=torch.bool).triu().tril(_ANSWER - 1)
    best = int(sums_NN.masked_fill(~allowed_NN, -torch.inf).argmax())
    start, end = divmod(best, N)
    return Span(first + start, first + end, float(sums_NN[start, end]), none)


def build_head(task: Examples, hidden: int, dropout: float) -> Head:
    """Return a task's head; `start` draws its weights."""
    match task.form:
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
            assert_never(task.form)
