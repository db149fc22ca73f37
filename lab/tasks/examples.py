"""What a task's rows say, checked: texts with labels, words with tags, questions with answers.

Prepared once for each content, by whoever starts a run, into a file that all fine-tuning reads.
"""

import json
import math
import re
import tempfile
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
from lab.tasks import embedded
from lab.tasks.rows import SourceRow, read_rows


class TextExample(NamedTuple):
    """A text, or two, with a label.

    Attributes:
        text: the first.
        pair: the second; None where there is one.
        label: its label; a number in regression.
    """

    text: str
    pair: str | None
    label: str | float


class TagExample(NamedTuple):
    """Words with a tag each."""

    words: Sequence[str]
    tags: Sequence[str]


class QuestionExample(NamedTuple):
    """A question about a text.

    Attributes:
        question: itself.
        context: the text.
        answers: every way to answer it; none where the text does not.
        starts: the first character of each.
    """

    question: str
    context: str
    answers: Sequence[str]
    starts: Sequence[int]


Example = TextExample | TagExample | QuestionExample


@dataclass(frozen=True, kw_only=True)
class Examples:
    """A task, ready to be learned.

    Attributes:
        name: of the task.
        form: kind, metric and epochs.
        train: to learn from.
        evaluation: to be scored on.
        fingerprint: hash of all that is learned and scored; where it came from is no part.
    """

    name: str
    form: TaskConfig
    train: tuple[Example, ...]
    evaluation: tuple[Example, ...]
    fingerprint: str

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The labels that can be learned, in order; none where nothing is sorted."""
        return tuple(sorted(_labels(self.train)))

    @property
    def unseen(self) -> tuple[str, ...]:
        """Labels of the evaluation that nobody can learn; every one of them is an error."""
        return tuple(sorted(_labels(self.evaluation) - _labels(self.train)))


def _labels(examples: Iterable[Example]) -> set[str]:
    found: set[str] = set()
    for example in examples:
        match example:
            case TextExample(label=str() as label):
                found.add(label)
            case TagExample(tags=tags):
                found.update(tags)
    return found


def read_examples(task: Task) -> Examples:
    """Read and check a task's rows.

    Raises:
        UserError: names the first row that is wrong, or why the task cannot be scored.
    """
    train, evaluation = (
        _examples(task.form, read_rows(rows)) for rows in (task.form.train, task.form.evaluation)
    )
    learned = {key: value for key, value in asdict(task.form).items() if key in _LEARNED}
    made = Examples(
        name=task.name,
        form=task.form,
        train=train,
        evaluation=evaluation,
        fingerprint=content_hash([learned, train, evaluation]),
    )
    _check(made)
    return made


_LEARNED = {"kind", "epochs", "unordered"}  # what of a form changes what is learned


def _check(made: Examples) -> None:
    if isinstance(made.form, RegressionTask | QuestionAnsweringTask):
        return
    if len(made.labels) < 2:
        raise UserError(f"{made.name}: one label in all rows to learn from: {made.labels[0]!r}")
    if made.form.metric == "f1" and len(made.labels) > 2:
        raise UserError(
            f"{made.name}: metric f1 is of two labels, and there are {len(made.labels)}; "
            f"take macro_f1"
        )


def prepare_examples(task: Task, cache: File) -> File:
    """Return the file of a task's examples, written first if it is not there; atomic."""
    made = read_examples(task)
    identity = content_hash([made.fingerprint, asdict(made.form)])
    file = cache / f"task-{made.name}-{identity}.json"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        content: dict[str, Any] = {"name": made.name, "form": asdict(made.form)}
        content |= {"train": made.train, "evaluation": made.evaluation}
        content |= {"fingerprint": made.fingerprint}
        with tempfile.NamedTemporaryFile("w", dir=cache, delete=False) as partial:
            json.dump(content, partial)
        File(partial.name).replace(file)
    return file


def open_examples(file: File) -> Examples:
    """Read what `prepare_examples` wrote."""
    content = json.loads(file.read_text())
    form = task_config(content["form"])
    kind = _EXAMPLE[type(form)]
    train, evaluation = (
        tuple(kind(*example) for example in content[split]) for split in ("train", "evaluation")
    )
    return Examples(
        name=content["name"],
        form=form,
        train=train,
        evaluation=evaluation,
        fingerprint=content["fingerprint"],
    )


