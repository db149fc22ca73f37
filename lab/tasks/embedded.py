"""The two labelled tasks included in the package, for probes and for fine-tuning."""

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
UNSEEN = -1  # label of the test split that the training split lacks

# Number of sentences. A probe takes about a second with these; the test splits are large enough to
# keep the standard error of a score small. More rows do not pay for `pos`: at nano32 after 1e12
# FLOPs of ELECTRA the accuracy with 350, 700, 1,400, 2,800 and 5,600 rows is .668, .676, .680, .681
# and .680 (untrained .537, .545, .547, .549, .550), and the time of a fit doubles with the rows. An
# untrained tiny has .660, .668 and .673 with 700, 1,400 and 2,800 rows.
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
        words: words of each sentence.
        labels: labels of each sentence: one per word for `pos`, a single one for `sentiment`;
            `UNSEEN` for labels that the training split lacks.
        classes: number of different labels in the training split.
        documents: name of the document of each sentence; a name of its own for each sentence of
            `sentiment`, whose source has no documents.
    """

    words: tuple[tuple[str, ...], ...]
    labels: tuple[tuple[int, ...], ...]
    classes: int
    documents: tuple[str, ...]


@cache
def read_embedded(task: Task, split: Split) -> TaggedSentences:
    """Return a split for probes: sentences at equal distances, so that all documents contribute.

    Args:
        task: `pos` (base tag of each word, Brown corpus, split by document) or `sentiment` (1 for
            a sentence of a positive review).
        split: `train` or `test`. For `sentiment`, `test` combines the validation and test split of
            the source, because nothing is tuned on either.
    """
    numbers = {label: number for number, label in enumerate(_labels(task))}
    chosen = _spread(
        [row for row in _rows(task) if _split(task, row) == split], _LIMITS[task, split]
    )
    return TaggedSentences(
        words=tuple(tuple(_words(task, row)) for row in chosen),
        labels=tuple(
            tuple(numbers.get(x, UNSEEN) for x in _row_labels(task, row)) for row in chosen
        ),
        classes=len(numbers),
        documents=tuple(str(row.get("doc", number)) for number, row in enumerate(chosen)),
    )


def evaluation_texts(task: Task) -> list[str]:
    """Return the texts that probes and fine-tuned encoders are evaluated on."""
    return [" ".join(_words(task, row)) for row in _rows(task) if _split(task, row) == "test"]


def read_embedded_rows(task: Task, split: Split) -> Iterator[dict[str, Any]]:
    """Yield all rows of a split, for fine-tuning.

    For `sentiment`, `test` is the test split alone; fine-tuning does not use the validation split.
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
    return [rows[int(number * step)] for number in range(min(limit, len(rows)))]
