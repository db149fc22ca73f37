"""Derive a task from a file of labelled rows: kind, columns, metric and evaluation rows."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any, Literal

from lab.config.tasks import FORMATS, FileRows
from lab.data import tabular
from lab.errors import UserError
from lab.loading.task_table import TASKS
from lab.suggestion import source_guess
from lab.tasks.rows import SourceRow, read_rows

Kind = Literal["classification", "regression", "pairs"]

EVALUATION = 0.2  # share of evaluation rows, for a file without a column `split`
_MIN_ROWS = 50  # rows of a file that is split
_LABELS = ("label", "labels", "class", "category", "target", "gold", "sentiment", "score", "rating",
           "stars", "grade", "y")  # fmt: skip
_PAIRS = (
    ("sentence1", "sentence2"), ("question1", "question2"), ("premise", "hypothesis"),
    ("text1", "text2"), ("text_a", "text_b"), ("sentence_a", "sentence_b"), ("text", "pair"),
    ("question", "sentence"), ("query", "passage"), ("query", "document"),
)  # fmt: skip
_SPLIT = "split"
_HELD_OUT = {"test", "validation", "valid", "val", "dev", "eval", "evaluation"}
_MAX_CLASSES = 20  # a label with more distinct numbers is a regression target
_UNEVEN = 0.7  # share of the most frequent label above which the metric is macro F1


@dataclass(frozen=True, kw_only=True)
class TaskGuess:
    """The settings of a task without its files, and the reasons for them.

    Attributes:
        kind: kind of the task.
        columns: names of the columns by key of the task's YAML file: `text`, `label`, and `pair`
            for two texts.
        metric: metric of the task.
        because: one sentence for each of `kind`, `text`, `label` and `metric`.
    """

    kind: Kind
    columns: dict[str, str]
    metric: str
    because: dict[str, str]

    def settings(self, train: str, evaluation: str) -> dict[str, Any]:
        """Return the settings of the YAML file.

        Args:
            train: path of the training rows.
            evaluation: path of the evaluation rows.
        """
        files = {"train": train, "evaluation": evaluation}
        return {"kind": self.kind, **files, **self.columns, "metric": self.metric}


def read_task_rows(file: File) -> list[SourceRow]:
    """Return the rows of a labelled file.

    Raises:
        UserError: the format is unknown, or a row is invalid.
    """
    if file.suffix not in FORMATS:
        raise UserError(
            f"{file}: a task is one of {', '.join(TASKS)}, a YAML file, or rows in "
            f"{', '.join(FORMATS)}"
        )
    _check_header(file)
    return read_rows(FileRows(kind="file", path=str(file)), "--task")


def _check_header(file: File) -> None:
    """Check the names of the columns of a CSV file; other errors are left to `read_rows`."""
    if file.suffix not in tabular.DELIMITERS or not file.is_file():
        return
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            names = tabular.read_csv_header(lines, tabular.DELIMITERS[file.suffix])
    except (UnicodeDecodeError, OSError):
        return
    for name in names:
        source_guess.check_header(file, name, names)


def guess_task(file: File, rows: Sequence[SourceRow]) -> TaskGuess:
    """Return the task that fits the columns of labelled rows.

    Args:
        file: path of the rows, for error messages.
        rows: rows of the file.

    Raises:
        UserError: no column is recognized as label or text, or rows have no label.
    """
    names = [name for name in rows[0][1] if all(name in row for _, row in rows)]
    cells = {name: [row[name] for _, row in rows] for name in names}
    label = _label(file, cells)
    texts = _texts(file, {name: column for name, column in cells.items() if name != label})
    _check_labels(file, label, cells[label])
    distinct = len(set(map(str, cells[label])))
    kind, kind_reason = _kind(cells[label], paired=len(texts) == 2)
    mean = _mean_length(cells[texts[0]])
    metric, metric_reason = _metric(kind, cells[label])
    keys = {"text": texts[0], "label": label} | ({"pair": texts[1]} if len(texts) == 2 else {})
    return TaskGuess(
        kind=kind,
        columns=keys,
        metric=metric,
        because={
            "kind": kind_reason,
            "text": f"{' and '.join(texts)}: mean of {mean:,.0f} characters.",
            "label": f"{distinct:,} different values in {len(rows):,} rows.",
            "metric": metric_reason,
        },
    )


def _label(file: File, cells: dict[str, list[Any]]) -> str:
    """Return the label's column: by its name, else the column with the fewest distinct values."""
    known = {name.lower(): name for name in cells}
    for name in _LABELS:
        if name in known and _varies(cells[known[name]]):
            return known[name]
    few = {
        name: distinct
        for name, column in cells.items()
        if name.lower() != _SPLIT and _varies(column)
        if (distinct := len(set(map(str, column)))) <= len(column) / 2
    }
    if len(cells) > 1 and few:
        return min(few, key=lambda name: few[name])
    raise UserError(
        f"{file}: no column looks like a label (columns: {', '.join(cells)}). A label has at least "
        f"two different values and, unless its column is named label, at most half as many as "
        f"there are rows. Or write the task as a YAML file (docs/finetuning.md)"
    )


