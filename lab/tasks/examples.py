"""Convert the rows of a task to checked examples: labelled texts, tagged words, questions.

The examples of a task are written once to a file, which all fine-tuning runs on it read.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path as File
from typing import Any, NamedTuple, assert_never

from lab.config.metrics import PAIRS
from lab.config.tasks import (
    ClassificationTask,
    HubRows,
    PairTask,
    QuestionAnsweringTask,
    RegressionTask,
    TaggingTask,
    Task,
    TaskConfig,
)
from lab.config.trial import content_hash
from lab.loading.task_table import TASKS, load_task, task_config
from lab.storage import digests
from lab.tasks import embedded
from lab.tasks.checked_rows import CheckedRow
from lab.tasks.label_checks import Labelled, check_labels
from lab.tasks.minimal_pairs import embedded_pairs
from lab.tasks.rows import SourceRow, read_rows
from lab.tasks.text_checks import NamedText, check_texts


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
        config: settings of the task: kind, metric, epochs, columns.
        train: training examples.
        evaluation: evaluation examples.
        fingerprint: hash of the examples and the settings that affect training; independent of
            the source of the rows.
    """

    name: str
    config: TaskConfig
    train: tuple[Example, ...]
    evaluation: tuple[Example, ...]
    fingerprint: str

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Sorted labels or tags of the training examples; empty for tasks without classes."""
        return tuple(sorted(_labels(self.train)))

    @property
    def repeated(self) -> int:
        """Number of evaluation examples that have the text of a training example."""
        known = {_example_text(example) for example in self.train}
        return sum(_example_text(example) in known for example in self.evaluation)

    @property
    def unseen(self) -> tuple[str, ...]:
        """Sorted evaluation tags absent from training; their words are always scored wrong."""
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
        UserError: a row is invalid (the message names the first one), or the labels cannot be
            learned or scored (`label_checks`).
    """
    train_rows, evaluation_rows = (
        read_rows(rows, f"{task.name}: {split}")
        for split, rows in (("train", task.config.train), ("evaluation", task.config.evaluation))
    )
    train, evaluation = (_convert_rows(task.config, rows) for rows in (train_rows, evaluation_rows))
    check_labels(
        task.name, task.config, _name_labels(train_rows, train),
        _name_labels(evaluation_rows, evaluation),
    )  # fmt: skip
    check_texts(task.name, _name_texts(train_rows, train), _name_texts(evaluation_rows, evaluation))
    settings = {key: value for key, value in asdict(task.config).items() if key in _TRAINING_KEYS}
    return Examples(
        name=task.name,
        config=task.config,
        train=train,
        evaluation=evaluation,
        fingerprint=content_hash([settings, train, evaluation]),
    )


_TRAINING_KEYS = {"kind", "epochs", "unordered"}  # settings of a task that affect training


def check_local_tasks(names: Iterable[str]) -> None:
    """Check the rows of all tasks that are described by YAML files and have local rows.

    Built-in tasks have known columns and labels, and rows of the hub are not downloaded.

    Raises:
        UserError: a file or a column is missing, or a row is invalid (see `read_examples`).
    """
    for name in names:
        task = load_task(name)
        sources = (task.config.train, task.config.evaluation)
        if name not in TASKS and not any(isinstance(source, HubRows) for source in sources):
            read_examples(task)


def _name_labels(rows: Sequence[SourceRow], examples: Sequence[Example]) -> list[Labelled]:
    """Return the labels of all examples, or the tags of all words, with the names of the rows."""
    labels: list[Labelled] = []
    for (row, _), example in zip(rows, examples, strict=True):
        match example:
            case TextExample(label=label):
                labels.append(Labelled(row, label))
            case TagExample(tags=tags):
                labels.extend(Labelled(row, tag) for tag in tags)
    return labels


def _name_texts(rows: Sequence[SourceRow], examples: Sequence[Example]) -> list[NamedText]:
    pairs = zip(rows, examples, strict=True)
    return [NamedText(row, _example_text(example)) for (row, _), example in pairs]


def prepare_examples(task: Task, cache: File) -> File:
    """Return the file of a task's examples; write it first, atomically, if it does not exist.

    Args:
        task: task to read.
        cache: folder of the file.

    Raises:
        UserError: the task is invalid (see `read_examples`).
    """
    examples = read_examples(task)
    identity = content_hash([examples.fingerprint, asdict(examples.config)])
    file = cache / f"task-{examples.name}-{identity}.json"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        content: dict[str, Any] = {"name": examples.name, "form": asdict(examples.config)}
        content |= {"train": examples.train, "evaluation": examples.evaluation}
        content |= {"fingerprint": examples.fingerprint}
        digests.write_json(file, content)
    return file


def open_examples(file: File) -> Examples:
    """Read a file that `prepare_examples` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    content = digests.read_json(file, "delete it and run the same command again")
    form = task_config(content["form"])
    example_type = _EXAMPLE_TYPES[type(form)]
    train, evaluation = (
        tuple(example_type(*example) for example in content[split])
        for split in ("train", "evaluation")
    )
    return Examples(
        name=content["name"],
        config=form,
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


def evaluation_questions(name: str) -> list[str]:
    """Return the text of each evaluation example of a task, to find copies in a training text.

    Args:
        name: name of a task, path of a YAML file, or `pairs` for the good sentences of the
            package's minimal pairs.

    Raises:
        UserError: the task is unknown or invalid.
    """
    if name == PAIRS:
        return [pair.good for pair in embedded_pairs()]
    if name in embedded.EMBEDDED:
        return embedded.evaluation_texts(name)
    return evaluation_texts(read_examples(load_task(name)))


def evaluation_texts(task: Examples) -> list[str]:
    """Return the text of each evaluation example."""
    return [_example_text(example) for example in task.evaluation]


def _convert_rows(form: TaskConfig, rows: Sequence[SourceRow]) -> tuple[Example, ...]:
    return tuple(_convert_row(form, CheckedRow(*row)) for row in rows)


def _convert_row(form: TaskConfig, cells: CheckedRow) -> Example:
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


def _convert_tagged(form: TaggingTask, cells: CheckedRow) -> TagExample:
    words, tags = cells.word_list(form.words), cells.word_list(form.tags)
    if len(words) != len(tags):
        raise cells.error(form.tags, f"{len(tags)} tags for {len(words)} words")
    if not words:
        raise cells.error(form.words, "no words")
    return TagExample(words, tags)


def _example_text(example: Example) -> str:
    match example:
        case TextExample(text=text, pair=pair):
            return text if pair is None else f"{text} {pair}"
        case TagExample(words=words):
            return " ".join(words)
        case QuestionExample(question=question, context=context):
            return f"{question} {context}"
