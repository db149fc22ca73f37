"""The text column of JSON Lines, CSV and Arrow's tables, cell by cell, each with its row.

`datasets` reads the same files, but its builders name no row, pass over none, and hold what they
are given: a line without end, 10,000 rows of CSV, a row group of Parquet with what comes next
(0.9 GB where pages are read in 40 MB). Hence local files are read here, and only what `datasets`
alone knows to find, saved folders and the hub, is read through it.
"""

import csv
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING

from lab.data.text_files import DAMAGE, LONGEST, BadText, Text, validate_text
from lab.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

DELIMITERS = {".csv": ",", ".tsv": "\t"}
_ROWS = 8  # of Parquet held at once; each may have `LONGEST`
_KEYS = 100  # objects of JSON Lines whose keys are collected


def read_json_lines(name: str, lines: Iterable[Text], column: str) -> Iterator[Text]:
    """Yield the text of each object, one a line; blank lines are none.

    Raises:
        UserError: the file is one big array.
    """
    for row, line in enumerate(lines, 1):
        if row == 1 and _begins(line).startswith("["):
            raise UserError(
                f"{name}: one JSON array, not one object a line; `jq -c '.[]'` makes it that"
            )
        if isinstance(line, BadText):
            yield line
        elif line.strip():
            yield _member(f"{name}:{row}", line, column)


def read_json_keys(lines: Iterable[Text]) -> list[str]:
    """Return the keys of the first objects of JSON Lines, in the order in which they appear."""
    keys: dict[str, None] = {}
    for line in itertools.islice(lines, _KEYS):
        with suppress(ValueError, RecursionError):
            row = json.loads(line) if isinstance(line, str) else None
            keys |= dict.fromkeys(row if isinstance(row, dict) else ())
    return list(keys)


def read_csv_header(lines: Iterable[Text], comma: str) -> list[str]:
    """Return the cells of the first record of CSV; none where there is no record."""
    texts = (f"{line}\n" for line in lines if isinstance(line, str))
    with suppress(csv.Error):
        return next((cells for cells in csv.reader(texts, delimiter=comma) if cells), [])
    return []


def read_parquet_names(file: IO[bytes]) -> list[str]:
    """Return the names of the columns of Parquet; none where it is damaged."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        return list(ParquetFile(file).schema_arrow.names)
    except (*DAMAGE, pa.ArrowException):
        return []


def read_parquet_size(file: IO[bytes]) -> tuple[int, int]:
    """Return the rows of Parquet and their unpacked bytes; none where it is damaged."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        found = ParquetFile(file).metadata
    except (*DAMAGE, pa.ArrowException):
        return 0, 0
    sizes = (found.row_group(n).total_byte_size for n in range(found.num_row_groups))
    return int(found.num_rows), int(sum(sizes))


def _begins(line: Text) -> str:
    return (line.begins if isinstance(line, BadText) else line[:64]).lstrip()


def _member(where: str, line: str, column: str) -> Text:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return BadText(where, "not JSON", str(error))
    if not isinstance(row, dict):
        return BadText(where, "not a JSON object")
    if column not in row:
        return BadText(where, f"no column {column!r}", f"it has {_listed(list(row))}")
    text = row[column]
    return (
        validate_text(where, text)
        if isinstance(text, str)
        else BadText(where, "not a text", _json(text))
    )


def _json(value: object) -> str:
    said = json.dumps(value)
    return said if len(said) < 40 else f"{said[:40]}…"


def read_csv_records(name: str, lines: Iterator[Text], column: str, comma: str) -> Iterator[Text]:
    """Yield the text of each record, named by the line in which it begins.

    An empty cell is an empty text: CSV knows no null. Where the records' limits are lost (a line
    or record beyond `LONGEST`, as after a quote that is not closed), so is the rest of the file.

    Raises:
        UserError: the header lacks the column.
    """
    csv.field_size_limit(max(csv.field_size_limit(), 2 * LONGEST))  # `_Feed` keeps to LONGEST
    feed = _Feed(name, lines)
    records = csv.reader(feed, delimiter=comma, strict=True)
    header: list[str] = []
    while feed.bad is None:
        where, cells = feed.next_record(), []  # not two records at once
        try:
            cells = next(records)
        except StopIteration:
            break
        except csv.Error as error:
            if feed.bad is None:
                yield BadText(where, "not CSV", str(error))
            continue
        if cells and not header:
            require_column(name, column, cells)
            header = cells
        elif cells:
            yield _cell(where, cells, header, column)
    if feed.bad is not None:
        yield feed.bad


