"""Configuration of a task: what its rows hold, where they come from, and its metric."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval, MinLen
from pydantic import Field

from lab.config.base import StrictConfig

Name = Annotated[str, MinLen(1)]
Epochs = Annotated[int, Interval(ge=1, le=1_000)]
FORMATS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")


@dataclass(frozen=True, kw_only=True)
class EmbeddedRows(StrictConfig):
    """Rows inside the package (NOTICE)."""

    kind: Literal["carried"]
    name: Literal["pos", "sentiment"]
    split: Literal["train", "test"]


@dataclass(frozen=True, kw_only=True)
class FileRows(StrictConfig):
    """A local file of rows: .csv, .tsv (without quoting, as GLUE's), .jsonl, .json or .parquet."""

    kind: Literal["file"]
    path: Name


@dataclass(frozen=True, kw_only=True)
class SavedRows(StrictConfig):
    """A split of a folder that `datasets` saved (`save_to_disk`); empty where it has none."""

    kind: Literal["saved"]
    path: Name
    split: str = ""


@dataclass(frozen=True, kw_only=True)
class HubRows(StrictConfig):
    """A split of a data set of the Hugging Face hub. No code of it is run."""

    kind: Literal["hub"]
    name: Name
    configuration: str = ""
    split: Name
    revision: Name = "main"


RowSource = Annotated[EmbeddedRows | FileRows | SavedRows | HubRows, Field(discriminator="kind")]
_Sorting = Literal["accuracy", "f1", "macro_f1", "matthews"]


@dataclass(frozen=True, kw_only=True)
class ClassificationTask(StrictConfig):
    """A text has one of several labels.

    Attributes:
        train: rows to learn from.
        evaluation: rows to be scored on.
        text: column.
        label: column; text or whole numbers.
        metric: what counts; `f1` is that of the second of two labels in their order, `matthews`
            the correlation of Matthews.
        epochs: times that every row is learned from.
    """

    kind: Literal["classification"]
    train: RowSource
    evaluation: RowSource
    text: Name = "text"
    label: Name = "label"
    metric: _Sorting = "accuracy"
    epochs: Epochs = 3


@dataclass(frozen=True, kw_only=True)
class PairTask(StrictConfig):
    """Two texts have one of several labels.

    Attributes:
        text: column of the first.
        pair: column of the second.
        unordered: whether either may come first; both orders are learned from then, as the
            official code does with MRPC and STS-B (`double_unordered`).
    """

    kind: Literal["pairs"]
    train: RowSource
    evaluation: RowSource
    text: Name = "text"
    pair: Name = "pair"
    label: Name = "label"
    unordered: bool = False
    metric: _Sorting = "accuracy"
    epochs: Epochs = 3


@dataclass(frozen=True, kw_only=True)
class RegressionTask(StrictConfig):
    """A text, or two, has a number.

    Attributes:
        pair: column of the second text; empty where there is one.
        label: column of the number.
    """

    kind: Literal["regression"]
    train: RowSource
    evaluation: RowSource
    text: Name = "text"
    pair: str = ""
    label: Name = "label"
    unordered: bool = False
    metric: Literal["spearman", "pearson"] = "spearman"
    epochs: Epochs = 3


@dataclass(frozen=True, kw_only=True)
class TaggingTask(StrictConfig):
    """Every word has one of several tags.

    Attributes:
        words: column; a list, or text in which blanks part them.
        tags: column; as many as words.
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
    """The answer to a question stands in a text, in SQuAD's form.

    Attributes:
        question: column.
        context: column of the text.
        answers: column; {text: [...], answer_start: [...]}, both empty where there is none.
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
    """What to fine-tune on.

    Attributes:
        name: by which its score goes, `finetune/<name>`.
        form: what it consists of.
    """

    name: str
    form: TaskConfig
