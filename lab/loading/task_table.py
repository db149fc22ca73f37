"""Built-in tasks, and tasks that a user describes in a YAML file.

Built in are the nine tasks of GLUE and the two data sets of the package. Example of a user's task:

    kind: classification        # pairs, regression, tagging, question_answering
    train: reviews/train.csv    # relative to the YAML file; .csv .tsv .jsonl .json .parquet
    evaluation: reviews/test.csv
    text: review                # names of columns, if they differ from the defaults
    label: stars
    metric: macro_f1
"""

from dataclasses import replace
from functools import cache
from pathlib import Path as File
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from lab.config.metrics import FINETUNING_COSTS
from lab.config.tasks import (
    FORMATS,
    ClassificationTask,
    EmbeddedRows,
    FileRows,
    HubRows,
    PairTask,
    RegressionTask,
    SavedRows,
    TaggingTask,
    Task,
    TaskConfig,
)
from lab.loading import yaml_text
from lab.loading.error_messages import SpaceError, one_line

_LONGEST_NAME = 100  # characters of a task's name; MLflow allows 250 for the name of a metric


def _glue(name: str, split: str = "validation") -> dict[str, Any]:
    """Return the row sources of a GLUE task; the labels of its test split are not public."""
    train, evaluation = (
        HubRows(kind="hub", name="nyu-mll/glue", configuration=name, split=one)
        for one in ("train", split)
    )
    return {"train": train, "evaluation": evaluation}


def _embedded(name: Literal["pos", "sentiment"]) -> dict[str, Any]:
    """Return the row sources of a data set that the package contains."""
    return {
        "train": EmbeddedRows(kind="carried", name=name, split="train"),
        "evaluation": EmbeddedRows(kind="carried", name=name, split="test"),
    }


# Metrics are those of GLUE (Wang et al. 2019, table 1), with Spearman's correlation for STS-B as in
# the ELECTRA paper. `epochs` and `unordered` are from the official `configure_finetuning.py` and
# `classification_tasks.py`.
_FORMS: dict[str, TaskConfig] = {
    "cola": ClassificationTask(kind="classification", **_glue("cola"), text="sentence",
                           metric="matthews"),
    "sst2": ClassificationTask(kind="classification", **_glue("sst2"), text="sentence"),
    "mrpc": PairTask(kind="pairs", **_glue("mrpc"), text="sentence1", pair="sentence2",
                  unordered=True),
    "stsb": RegressionTask(kind="regression", **_glue("stsb"), text="sentence1", pair="sentence2",
                       unordered=True, epochs=10),
    "qqp": PairTask(kind="pairs", **_glue("qqp"), text="question1", pair="question2"),
    "mnli": PairTask(kind="pairs", **_glue("mnli", "validation_matched"), text="premise",
                  pair="hypothesis"),
    "qnli": PairTask(kind="pairs", **_glue("qnli"), text="question", pair="sentence"),
    "rte": PairTask(kind="pairs", **_glue("rte"), text="sentence1", pair="sentence2", epochs=10),
    "wnli": PairTask(kind="pairs", **_glue("wnli"), text="sentence1", pair="sentence2"),
    "sentiment": ClassificationTask(kind="classification", **_embedded("sentiment")),
    "pos": TaggingTask(kind="tagging", **_embedded("pos")),
}  # fmt: skip
TASKS: dict[str, Task] = {name: Task(name=name, config=form) for name, form in _FORMS.items()}


def load_task(name: str, folder: File | None = None) -> Task:
    """Return a built-in task, or the task that a YAML file describes.

    Args:
        name: one of `TASKS`, or a path that ends in .yaml or .yml.
        folder: folder with local copies of a built-in task's rows (see `with_local_rows`); None
            reads them from the hub.

    Raises:
        SpaceError: there is no such task, or its YAML is invalid; the message has the file and the
            dotted path.
    """
    if name in TASKS:
        return TASKS[name] if folder is None else with_local_rows(TASKS[name], folder)
    file = File(name)
    if file.suffix not in {".yaml", ".yml"}:
        raise SpaceError(f"{name}: no such task; must be one of {', '.join(TASKS)}, or a YAML file")
    if not _is_valid_name(file.stem) or file.stem in FINETUNING_COSTS:
        raise SpaceError(
            f"{file}: the file name is the name of the task: it must consist of at most "
            f"{_LONGEST_NAME} letters, digits, - and _, and must not be "
            f"{' or '.join(FINETUNING_COSTS)}"
        )
    if file.exists() and not (file.is_file() or file.is_dir()):
        raise SpaceError(f"{file}: not a regular file")  # it is read several times
    raw = yaml_text.read(file, "a task is a mapping with kind, train and evaluation")
    try:
        return Task(name=file.stem, config=_form_from_yaml(raw, file.absolute().parent))
    except ValidationError as error:
        raise SpaceError(f"{file}: {one_line(error, '', _adapter().json_schema())}") from None


def with_local_rows(task: Task, folder: File) -> Task:
    """Return a built-in task with rows from a local folder instead of the hub.

    Args:
        task: one of `TASKS`.
        folder: folder that contains either <task>, saved by the `datasets` library, or files
            <task>/<split> with an ending of `FORMATS`.

    Raises:
        SpaceError: `folder` contains neither.
    """
    train, evaluation = (
        _local_rows(rows, folder / task.name)
        for rows in (task.config.train, task.config.evaluation)
    )
    return replace(task, config=replace(task.config, train=train, evaluation=evaluation))


def _local_rows(
    rows: EmbeddedRows | FileRows | SavedRows | HubRows, folder: File
) -> EmbeddedRows | FileRows | SavedRows | HubRows:
    if not isinstance(rows, HubRows):
        return rows
    if (folder / "dataset_dict.json").is_file():
        return SavedRows(kind="saved", path=str(folder.absolute()), split=rows.split)
    for suffix in FORMATS:
        if (file := folder / f"{rows.split}{suffix}").is_file():
            return FileRows(kind="file", path=str(file.absolute()))
    raise SpaceError(
        f"{folder}: has no {rows.split} ({', '.join(FORMATS)}), and was not saved by datasets"
    )


def task_config(raw: dict[str, Any]) -> TaskConfig:
    """Return the task configuration of plain data, the inverse of `dataclasses.asdict`."""
    return _adapter().validate_json(yaml_text.as_json(raw), strict=True)


def _form_from_yaml(raw: dict[str, Any], folder: File) -> TaskConfig:
    """Return the task configuration of YAML data.

    A string under `train` or `evaluation` is the path of a file. Paths are relative to `folder`.
    """
    for split in ("train", "evaluation"):
        if isinstance(raw.get(split), str):
            raw[split] = {"kind": "file", "path": raw[split]}
    form = task_config(raw)
    train, evaluation = (_resolve_path(rows, folder) for rows in (form.train, form.evaluation))
    return replace(form, train=train, evaluation=evaluation)


def _resolve_path(
    rows: EmbeddedRows | FileRows | SavedRows | HubRows, folder: File
) -> EmbeddedRows | FileRows | SavedRows | HubRows:
    if isinstance(rows, FileRows | SavedRows):
        return replace(rows, path=str(folder / rows.path))
    return rows


def _is_valid_name(name: str) -> bool:
    if len(name) > _LONGEST_NAME:
        return False
    return name.isascii() and name.replace("-", "").replace("_", "").isalnum()


@cache
def _adapter() -> TypeAdapter[TaskConfig]:
    return TypeAdapter(Annotated[TaskConfig, Field(discriminator="kind")])
