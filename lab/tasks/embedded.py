"""Labelled tasks: the two that the lab carries, as probes read them."""

import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

Task = Literal["pos", "sentiment"]
Split = Literal["train", "test"]
EMBEDDED: tuple[Task, ...] = ("pos", "sentiment")

# What a probe reads within seconds; test splits are as large as the noise of a score asks.
_LIMITS: dict[tuple[Task, Split], int] = {
    ("pos", "train"): 700,
    ("pos", "test"): 1_000,
    ("sentiment", "train"): 2_500,
    ("sentiment", "test"): 2_136,
}


@dataclass(frozen=True, kw_only=True)
class TaggedSentences:
    """Labelled sentences.

    Attributes:
        words: of each sentence.
        labels: of each sentence; one a word for `pos`, a single one for `sentiment`.
        classes: how many different labels the training split has; an unseen one is -1.
    """

    words: tuple[tuple[str, ...], ...]
    labels: tuple[tuple[int, ...], ...]
    classes: int


@cache
def read_embedded(task: Task, split: Split) -> TaggedSentences:
    """Return a split: every n-th sentence, so that all documents take part.

    `pos` is the base tag of each word (Brown, split by document); `sentiment` is 1 for a
    positive review sentence. `test` of the reviews is their validation and test split together:
    nothing is tuned on it.
    """
    known = {label: place for place, label in enumerate(_labels(task))}
    chosen = _spread(
        [row for row in _rows(task) if _split(task, row) == split], _LIMITS[task, split]
    )
    return TaggedSentences(
        words=tuple(tuple(_words(task, row)) for row in chosen),
        labels=tuple(tuple(known.get(x, -1) for x in _row_labels(task, row)) for row in chosen),
        classes=len(known),
    )


def evaluation_texts(task: Task) -> list[str]:
    """Return the text of each question that a probe or a fine-tuned encoder is scored by."""
    return [" ".join(_words(task, row)) for row in _rows(task) if _split(task, row) == "test"]


def read_embedded_rows(task: Task, split: Split) -> Iterator[dict[str, Any]]:
    """Yield all rows of a split, to be learned from in full.

    `test` of the reviews is their test split alone; nothing reads their validation split.
    """
    for row in _rows(task):
        if row["split"] == split:
            yield row


@cache
def _labels(task: Task) -> tuple[str, ...]:
    rows = [row for row in _rows(task) if _split(task, row) == "train"]
    chosen = _spread(rows, _LIMITS[task, "train"])
    return tuple(sorted({label for row in chosen for label in _row_labels(task, row)}))


@cache
def _rows(task: Task) -> tuple[dict[str, Any], ...]:
    return tuple(_read(task))


def _read(task: Task) -> Iterator[dict[str, Any]]:
    name = {"pos": "brown_pos.jsonl.xz", "sentiment": "movie_reviews.jsonl.xz"}[task]
    file = resources.files("lab").joinpath("text", "tasks", name)
    with file.open("rb") as packed, lzma.open(packed, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _split(task: Task, row: dict[str, Any]) -> str:
    return "test" if task == "sentiment" and row["split"] == "validation" else row["split"]


def _words(task: Task, row: dict[str, Any]) -> list[str]:
    words: list[str] = row["words"] if task == "pos" else row["text"].split()
    return words


def _row_labels(task: Task, row: dict[str, Any]) -> list[str]:
    return row["tags"] if task == "pos" else [row["label"]]


def _spread(rows: list[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    step = max(1.0, len(rows) / limit)
    return [rows[int(place * step)] for place in range(min(limit, len(rows)))]
