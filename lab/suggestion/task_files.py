"""From a file of labelled rows to a task: which columns, which kind, which rows to be scored on."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any, Literal

from lab.config.tasks import FORMATS, FileRows
from lab.errors import UserError
from lab.tasks.rows import SourceRow, read_rows

Kind = Literal["classification", "regression", "pairs"]

EVALUATION = 0.2  # share of the rows to be scored on, where a file has no such split
_LEAST = 50  # rows to be split
_LABELS = ("label", "labels", "class", "category", "target", "gold", "sentiment", "score", "rating",
           "stars", "grade", "y")  # fmt: skip
_PAIRS = (
    ("sentence1", "sentence2"), ("question1", "question2"), ("premise", "hypothesis"),
    ("text1", "text2"), ("text_a", "text_b"), ("sentence_a", "sentence_b"), ("text", "pair"),
    ("question", "sentence"), ("query", "passage"), ("query", "document"),
)  # fmt: skip
_SPLIT = "split"
_HELD_OUT = {"test", "validation", "valid", "val", "dev", "eval", "evaluation"}
_MANY_NUMBERS = 20  # different whole numbers that are no classes
_UNEVEN = 0.7  # share of the most frequent label at which accuracy says little


@dataclass(frozen=True, kw_only=True)
class TaskGuess:
    """A task as its YAML file has it, without its files, and the reasons.

    Attributes:
        kind: of the task.
        columns: by key of the YAML file: `text`, `label`, for pairs `pair`.
        metric: what counts.
        because: a sentence for `kind`, `text`, `label` and `metric`.
    """

    kind: Kind
    columns: dict[str, str]
    metric: str
    because: dict[str, str]

    def settings(self, train: str, evaluation: str) -> dict[str, Any]:
        """Return the YAML file's content."""
        files = {"train": train, "evaluation": evaluation}
        return {"kind": self.kind, **files, **self.columns, "metric": self.metric}


def read_task_rows(file: File) -> list[SourceRow]:
    """Return the rows of a labelled file.

    Raises:
        UserError: its format is unknown, or a row is wrong.
    """
    if file.suffix not in FORMATS:
        raise UserError(f"{file}: a task is a YAML file, or rows in {', '.join(FORMATS)}")
    return read_rows(FileRows(kind="file", path=str(file)))


def guess_task(file: File, rows: Sequence[SourceRow]) -> TaskGuess:
    """Return what the columns of labelled rows are.

    Args:
        file: named in errors.
        rows: of it.

    Raises:
        UserError: no column looks like a label, or none like text; says which there are.
    """
    names = [name for name in rows[0][1] if all(name in row for _, row in rows)]
    cells = {name: [row[name] for _, row in rows] for name in names}
    label = _label(file, cells)
    texts = _texts(file, {name: each for name, each in cells.items() if name != label})
    different = len(set(map(str, cells[label])))
    kind, why = _kind(cells[label], paired=len(texts) == 2)
    metric, metric_why = _metric(kind, cells[label])
    keys = {"text": texts[0], "label": label} | ({"pair": texts[1]} if len(texts) == 2 else {})
    return TaskGuess(
        kind=kind,
        columns=keys,
        metric=metric,
        because={
            "kind": why,
            "text": f"{' and '.join(texts)}: mean of {_mean(cells[texts[0]]):,.0f} characters.",
            "label": f"{different:,} different values in {len(rows):,} rows.",
            "metric": metric_why,
        },
    )


def _label(file: File, cells: dict[str, list[Any]]) -> str:
    """Return the column of the label: by its name, else the one of fewest values."""
    known = {name.lower(): name for name in cells}
    for name in _LABELS:
        if name in known and _varies(cells[known[name]]):
            return known[name]
    few = {
        name: len(set(map(str, each)))
        for name, each in cells.items()
        if name.lower() != _SPLIT and _varies(each) and len(set(map(str, each))) <= len(each) / 2
    }
    if len(cells) > 1 and few:
        return min(few, key=lambda name: few[name])
    raise UserError(
        f"{file}: no column looks like a label (columns: {', '.join(cells)}); name it label, or "
        f"write a task as a YAML file (README, Tasks)"
    )