_EXAMPLE: dict[type[TaskConfig], Callable[..., Example]] = {
    ClassificationTask: TextExample,
    PairTask: TextExample,
    RegressionTask: TextExample,
    TaggingTask: TagExample,
    QuestionAnsweringTask: QuestionExample,
}


def _examples(form: TaskConfig, rows: Sequence[SourceRow]) -> tuple[Example, ...]:
    return tuple(_example(form, _Cells(*row)) for row in rows)


def _example(form: TaskConfig, cells: "_Cells") -> Example:
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
            return _tagged(form, cells)
        case QuestionAnsweringTask():
            context = cells.text(form.context)
            answers = cells.answers(form.answers, context)
            return QuestionExample(cells.text(form.question), context, *answers)
        case _:
            assert_never(form)


def _tagged(form: TaggingTask, cells: "_Cells") -> TagExample:
    words, tags = cells.listed(form.words), cells.listed(form.tags)
    if len(words) != len(tags):
        raise cells.error(form.tags, f"{len(tags)} tags for {len(words)} words")
    if not words:
        raise cells.error(form.words, "no words")
    return TagExample(words, tags)


class _Cells:
    """A row, whose cells are what they should be or an error that names them."""

    def __init__(self, where: str, row: dict[str, Any]) -> None:
        self._where, self._row = where, row

    def error(self, column: str, what: str) -> UserError:
        """Return the error of a cell."""
        return UserError(f"{self._where}: {column}: {what}")

    def _cell(self, column: str) -> Any:
        if column not in self._row:
            there = ", ".join(map(str, self._row)) or "none"
            raise UserError(f"{self._where}: no column {column!r}; it has {there}")
        return self._row[column]

    def text(self, column: str) -> str:
        """Return a text."""
        cell = self._cell(column)
        if not isinstance(cell, str):
            raise self.error(column, f"must be text, not {_shown(cell)}")
        return self._whole(column, cell)

    def _whole(self, column: str, text: str) -> str:
        """Return text without halves of surrogate pairs, which JSON can write and nothing reads."""
        if re.search("[\ud800-\udfff]", text):
            raise self.error(column, f"half of a surrogate pair in {_shown(text)}")
        return text

    def label(self, column: str) -> str:
        """Return a label."""
        return self._label(column, self._cell(column))

    def _label(self, column: str, cell: object) -> str:
        if cell == "" or not isinstance(cell, str | int):
            raise self.error(column, f"must be text or a whole number, not {_shown(cell)}")
        return self._whole(column, str(cell))

    def number(self, column: str) -> float:
        """Return a number."""
        cell = self._cell(column)
        try:
            number = float(cell)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise self.error(column, f"must be a number, not {_shown(cell)}")
        return number

    def listed(self, column: str) -> list[str]:
        """Return words or tags: a list, or what blanks part."""
        cell = self._cell(column)
        if isinstance(cell, str):
            return self._whole(column, cell).split()
        if not isinstance(cell, list):
            raise self.error(column, f"must be a list or text, not {_shown(cell)}")
        return [self._label(column, one) for one in cell]

    def answers(self, column: str, context: str) -> tuple[list[str], list[int]]:
        """Return answers and the characters at which they begin."""
        match self._cell(column):
            case {"text": list() as texts, "answer_start": list() as starts} if len(texts) == len(
                starts
            ):
                pass
            case cell:
                form = "{text: [...], answer_start: [...]}"
                raise self.error(column, f"must be {form}, not {_shown(cell)}")
        for text, start in zip(texts, starts, strict=True):
            if not (isinstance(text, str) and text and isinstance(start, int) and start >= 0):
                raise self.error(column, f"no text and its first character: {_shown(text)}")
            if not context.startswith(text, start):
                raise self.error(column, f"{_shown(text)} does not stand at character {start}")
        return texts, starts


def _shown(cell: object) -> str:
    said = "null" if cell is None else repr(cell)
    return said if len(said) <= 60 else f"{said[:60]}..."


def evaluation_questions(name: str) -> list[str]:
    """Return the text of each question that a task is scored by, for whoever looks for copies.

    Args:
        name: of the table, or a YAML file.
    """
    if name in embedded.EMBEDDED:
        return embedded.evaluation_texts(name)
    return [_text(example) for example in read_examples(load_task(name)).evaluation]


def _text(example: Example) -> str:
    match example:
        case TextExample(text=text, pair=pair):
            return text if pair is None else f"{text} {pair}"
        case TagExample(words=words):
            return " ".join(words)
        case QuestionExample(question=question, context=context):
            return f"{question} {context}"
