"""Sizes of the fine-tuning tasks, available before a task is downloaded."""

from typing import NamedTuple

from lab.config.tasks import QuestionAnsweringTask, TaggingTask
from lab.loading.task_table import load_task
from lab.tasks import examples

_WORD_TOKENS = 1.5  # tokens per word with a vocabulary of a few thousand tokens


class TaskSize(NamedTuple):
    """Size of a task.

    Attributes:
        train: number of training rows.
        evaluation: number of evaluation rows.
        tokens: mean number of tokens per row, including [CLS] and [SEP].
        epochs: number of training epochs.
        is_split: whether a row longer than a window is split into several; otherwise it is cut.
    """

    train: int
    evaluation: int
    tokens: int
    epochs: int
    is_split: bool

    def windows_per_row(self, length: int) -> float:
        """Return the expected number of windows of a row.

        The last window of a row that is split is half full on average.

        Args:
            length: positions of a window, at most.
        """
        return max(1.0, (self.tokens - 2) / (length - 2) + 0.5) if self.is_split else 1.0


# Training rows, evaluation rows, mean words per row. The two embedded tasks were counted. GLUE:
# Wang et al. 2019, table 1, and the development splits; training rows of pairs without order (mrpc,
# stsb) count twice, because both orders are trained on.
_KNOWN = {
    "pos": (44_916, 6_179, 22),
    "sentiment": (8_430, 1_097, 21),
    "cola": (8_551, 1_043, 9),
    "sst2": (67_349, 872, 10),
    "mrpc": (7_336, 408, 44),
    "stsb": (11_498, 1_500, 22),
    "qqp": (363_846, 40_430, 22),
    "mnli": (392_702, 9_815, 30),
    "qnli": (104_743, 5_463, 38),
    "rte": (2_490, 277, 53),
    "wnli": (635, 71, 28),
}


def task_size(name: str) -> TaskSize:
    """Return the size of a task.

    Args:
        name: name of a task, or path of a YAML file; the rows of the latter are read.

    Raises:
        UserError: the task is unknown, or its rows are invalid (see `examples.read_examples`).
    """
    task = load_task(name)
    if name in _KNOWN:
        train, evaluation, words = _KNOWN[name]
    else:
        content = examples.read_examples(task)
        train, evaluation = len(content.train), len(content.evaluation)
        texts = examples.evaluation_texts(content)
        words = sum(len(text.split()) for text in texts) // evaluation
    tokens = round(words * _WORD_TOKENS) + 2
    is_split = isinstance(task.config, TaggingTask | QuestionAnsweringTask)
    return TaskSize(train, evaluation, tokens, task.config.epochs, is_split)
