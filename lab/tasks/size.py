"""How large the tasks of fine-tuning are, known before any of them is downloaded."""

from typing import NamedTuple

from lab.loading.task_table import load_task
from lab.tasks import examples

_WORD_TOKENS = 1.5  # tokens of a word, of a vocabulary of a few thousand


class TaskSize(NamedTuple):
    """Rows of a task.

    Attributes:
        train: to learn from.
        evaluation: to be scored on.
        tokens: of a row, in the mean.
        epochs: of learning.
    """

    train: int
    evaluation: int
    tokens: int
    epochs: int


# Rows to learn from and to be scored on, words of a row. The embedded two: counted. GLUE: Wang et
# al. 2019, table 1, and the development splits; unordered pairs (mrpc, stsb) are learned twice.
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
        name: of the table, or a YAML file, whose rows are read.

    Raises:
        UserError: as `examples.of`.
    """
    task = load_task(name)
    if name in _KNOWN:
        train, evaluation, words = _KNOWN[name]
    else:
        read = examples.read_examples(task)
        train, evaluation = len(read.train), len(read.evaluation)
        words = sum(len(text.split()) for text in examples.evaluation_questions(name)) // evaluation
    tokens = round(words * _WORD_TOKENS) + 2
    return TaskSize(train, evaluation, tokens, task.form.epochs)
