"""Check a report without `report.json`: only the numbers that its CSV files determine.

These are the last values of the trials' metrics, which both tables have, the columns `score` and
`untrained`, and the table of all trials in `report.md`.
"""

import itertools
import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path as File

import pandas as pd

from lab.reporting import tables
from lab.reporting.documents import csv_files, markdown
from lab.reporting.verification.differences import Difference, contrast
from lab.reporting.verification.report_file import TABLES
from lab.tracking import tags

_TEXT = "report.md"
_RANKED_BY = re.compile(r"\| ranked by \|.*\((\S+), (?:maximize|minimize)\) \|")
_TEXTS = ("fingerprint", "state", "reason", "role", "cell", "tuned", "device", tags.CODE,
          *tags.PROCESS)  # fmt: skip
_TABLE = "| trial | state |"
_REQUIRED = {
    "trials": {"number", "state", "repeat", "score", "achieved"},
    "curves": {"number", "step"},
}
# Beginnings of the names of columns that have numbers in every report.
_NUMBERS = ("number", "step", "score", "achieved", "spent/", "slot/", "health/", "train/",
            "detect/", "probe/", "finetune/")  # fmt: skip
_RENAMED = {  # headings of older reports
    "nuisances": "nuisance parameters",
    "achieved": "budget spent",
    "paper's FLOP": "FLOP (paper's script)",
    "6N FLOP": "FLOP (6N)",
    "training s": "training time (s)",
    "slot s": "run time (s)",
}


def verify_older(folder: File) -> list[Difference]:
    """Return the differences between the tables of a report, and between them and its text."""
    names = [_TEXT, *TABLES.values()]
    missing = [Difference(file=n, text="is missing") for n in names if not (folder / n).is_file()]
    if missing:
        return missing
    try:
        trials, curves = (_read(folder / TABLES[key]) for key in ("trials", "curves"))
    except ValueError as error:  # of pandas, and of texts that are not UTF-8
        return [Difference(file="trials.csv", text=f"or curves.csv is not a table: {error}")]
    if foreign := [*_find_foreign("trials", trials), *_find_foreign("curves", curves)]:
        return foreign
    text = (folder / _TEXT).read_text(encoding="utf-8", errors="replace")
    return [*_compare_tables(trials, curves, text), *_compare_text(trials, text)]


def _find_foreign(key: str, table: pd.DataFrame) -> Iterator[Difference]:
    """Yield the columns that a table of a report has, and this one lacks or has as text."""
    for name in sorted(_REQUIRED[key] - set(table)):
        yield Difference(file=TABLES[key], text=f"has no column {name!r}")
    for column in map(str, table):
        if column.startswith(_NUMBERS) and table[column].dtype.kind not in "ifb":
            yield Difference(file=TABLES[key], text=f"column {column!r} must hold numbers alone")


def _read(file: File) -> pd.DataFrame:
    table = pd.read_csv(
        file,
        dtype=dict.fromkeys(_TEXTS, str),
        keep_default_na=False,
        na_values=[""],
        low_memory=False,
    )
    for name in table:
        if table[name].dtype.kind not in "ifb":
            table[name] = table[name].fillna("").map(csv_files.restore_text)
    return table


def _compare_tables(trials: pd.DataFrame, curves: pd.DataFrame, text: str) -> Iterator[Difference]:
    """Yield the cells of `trials.csv` that are not what the other columns and `curves.csv` say."""
    metrics = [name for name in trials if name in curves and name not in {"number", "fingerprint"}]
    expected = trials[["number"]].join(curves.groupby("number")[metrics].last(), on="number")
    ranked = _RANKED_BY.search(text)
    if ranked and ranked[1] in trials and "score" in trials:
        expected["score"] = trials[ranked[1]].where(trials["state"] == "finished")
    if ranked and ranked[1] in curves and "untrained" in trials:
        start = curves[curves["step"] == 0].set_index("number")[ranked[1]]
        expected["untrained"] = trials["number"].map(start)
    for name in expected:
        for line, (value, other) in enumerate(zip(trials[name], expected[name], strict=True), 2):
            if value != other and not (pd.isna(value) and pd.isna(other)):
                place = f"line {line}, column {name}"
                shown = contrast(*("" if pd.isna(each) else str(each) for each in (value, other)))
                yield Difference(file=TABLES["trials"], place=place, text=shown)


def _compare_text(trials: pd.DataFrame, text: str) -> Iterator[Difference]:
    """Yield the cells of the table of all trials that are not those of `trials.csv`."""
    lines = text.split("\n")
    first = next((i for i, line in enumerate(lines) if line.startswith(_TABLE)), None)
    if first is None:
        yield Difference(file=_TEXT, text=f"has no table of all trials ({_TABLE}…)")
        return
    rows = list(itertools.takewhile(lambda line: line.startswith("|"), lines[first + 2 :]))
    unknown = {name: "" for name in (*_TEXTS, "shared") if name not in trials}
    table = tables.list_trials(trials.assign(**unknown))
    if len(rows) != len(table.rows):
        counts = contrast(f"{len(rows)} trials", f"{len(table.rows)} trials")
        yield Difference(file=_TEXT, place=f"line {first + 1}", text=counts)
        return
    head = [_RENAMED.get(name, name) for name in _split(lines[first])]
    for line, row, expected in zip(itertools.count(first + 3), rows, table.rows, strict=False):
        recomputed = dict(zip(table.head, map(markdown.escape_cell, expected), strict=True))
        for name, cell in zip_longest(head, _split(row), fillvalue=""):
            if cell != recomputed.get(name, cell).strip():
                place = f"line {line}, column {name}"
                yield Difference(file=_TEXT, place=place, text=contrast(cell, recomputed[name]))


def _split(row: str) -> list[str]:
    """Return the cells of a row of a Markdown table."""
    return [cell.strip() for cell in row.removeprefix("|").removesuffix("|").split(" | ")]