def _cell(where: str, cells: list[str], header: list[str], column: str) -> Text:
    if len(cells) != len(header):
        return BadText(where, "not as many cells as the header", f"{len(cells)} for {len(header)}")
    return validate_text(where, cells[header.index(column)])


class _Feed:
    """Gives lines to the parser of CSV until a record's limits are lost, which `bad` then tells."""

    def __init__(self, name: str, lines: Iterator[Text]) -> None:
        self.bad: BadText | None = None
        self._name, self._lines = name, lines
        self._row = self._begun = self._held = 0

    def next_record(self) -> str:
        """Return where the next record begins."""
        self._begun, self._held = self._row + 1, 0
        return f"{self._name}:{self._begun}"

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.bad is not None:
            raise StopIteration
        line = next(self._lines)
        self._row += 1
        if isinstance(line, str):
            self._held += len(line) + 1
            if self._held <= LONGEST:
                return f"{line}\n"
            line = BadText(f"{self._name}:{self._begun}", f"longer than {LONGEST >> 20} MiB")
        self.bad = BadText(
            line.where, line.reason, line.detail or "the rest of the file is left out"
        )
        raise StopIteration


def read_parquet(name: str, file: IO[bytes], column: str) -> Iterator[Text]:
    """Yield the text of each row. Memory is bounded where the file's pages (1 MB) and cells are.

    Raises:
        UserError: the file lacks the column, or it holds no text.
    """
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        rows = ParquetFile(file, pre_buffer=False, buffer_size=2**20)
        require_column(name, column, rows.schema_arrow.names)
        yield from read_arrow(
            name, rows.iter_batches(_ROWS, columns=[column], use_threads=False), column
        )
    except (*DAMAGE, pa.ArrowException) as error:
        said = " ".join(str(error).split())
        yield BadText(name, "damaged from some row to the file's end", said)


def read_arrow(
    name: str, tables: "Iterable[pa.Table | pa.RecordBatch]", column: str
) -> Iterator[Text]:
    """Yield the text of each row of Arrow's tables.

    Raises:
        UserError: one lacks the column, or it holds no text.
    """
    row = 0
    for table in tables:
        for cell in _texts(name, table, column):
            row += 1
            yield _scalar(f"{name}:{row}", cell)


def _texts(
    name: str, table: "pa.Table | pa.RecordBatch", column: str
) -> "pa.Array | pa.ChunkedArray":
    import pyarrow.types as kinds

    require_column(name, column, table.schema.names)
    cells: pa.Array | pa.ChunkedArray = table.column(column)
    kind = cells.type
    if kinds.is_dictionary(kind):
        kind = kind.value_type
        cells = cells.cast(kind)
    if not any(
        is_kind(kind)
        for is_kind in (kinds.is_string, kinds.is_large_string, kinds.is_string_view, kinds.is_null)
    ):
        raise UserError(f"{name}: column {column!r} holds {kind}, not text")
    return cells


def _scalar(where: str, cell: "pa.Scalar") -> Text:
    if not cell.is_valid:
        return BadText(where, "not a text", "null")
    raw = cell.as_buffer()
    if raw.size > LONGEST:
        return BadText(where, f"longer than {LONGEST >> 20} MiB")
    return validate_text(where, str(raw, "utf-8", "surrogateescape"))


def require_column(name: str, column: str, columns: Sequence[str]) -> None:
    """Refuse what has no such column, whatever is to become of bad text: nothing can be read."""
    if column not in columns:
        raise UserError(f"{name}: no column {column!r}; it has {_listed(columns)}")


def _listed(columns: Sequence[str]) -> str:
    shown = ", ".join(map(repr, columns[:20])) or "none"
    return f"{shown}, …" if len(columns) > 20 else shown
