"""Convert the rows of a task to checked examples: labelled texts, tagged words, questions.

The examples of a task are written once to a file, which all fine-tuning runs on it read.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path as File
from typing import Any, NamedTuple, assert_never

from lab.config.tasks import (
    ClassificationTask,
    PairTask,
    QuestionAnsweringTask,
    RegressionTask,
    TaggingTask,
    Task,
    TaskConfig,
)
from lab.config.trial import content_hash
from lab.errors import UserError
from lab.loading.task_table import load_task, task_config
from lab.storage import atomic
from lab.tasks import embedded
from lab.tasks.rows import SourceRow, read_rows


class TextExample(NamedTuple):
    """A labelled text or pair of texts.

    Attributes:
        text: first text.
        pair: second text; None for a single text.
        label: class label, or a number for regression.
    """

    text: str
    pair: str | None
    label: str | float


class TagExample(NamedTuple):
    """A sentence with one tag per word.

    Attributes:
        words: words of the sentence.
        tags: tag of each word.
    """

    words: Sequence[str]
    tags: Sequence[str]


class QuestionExample(NamedTuple):
    """A question about a text.

    Attributes:
        question: text of the question.
        context: text that the question is about.
        answers: all accepted answers; empty if the context does not answer the question.
        starts: position in `context` of the first character of each answer.
    """

    question: str
    context: str
    answers: Sequence[str]
    starts: Sequence[int]


Example = TextExample | TagExample | QuestionExample


@dataclass(frozen=True, kw_only=True)
class Examples:
    """The checked examples of a task.

    Attributes:
        name: name of the task.
        form: settings of the task: kind, metric, epochs, columns.
        train: training examples.
        evaluation: evaluation examples.
        fingerprint: hash of the examples and the settings that affect training; independent of
            the source of the rows.
    """

    name: str
    form: TaskConfig
    train: tuple[Example, ...]
    evaluation: tuple[Example, ...]
    fingerprint: str

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Sorted labels or tags of the training examples; empty for tasks without classes."""
        return tuple(sorted(_labels(self.train)))

    @property
    def unseen(self) -> tuple[str, ...]:
        """Sorted evaluation labels absent from training; their examples are always scored wrong."""
        return tuple(sorted(_labels(self.evaluation) - _labels(self.train)))


def _labels(examples: Iterable[Example]) -> set[str]:
    labels: set[str] = set()
    for example in examples:
        match example:
            case TextExample(label=str() as label):
                labels.add(label)
            case TagExample(tags=tags):
                labels.update(tags)
    return labels


def read_examples(task: Task) -> Examples:
    """Return the checked examples of a task.

    Raises:
        UserError: a row is invalid (the message names the first one), or the labels do not suit
            the metric.
    """
    train, evaluation = (
        _convert_rows(task.form, read_rows(rows, f"{task.name}: {split}"))
        for split, rows in (("train", task.form.train), ("evaluation", task.form.evaluation))
    )
    settings = {key: value for key, value in asdict(task.form).items() if key in _TRAINING_KEYS}
    examples = Examples(
        name=task.name,
        form=task.form,
        train=train,
        evaluation=evaluation,
        fingerprint=content_hash([settings, train, evaluation]),
    )
    _check_labels(examples)
    return examples


_TRAINING_KEYS = {"kind", "epochs", "unordered"}  # settings of a task that affect training


def _check_labels(examples: Examples) -> None:
    if isinstance(examples.form, RegressionTask | QuestionAnsweringTask):
        return
    labels = examples.labels
    if len(labels) < 2:
        raise UserError(f"{examples.name}: all training rows have the label {labels[0]!r}")
    if examples.form.metric == "f1" and len(labels) > 2:
        raise UserError(
            f"{examples.name}: metric f1 needs two labels, and the training rows have "
            f"{len(labels)}; use macro_f1"
        )


def prepare_examples(task: Task, cache: File) -> File:
    """Return the file of a task's examples; write it first, atomically, if it does not exist.

    Args:
        task: task to read.
        cache: folder of the file.

    Raises:
        UserError: the task is invalid (see `read_examples`).
    """
    examples = read_examples(task)
    identity = content_hash([examples.fingerprint, asdict(examples.form)])
    file = cache / f"task-{examples.name}-{identity}.json"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        content: dict[str, Any] = {"name": examples.name, "form": asdict(examples.form)}
        content |= {"train": examples.train, "evaluation": examples.evaluation}
        content |= {"fingerprint": examples.fingerprint}
        atomic.write_text(file, json.dumps(content))
    return file


def open_examples(file: File) -> Examples:
    """Read a file that `prepare_examples` wrote."""
    content = json.loads(file.read_text())
    form = task_config(content["form"])
    example_type = _EXAMPLE_TYPES[type(form)]
    train, evaluation = (
        tuple(example_type(*example) for example in content[split])
        for split in ("train", "evaluation")
    )
    return Examples(
        name=content["name"],
        form=form,
        train=train,
        evaluation=evaluation,
        fingerprint=content["fingerprint"],
    )


_EXAMPLE_TYPES: dict[type[TaskConfig], Callable[..., Example]] = {
    ClassificationTask: TextExample,
    PairTask: TextExample,
    RegressionTask: TextExample,
    TaggingTask: TagExample,
    QuestionAnsweringTask: QuestionExample,
}