def _varies(cells: Iterable[Any]) -> bool:
    """Return whether a column holds text or numbers, and more than one of them."""
    kept = list(cells)
    return all(isinstance(cell, str | int | float) for cell in kept) and len(set(kept)) > 1


def _texts(file: File, cells: dict[str, list[Any]]) -> tuple[str, ...]:
    """Return the column of text, or the two of a pair."""
    for first, second in _PAIRS:
        if first in cells and second in cells:
            return first, second
    means = {
        name: _mean(each)
        for name, each in cells.items()
        if all(isinstance(cell, str) for cell in each) and len(set(each)) > len(each) / 10
    }
    if not means:
        raise UserError(f"{file}: no column of text beside the label; columns: {', '.join(cells)}")
    return (max(means, key=lambda name: means[name]),)


def _mean(cells: Sequence[str]) -> float:
    return sum(map(len, cells)) / max(1, len(cells))


def _kind(labels: Sequence[Any], *, paired: bool) -> tuple[Kind, str]:
    """Return the kind: numbers with fractions, or many different ones, are no classes."""
    different = len(set(map(str, labels)))
    try:
        numbers = [float(label) for label in labels]
    except ValueError:
        numbers = []
    # A class is text or a whole number (`examples`), which 1.0 in JSON is not.
    fractions = any(isinstance(label, float) for label in labels) or not all(
        number.is_integer() for number in numbers
    )
    if numbers and (fractions or different > _MANY_NUMBERS):
        return "regression", f"The label is a number with {different:,} different values."
    said = f"The label has {different:,} different values."
    return ("pairs", f"Two texts a row. {said}") if paired else ("classification", said)


def _metric(kind: Kind, labels: Sequence[Any]) -> tuple[str, str]:
    if kind == "regression":
        return "spearman", "Correlation of ranks; it needs no linear relation."
    label, count = Counter(map(str, labels)).most_common(1)[0]
    said = f"The most frequent label, {label}, has {count / len(labels):.0%} of the rows."
    return ("macro_f1" if count > _UNEVEN * len(labels) else "accuracy"), said


def split_rows(
    file: File, rows: Sequence[SourceRow], task: TaskGuess
) -> tuple[list[SourceRow], list[SourceRow], str]:
    """Return the rows to learn from, those to be scored on, and how they were told apart.

    A column `split_rows` decides where there is one; otherwise a hash of the text does, a fifth of the
    rows of each label, so that the same file is always split in the same way and equal texts stay
    together.

    Raises:
        UserError: there are too few rows.
    """
    names = {str(row.get(_SPLIT, "")).lower() for _, row in rows}
    if names & _HELD_OUT and names - _HELD_OUT:
        scored = [row for row in rows if str(row[1][_SPLIT]).lower() in _HELD_OUT]
        train = [row for row in rows if str(row[1][_SPLIT]).lower() not in _HELD_OUT]
        return train, scored, f"by the column {_SPLIT!r}"
    if len(rows) < _LEAST:
        raise UserError(
            f"{file}: {len(rows)} rows are too few to be split; it takes {_LEAST}, or a second "
            f"--task file to be scored on"
        )
    chosen = _chosen(rows, task)
    text = task.columns["text"]
    train = [row for row in rows if row[1][text] not in chosen]
    scored = [row for row in rows if row[1][text] in chosen]
    return train, scored, f"by a hash of the text, {EVALUATION:.0%} of each label's rows"


def _chosen(rows: Sequence[SourceRow], task: TaskGuess) -> set[str]:
    """Return the texts whose rows are to be scored on."""
    text, label = task.columns["text"], task.columns["label"]
    strata: dict[str, list[str]] = defaultdict(list)
    for one, row in {row[text]: row for _, row in rows}.items():
        strata["" if task.kind == "regression" else str(row[label])].append(one)
    return {
        one
        for texts in strata.values()
        for one in sorted(texts, key=_place)[: round(EVALUATION * len(texts))]
    }


def _place(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def as_json_lines(rows: Iterable[SourceRow], task: TaskGuess) -> str:
    """Return the columns of a task as JSON Lines."""
    kept = ({name: row[name] for name in task.columns.values()} for _, row in rows)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
