"""Minimal pairs: two sentences that differ in one place, of which only one is grammatical.

The package contains pairs for English, made from held-out sentences of the Brown corpus by
`python -m benchmarks.pairs`. Users bring their own as JSON Lines with the keys good, bad and
category.
"""

import json
import lzma
from collections.abc import Iterable
from functools import cache
from importlib import resources
from pathlib import Path as File
from typing import NamedTuple

from lab.config.metrics import MAX_CATEGORY, PAIRS_ACCURACY, Metric, category_metric, is_category
from lab.config.tasks import FileRows
from lab.errors import UserError
from lab.tasks.checked_rows import CheckedRow
from lab.tasks.rows import read_rows

_SUFFIX = ".jsonl"


class MinimalPair(NamedTuple):
    """Two sentences that differ in one place.

    Attributes:
        good: grammatical sentence.
        bad: ungrammatical sentence.
        category: name of the phenomenon.
    """

    good: str
    bad: str
    category: str


def read_pairs(path: str | None, metric: Metric | None = None) -> tuple[MinimalPair, ...]:
    """Return the pairs of a JSON Lines file; keys other than good, bad and category are ignored.

    Args:
        path: path of the file; None for the English pairs of the package.
        metric: metric that ranks the trials; None to accept any categories.

    Raises:
        UserError: the file cannot be read, a row is invalid, or the file has no pair of the
            category that `metric` scores.
    """
    pairs = embedded_pairs() if path is None else _read_file(path)
    names = [PAIRS_ACCURACY, *(category_metric(name).name for name in list_categories(pairs))]
    if metric is not None and metric.scores_pairs and metric.name not in names:
        raise UserError(f"metric: with {path} it must be one of {', '.join(names)}")
    return pairs


@cache
def embedded_pairs() -> tuple[MinimalPair, ...]:
    """Return the English pairs of the package."""
    file = resources.files("lab").joinpath("text", "pairs", "brown_pairs.jsonl.xz")
    lines = lzma.decompress(file.read_bytes()).decode().splitlines()
    return tuple(MinimalPair(**json.loads(line)) for line in lines)


def list_categories(pairs: Iterable[MinimalPair]) -> tuple[str, ...]:
    """Return the categories of pairs, in order of appearance."""
    return tuple(dict.fromkeys(pair.category for pair in pairs))


def _read_file(path: str) -> tuple[MinimalPair, ...]:
    if File(path).suffix != _SUFFIX:
        raise UserError(f"minimal_pairs: {path}: must be a file of JSON Lines (*{_SUFFIX})")
    rows = read_rows(FileRows(kind="file", path=path), "minimal_pairs")
    return tuple(_check_row(CheckedRow(*row)) for row in rows)


def _check_row(row: CheckedRow) -> MinimalPair:
    pair = MinimalPair(row.text("good"), row.text("bad"), row.text("category"))
    for column in ("good", "bad"):
        if not getattr(pair, column).strip():
            raise row.error(column, "must not be empty")
    if pair.good.split() == pair.bad.split():
        raise row.error("bad", "must differ from good")
    if not is_category(pair.category):
        raise row.error(
            "category",
            f"must have 1 to {MAX_CATEGORY} letters (a to z), digits, - or _, "
            f"not {pair.category[: MAX_CATEGORY + 1]!r}",
        )
    return pair