def _convert_rows(form: TaskConfig, rows: Sequence[SourceRow]) -> tuple[Example, ...]:
    return tuple(_convert_row(form, _Row(*row)) for row in rows)


def _convert_row(form: TaskConfig, cells: "_Row") -> Example:
    match form:
        case ClassificationTask():
            return TextExample(cells.text(form.text), None, cells.label(form.label))
        case PairTask():
            texts = cells.text(form.text), cells.text(form.pair)
            return TextExample(*texts, cells.label(form.label))
        case RegressionTask():
            pair = cells.text(form.pair) if form.pair else None
            return TextExample(cells.text(form.text), pair, cells.number(form.label))
        case TaggingTask():
            return _convert_tagged(form, cells)
        case QuestionAnsweringTask():
            context = cells.text(form.context)
            answers = cells.answers(form.answers, context)
            return QuestionExample(cells.text(form.question), context, *answers)
        case _:
            assert_never(form)


def _convert_tagged(form: TaggingTask, cells: "_Row") -> TagExample:
    words, tags = cells.word_list(form.words), cells.word_list(form.tags)
    if len(words) != len(tags):
        raise cells.error(form.tags, f"{len(tags)} tags for {len(words)} words")
    if not words:
        raise cells.error(form.words, "no words")
    return TagExample(words, tags)


class _Row:
    """A row with checked access: a cell has the requested type, or an error names it."""

    def __init__(self, where: str, row: dict[str, Any]) -> None:
        self._where, self._row = where, row

    def error(self, column: str, reason: str) -> UserError:
        """Return an error with the name of the row and the column."""
        return UserError(f"{self._where}: {column}: {reason}")

    def _cell(self, column: str) -> Any:
        if column not in self._row:
            columns = ", ".join(map(str, self._row)) or "none"
            raise UserError(f"{self._where}: no column {column!r}; columns: {columns}")
        return self._row[column]

    def text(self, column: str) -> str:
        """Return the cell as text."""
        cell = self._cell(column)
        if not isinstance(cell, str):
            raise self.error(column, f"must be text, not {_shorten(cell)}")
        return self._check_surrogates(column, cell)

    def _check_surrogates(self, column: str, text: str) -> str:
        """Return the text; raise an error for unpaired surrogates, which UTF-8 cannot encode."""
        if re.search("[\ud800-\udfff]", text):
            raise self.error(column, f"unpaired surrogate in {_shorten(text)}")
        return text

    def label(self, column: str) -> str:
        """Return the cell as a label."""
        return self._check_label(column, self._cell(column))

    def _check_label(self, column: str, cell: object) -> str:
        if cell == "" or not isinstance(cell, str | int):
            raise self.error(column, f"must be text or a whole number, not {_shorten(cell)}")
        return self._check_surrogates(column, str(cell))

    def number(self, column: str) -> float:
        """Return the cell as a finite number."""
        cell = self._cell(column)
        try:
            number = float(cell)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise self.error(column, f"must be a number, not {_shorten(cell)}")
        return number

    def word_list(self, column: str) -> list[str]:
        """Return the cell as words or tags: a list, or text split at white space."""
        cell = self._cell(column)
        if isinstance(cell, str):
            return self._check_surrogates(column, cell).split()
        if not isinstance(cell, list):
            raise self.error(column, f"must be a list or text, not {_shorten(cell)}")
        return [self._check_label(column, item) for item in cell]

    def answers(self, column: str, context: str) -> tuple[list[str], list[int]]:
        """Return the answers and the position of the first character of each in `context`."""
        match self._cell(column):
            case {"text": list() as texts, "answer_start": list() as starts} if len(texts) == len(
                starts
            ):
                pass
            case cell:
                form = "{text: [...], answer_start: [...]}"
                raise self.error(column, f"must be {form}, not {_shorten(cell)}")
        for text, start in zip(texts, starts, strict=True):
            if not (isinstance(text, str) and text and isinstance(start, int) and start >= 0):
                raise self.error(
                    column, f"needs a text and its first character, not {_shorten(text)}, {start!r}"
                )
            if not context.startswith(text, start):
                raise self.error(
                    column, f"{_shorten(text)} is not in the context at character {start}"
                )
        return texts, starts


def _shorten(cell: object) -> str:
    written = "null" if cell is None else repr(cell)
    return written if len(written) <= 60 else f"{written[:60]}..."


def evaluation_questions(name: str) -> list[str]:
    """Return the text of each evaluation example of a task, to find copies in a training text.

    Args:
        name: name of a task, or path of a YAML file.

    Raises:
        UserError: the task is unknown or invalid.
    """
    if name in embedded.EMBEDDED:
        return embedded.evaluation_texts(name)
    return [_example_text(example) for example in read_examples(load_task(name)).evaluation]


def _example_text(example: Example) -> str:
    match example:
        case TextExample(text=text, pair=pair):
            return text if pair is None else f"{text} {pair}"
        case TagExample(words=words):
            return " ".join(words)
        case QuestionExample(question=question, context=context):
            return f"{question} {context}"
