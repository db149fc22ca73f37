"""Tables of a report as numbers for CSV files, with the digits that the report shows."""

import re
from collections.abc import Iterable, Iterator, Sequence

import pandas as pd

from lab.reporting import sentences
from lab.reporting.tables import Table

_POWERS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_NUMBER = r"[+−-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?(?: ?[kMGTPE])?(?: ?(?:FLOP|tokens|s|%))?"
_CELL = re.compile(
    rf"(?P<value>{_NUMBER})?(?: ?± (?P<sd>{_NUMBER}))?"
    rf"(?: ?\[(?P<low>{_NUMBER}), (?P<high>{_NUMBER})\])?(?: \((?P<n>\d+)\))?"
    rf"|at least (?P<least>{_NUMBER})|at most (?P<most>{_NUMBER})"
)
_PARTS = {"least": "low", "most": "high"}  # other groups of the pattern have their column's name


def list_frames(tables: Iterable[tuple[str, Table]]) -> dict[str, pd.DataFrame]:
    """Return the contents of CSV files by name; tables that name the same file are joined.

    Args:
        tables: tables, each with the group of trials that it is about; tables without a file or
            without rows are left out. The groups are a column if any is not empty.
    """
    found: dict[str, list[pd.DataFrame]] = {}
    for group, table in tables:
        if table.file and table.rows:
            frame = table_frame(table)
            if group:
                frame.insert(0, "group", group)
            found.setdefault(table.file, []).append(frame)
    return {name: pd.concat(frames, ignore_index=True) for name, frames in found.items()}


def table_frame(table: Table) -> pd.DataFrame:
    """Return a table with numbers in place of their texts.

    A cell `1.2 [1.1, 1.3]` is divided among the column and the columns `… low` and `… high`; `± sd`
    and `(n)` have the columns `… sd` and `… n`. Decimal prefixes, percent signs and units are
    resolved: `1.2 TFLOP` is 1.2e12, and `5 %` is .05. Cells that are no numbers stay as they are,
    and a dash is an empty cell.
    """
    columns: dict[str, list[object]] = {}
    for position, head in enumerate(table.head):
        cells = [_split(row[position]) for row in table.rows]
        for part in _list_parts(cells):
            name = f"{head} {part}" if part else head
            columns[name] = [cell.get(part) for cell in cells]
    frame = pd.DataFrame(columns)
    counts = [name for name in columns if name.endswith(" n")]
    return frame.astype(dict.fromkeys(counts, "Int64"))


def _list_parts(cells: Sequence[dict[str, object]]) -> Iterator[str]:
    yield ""
    for part in ("sd", "low", "high", "n"):
        if any(part in cell for cell in cells):
            yield part


def _split(text: str) -> dict[str, object]:
    """Return the numbers of a cell by part, that of the value as an empty name; or its text."""
    if text == sentences.NONE:
        return {}
    found = _CELL.fullmatch(text)
    if not text or found is None:
        return {"": text}
    parts = {name: part for name, part in found.groupdict().items() if part is not None}
    return {
        "" if name == "value" else _PARTS.get(name, name): _read(part)
        for name, part in parts.items()
    }


def _read(text: str) -> float:
    """Return the number of a text such as `−1.2 TFLOP` or `5 %`."""
    found = re.fullmatch(r"([^kMGTPEFts%]*?) ?([kMGTPE]?) ?(FLOP|tokens|s|%)?", text)
    assert found is not None, text  # noqa: S101 - `_NUMBER` has matched
    number = float(found[1].replace("−", "-").replace(",", ""))
    return number * _POWERS[found[2]] / (100 if found[3] == "%" else 1)