def _check_labels(file: File, name: str, labels: Sequence[Any]) -> None:
    """Check that every row has a label.

    Raises:
        UserError: labels are blank.
    """
    missing = sum(isinstance(label, str) and not label.strip() for label in labels)
    if missing:
        raise UserError(
            f"{file}: {missing:,} of {len(labels):,} rows have an empty cell in the label's "
            f"column, {name}; fill them or remove the rows"
        )


def _varies(cells: Iterable[Any]) -> bool:
    """Return whether a column holds only texts and numbers, with at least two distinct values."""
    values = list(cells)
    return all(isinstance(value, str | int | float) for value in values) and len(set(values)) > 1


def _texts(file: File, cells: dict[str, list[Any]]) -> tuple[str, ...]:
    """Return the column of text, or the two columns of a pair of texts."""
    for first, second in _PAIRS:
        if first in cells and second in cells:
            return first, second
    means = {
        name: _mean_length(column)
        for name, column in cells.items()
        if all(isinstance(cell, str) for cell in column) and len(set(column)) > len(column) / 10
    }
    if not means:
        raise UserError(f"{file}: no column of text beside the label; columns: {', '.join(cells)}")
    return (max(means, key=lambda name: means[name]),)


def _mean_length(cells: Sequence[str]) -> float:
    return sum(map(len, cells)) / max(1, len(cells))


def _kind(labels: Sequence[Any], *, paired: bool) -> tuple[Kind, str]:
    """Return the kind and its reason.

    Labels that are fractions, or more than `_MAX_CLASSES` distinct numbers, are regression targets.
    """
    distinct = len(set(map(str, labels)))
    try:
        numbers = [float(label) for label in labels]
    except (ValueError, OverflowError):  # OverflowError: a whole number of hundreds of digits
        numbers = []
    # A class is a text or an integer (`lab.tasks.examples`); 1.0 in JSON is neither.
    fractions = any(isinstance(label, float) for label in labels) or not all(
        number.is_integer() for number in numbers
    )
    if numbers and (fractions or distinct > _MAX_CLASSES):
        return "regression", f"The label is a number with {distinct:,} different values."
    reason = f"The label has {distinct:,} different values."
    return ("pairs", f"Two texts a row. {reason}") if paired else ("classification", reason)


def _metric(kind: Kind, labels: Sequence[Any]) -> tuple[str, str]:
    """Return the metric and its reason."""
    if kind == "regression":
        return "spearman", "Rank correlation, which assumes no linear relation."
    label, count = Counter(map(str, labels)).most_common(1)[0]
    reason = f"The most frequent label, {label}, has {count / len(labels):.0%} of the rows."
    return ("macro_f1" if count > _UNEVEN * len(labels) else "accuracy"), reason


def split_rows(
    file: File, rows: Sequence[SourceRow], task: TaskGuess
) -> tuple[list[SourceRow], list[SourceRow], str]:
    """Split labelled rows into training rows and evaluation rows.

    A column `split` is used if the file has one. Otherwise a hash of the text selects a fifth of
    the rows of each label for evaluation: a file is always split in the same way, and rows of equal
    text stay together.

    Args:
        file: path of the rows, for error messages.
        rows: rows of the file.
        task: settings of the task.

    Returns:
        Training rows, evaluation rows and the method of the split, in words.

    Raises:
        UserError: there are too few rows.
    """
    names = {str(row.get(_SPLIT, "")).lower() for _, row in rows}
    if names & _HELD_OUT and names - _HELD_OUT:
        evaluation = [row for row in rows if str(row[1][_SPLIT]).lower() in _HELD_OUT]
        train = [row for row in rows if str(row[1][_SPLIT]).lower() not in _HELD_OUT]
        return train, evaluation, f"by the column {_SPLIT!r}"
    if len(rows) < _MIN_ROWS:
        raise UserError(
            f"{file}: {len(rows)} rows are too few to be split; give at least {_MIN_ROWS}, or a "
            f"second --task file with evaluation rows"
        )
    chosen = _evaluation_texts(rows, task)
    text = task.columns["text"]
    train = [row for row in rows if row[1][text] not in chosen]
    evaluation = [row for row in rows if row[1][text] in chosen]
    return train, evaluation, f"by a hash of the text, {EVALUATION:.0%} of each label's rows"


def _evaluation_texts(rows: Sequence[SourceRow], task: TaskGuess) -> set[str]:
    """Return the texts of the evaluation rows, a share `EVALUATION` of the texts of each label."""
    column, label = task.columns["text"], task.columns["label"]
    strata: dict[str, list[str]] = defaultdict(list)
    for text, row in {row[column]: row for _, row in rows}.items():
        strata["" if task.kind == "regression" else str(row[label])].append(text)
    return {
        text
        for texts in strata.values()
        for text in sorted(texts, key=_text_hash)[: round(EVALUATION * len(texts))]
    }


def _text_hash(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def as_json_lines(rows: Iterable[SourceRow], task: TaskGuess) -> str:
    """Return the columns that a task uses, as JSON Lines."""
    cells = ({name: row[name] for name in task.columns.values()} for _, row in rows)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in cells)
