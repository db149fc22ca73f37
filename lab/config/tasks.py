"""The tasks that an encoder is fine-tuned on: GLUE's nine, the two that the lab carries, a user's.

A task says what a row holds, where the rows to learn from and those to be scored on come from, and
what counts. A user's task is a YAML file:

    kind: classification        # pairs, regression, tagging, question_answering
    train: reviews/train.csv    # from the YAML file's folder; .csv .tsv .jsonl .json .parquet
    evaluation: reviews/test.csv
    text: review                # the columns, where they are named otherwise than here
    label: stars
    metric: macro_f1
"""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path as File
from typing import Annotated, Any, Literal

from annotated_types import Interval, MinLen
from pydantic import Field, TypeAdapter, ValidationError

from lab.config import yaml
from lab.config.base import Noun
from lab.config.error_messages import SpaceError, one_line
from lab.config.metrics import CHARGES

Name = Annotated[str, MinLen(1)]
Epochs = Annotated[int, Interval(ge=1, le=1_000)]
FORMATS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")


@dataclass(frozen=True, kw_only=True)
class Carried(Noun):
    """Rows inside the package (NOTICE)."""

    kind: Literal["carried"]
    name: Literal["pos", "sentiment"]
    split: Literal["train", "test"]


@dataclass(frozen=True, kw_only=True)
class Table(Noun):
    """A local file of rows: .csv, .tsv (without quoting, as GLUE's), .jsonl, .json or .parquet."""

    kind: Literal["file"]
    path: Name


@dataclass(frozen=True, kw_only=True)
class Saved(Noun):
    """A split of a folder that `datasets` saved (`save_to_disk`); empty where it has none."""

    kind: Literal["saved"]
    path: Name
    split: str = ""


@dataclass(frozen=True, kw_only=True)
class Hub(Noun):
    """A split of a data set of the Hugging Face hub. No code of it is run."""

    kind: Literal["hub"]
    name: Name
    configuration: str = ""
    split: Name
    revision: Name = "main"


Rows = Annotated[Carried | Table | Saved | Hub, Field(discriminator="kind")]
_Sorting = Literal["accuracy", "f1", "macro_f1", "matthews"]


@dataclass(frozen=True, kw_only=True)
class Classification(Noun):
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
    train: Rows
    evaluation: Rows
    text: Name = "text"
    label: Name = "label"
    metric: _Sorting = "accuracy"
    epochs: Epochs = 3


@dataclass(frozen=True, kw_only=True)
class Pairs(Noun):
    """Two texts have one of several labels.

    Attributes:
        text: column of the first.
        pair: column of the second.
        unordered: whether either may come first; both orders are learned from then, as the
            official code does with MRPC and STS-B (`double_unordered`).
    """

    kind: Literal["pairs"]
    train: Rows
    evaluation: Rows
    text: Name = "text"
    pair: Name = "pair"
    label: Name = "label"
    unordered: bool = False
    metric: _Sorting = "accuracy"
    epochs: Epochs = 3


@dataclass(frozen=True, kw_only=True)
class Regression(Noun):
    """A text, or two, has a number.

    Attributes:
        pair: column of the second text; empty where there is one.
        label: column of the number.
    """

    kind: Literal["regression"]
    train: Rows
    evaluation: Rows
    text: Name = "text"
    pair: str = ""
    label: Name = "label"
    unordered: bool = False
    metric: Literal["spearman", "pearson"] = "spearman"
    epochs: Epochs = 3


@dataclass(frozen=True, kw_only=True)
class Tagging(Noun):
    """Every word has one of several tags.

    Attributes:
        words: column; a list, or text in which blanks part them.
        tags: column; as many as words.
    """

    kind: Literal["tagging"]
    train: Rows
    evaluation: Rows
    words: Name = "words"
    tags: Name = "tags"
    metric: Literal["accuracy", "macro_f1"] = "accuracy"
    epochs: Epochs = 3


@dataclass(frozen=True, kw_only=True)
class QuestionAnswering(Noun):
    """The answer to a question stands in a text, in SQuAD's form.

    Attributes:
        question: column.
        context: column of the text.
        answers: column; {text: [...], answer_start: [...]}, both empty where there is none.
    """

    kind: Literal["question_answering"]
    train: Rows
    evaluation: Rows
    question: Name = "question"
    context: Name = "context"
    answers: Name = "answers"
    metric: Literal["f1", "exact_match"] = "f1"
    epochs: Epochs = 2


Form = Classification | Pairs | Regression | Tagging | QuestionAnswering


@dataclass(frozen=True, kw_only=True)
class Task:
    """What to fine-tune on.

    Attributes:
        name: by which its score goes, `finetune/<name>`.
        form: what it consists of.
    """

    name: str
    form: Form


def _glue(name: str, split: str = "validation") -> dict[str, Any]:
    """Return where a GLUE task's rows are; the labels of its test split are not public."""
    train, evaluation = (
        Hub(kind="hub", name="nyu-mll/glue", configuration=name, split=one)
        for one in ("train", split)
    )
    return {"train": train, "evaluation": evaluation}


