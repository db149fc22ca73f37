"""Configuration of a fine-tuning task: kind, source and columns of its rows, and metric."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval
from pydantic import Field

from lab.config.base import StrictConfig
from lab.config.bounds import Name, NameOrEmpty

Epochs = Annotated[int, Interval(ge=1, le=1_000)]
FORMATS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")


@dataclass(frozen=True, kw_only=True)
class EmbeddedRows(StrictConfig):
    """Rows of a data set that the package contains (NOTICE lists its origin).

    Attributes:
        name: name of the data set.
        split: split to read.
    """

    kind: Literal["carried"]
    name: Literal["pos", "sentiment"]
    split: Literal["train", "test"]


@dataclass(frozen=True, kw_only=True)
class FileRows(StrictConfig):
    """A local file of rows: .csv, .tsv (unquoted, as in GLUE), .jsonl, .json or .parquet.

    Attributes:
        path: path of the file.
    """

    kind: Literal["file"]
    path: Name


@dataclass(frozen=True, kw_only=True)
class SavedRows(StrictConfig):
    """A folder that the `datasets` library saved (`save_to_disk`).

    Attributes:
        path: path of the folder.
        split: split to read; empty if the folder holds a single data set without splits.
    """

    kind: Literal["saved"]
    path: Name
    split: NameOrEmpty = ""


@dataclass(frozen=True, kw_only=True)
class HubRows(StrictConfig):
    """A split of a data set of the Hugging Face hub. Code in its repository is never run.

    Attributes:
        name: name of the data set on the hub, for example `nyu-mll/glue`.
        configuration: configuration of the data set, for example `cola`; empty if the data set has
            only one.
        split: split to read.
        revision: branch, tag or commit of the data set's repository.
    """

    kind: Literal["hub"]
    name: Name
    configuration: NameOrEmpty = ""
    split: Name
    revision: Name = "main"


RowSource = Annotated[EmbeddedRows | FileRows | SavedRows | HubRows, Field(discriminator="kind")]
_ClassificationMetric = Literal["accuracy", "f1", "macro_f1", "matthews"]


@dataclass(frozen=True, kw_only=True)
class ClassificationTask(StrictConfig):
    """Classification of a text.

    Attributes:
        train: source of the training rows.
        evaluation: source of the evaluation rows.
        text: name of the column that holds the text.
        label: name of the column that holds the label, as text or a whole number.
        metric: score of the task; `f1` is the F1 score of the second of two labels in sorted
            order, `matthews` the Matthews correlation coefficient.
        epochs: number of passes over the training rows.
    """

    kind: Literal["classification"]
    train: RowSource
    evaluation: RowSource
    text: Name = "text"
    label: Name = "label"
    metric: _ClassificationMetric = "accuracy"
    epochs: Epochs = 3


@dataclass(frozen=True, kw_only=True)
class PairTask(StrictConfig):
    """Classification of a pair of texts.

    Attributes:
        train: source of the training rows.
        evaluation: source of the evaluation rows.
        text: name of the column that holds the first text.
        pair: name of the column that holds the second text.
        label: name of the column that holds the label, as text or a whole number.
        unordered: whether the order of the two texts is arbitrary; training then uses both
            orders, as the official code does for MRPC and STS-B (`double_unordered`).
        metric: score of the task, as in a classification task.
        epochs: number of passes over the training rows.
    """

    kind: Literal["pairs"]
    train: RowSource
    evaluation: RowSource
    text: Name = "text"
    pair: Name = "pair"
    label: Name = "label"
    unordered: bool = False
    metric: _ClassificationMetric = "accuracy"
    epochs: Epochs = 3


@dataclass(frozen=True, kw_only=True)
class RegressionTask(StrictConfig):
    """Regression of a number on a text or a pair of texts.

    Attributes:
        train: source of the training rows.
        evaluation: source of the evaluation rows.
        text: name of the column that holds the first text.
        pair: name of the column that holds the second text; empty if there is only one text.
        label: name of the column that holds the number.
        unordered: whether the order of the two texts is arbitrary; training then uses both orders.
        metric: score of the task, Spearman's or Pearson's correlation coefficient.
        epochs: number of passes over the training rows.
    """

    kind: Literal["regression"]
    train: RowSource
    evaluation: RowSource
    text: Name = "text"
    pair: NameOrEmpty = ""
    label: Name = "label"
    unordered: bool = False
    metric: Literal["spearman", "pearson"] = "spearman"
    epochs: Epochs = 3


@dataclass(frozen=True, kw_only=True)
class TaggingTask(StrictConfig):
    """Tagging of every word of a text.

    Attributes:
        train: source of the training rows.
        evaluation: source of the evaluation rows.
        words: name of the column that holds the words, as a list or as text separated by spaces.
        tags: name of the column that holds the tags, one for each word, in the same form.
        metric: score of the task, over all words of the evaluation rows.
        epochs: number of passes over the training rows.
    """

    kind: Literal["tagging"]
    train: RowSource
    evaluation: RowSource
    words: Name = "words"
    tags: Name = "tags"
    metric: Literal["accuracy", "macro_f1"] = "accuracy"
    epochs: Epochs = 3


@dataclass(frozen=True, kw_only=True)
class QuestionAnsweringTask(StrictConfig):
    """Extractive question answering in the format of SQuAD.

    Attributes:
        train: source of the training rows.
        evaluation: source of the evaluation rows.
        question: name of the column that holds the question.
        context: name of the column that holds the text that contains the answer.
        answers: name of the column that holds the answers, as {text: [...], answer_start: [...]};
            both lists are empty for a question without an answer.
        metric: score of the task, F1 over the words of the answer or exact match.
        epochs: number of passes over the training rows.
    """

    kind: Literal["question_answering"]
    train: RowSource
    evaluation: RowSource
    question: Name = "question"
    context: Name = "context"
    answers: Name = "answers"
    metric: Literal["f1", "exact_match"] = "f1"
    epochs: Epochs = 2


TaskConfig = ClassificationTask | PairTask | RegressionTask | TaggingTask | QuestionAnsweringTask


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task to fine-tune on.

    Attributes:
        name: name of the task; its score is the metric `finetune/<name>`.
        config: kind, rows, columns and metric of the task.
    """

    name: str
    config: TaskConfig