def _carried(name: Literal["pos", "sentiment"]) -> dict[str, Any]:
    return {
        "train": Carried(kind="carried", name=name, split="train"),
        "evaluation": Carried(kind="carried", name=name, split="test"),
    }


# Metrics are GLUE's (Wang et al. 2019, table 1), with Spearman's for STS-B as in the ELECTRA paper;
# epochs and orders are the official `configure_finetuning.py`'s and `classification_tasks.py`'s.
_FORMS: dict[str, Form] = {
    "cola": Classification(kind="classification", **_glue("cola"), text="sentence",
                           metric="matthews"),
    "sst2": Classification(kind="classification", **_glue("sst2"), text="sentence"),
    "mrpc": Pairs(kind="pairs", **_glue("mrpc"), text="sentence1", pair="sentence2",
                  unordered=True),
    "stsb": Regression(kind="regression", **_glue("stsb"), text="sentence1", pair="sentence2",
                       unordered=True, epochs=10),
    "qqp": Pairs(kind="pairs", **_glue("qqp"), text="question1", pair="question2"),
    "mnli": Pairs(kind="pairs", **_glue("mnli", "validation_matched"), text="premise",
                  pair="hypothesis"),
    "qnli": Pairs(kind="pairs", **_glue("qnli"), text="question", pair="sentence"),
    "rte": Pairs(kind="pairs", **_glue("rte"), text="sentence1", pair="sentence2", epochs=10),
    "wnli": Pairs(kind="pairs", **_glue("wnli"), text="sentence1", pair="sentence2"),
    "sentiment": Classification(kind="classification", **_carried("sentiment")),
    "pos": Tagging(kind="tagging", **_carried("pos")),
}  # fmt: skip
TABLE: dict[str, Task] = {name: Task(name=name, form=form) for name, form in _FORMS.items()}


def load(name: str, folder: File | None = None) -> Task:
    """Return a task of the table, or the one that a YAML file describes.

    Args:
        name: one of `TABLE`, or a path that ends in .yaml or .yml.
        folder: where the table's rows of the hub lie, as `local` finds them.

    Raises:
        SpaceError: names the file and the dotted path.
    """
    if name in TABLE:
        return TABLE[name] if folder is None else local(TABLE[name], folder)
    file = File(name)
    if file.suffix not in {".yaml", ".yml"}:
        raise SpaceError(f"{name}: no such task; {', '.join(TABLE)}, or a YAML file of your own")
    if not _is_plain(file.stem) or file.stem in CHARGES:
        raise SpaceError(f"{file}: its name is the task's: letters, digits, - and _ alone")
    raw = yaml.read(file, "a task is a mapping with kind, train and evaluation")
    try:
        return Task(name=file.stem, form=_form(raw, file.absolute().parent))
    except ValidationError as error:
        raise SpaceError(f"{file}: {one_line(error, '', _adapter().json_schema())}") from None


def local(task: Task, folder: File) -> Task:
    """Return a task whose rows are in a folder, instead of on the hub.

    Args:
        task: of the table.
        folder: holds <task>, which `datasets` saved, or <task>/<split>.csv, .tsv, .jsonl, ...

    Raises:
        SpaceError: there is neither.
    """
    train, evaluation = (
        _local(rows, folder / task.name) for rows in (task.form.train, task.form.evaluation)
    )
    return replace(task, form=replace(task.form, train=train, evaluation=evaluation))


def _local(rows: Carried | Table | Saved | Hub, folder: File) -> Carried | Table | Saved | Hub:
    if not isinstance(rows, Hub):
        return rows
    if (folder / "dataset_dict.json").is_file():
        return Saved(kind="saved", path=str(folder.absolute()), split=rows.split)
    for suffix in FORMATS:
        if (file := folder / f"{rows.split}{suffix}").is_file():
            return Table(kind="file", path=str(file.absolute()))
    raise SpaceError(
        f"{folder}: has no {rows.split} ({', '.join(FORMATS)}), and is none that datasets saved"
    )


def form(raw: dict[str, Any]) -> Form:
    """Return a form of plain data, as `asdict` has it."""
    return _adapter().validate_json(yaml.as_json(raw), strict=True)


def _form(raw: dict[str, Any], folder: File) -> Form:
    """Return what YAML describes; a bare path is a file, and paths begin at `folder`."""
    for split in ("train", "evaluation"):
        if isinstance(raw.get(split), str):
            raw[split] = {"kind": "file", "path": raw[split]}
    made = form(raw)
    train, evaluation = (_from(rows, folder) for rows in (made.train, made.evaluation))
    return replace(made, train=train, evaluation=evaluation)


def _from(rows: Carried | Table | Saved | Hub, folder: File) -> Carried | Table | Saved | Hub:
    if isinstance(rows, Table | Saved):
        return replace(rows, path=str(folder / rows.path))
    return rows


def _is_plain(name: str) -> bool:
    return name.isascii() and name.replace("-", "").replace("_", "").isalnum()


@cache
def _adapter() -> TypeAdapter[Form]:
    return TypeAdapter(Annotated[Form, Field(discriminator="kind")])
