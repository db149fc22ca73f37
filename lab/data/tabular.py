"""Read the text column of JSON Lines, CSV, Parquet and Arrow tables; errors name the row.

`datasets` reads the same formats, but its builders neither name nor skip invalid rows, and their
memory is not bounded: they hold a line of any length, 10,000 rows of CSV, or a row group of
Parquet together with the next one (0.9 GB for a file that this module reads in 40 MB). Therefore
`datasets` is used only for saved folders and the hub.
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
_ROWS = 8  # rows of Parquet in memory; each may have `LONGEST` bytes
_KEYS = 100  # objects of JSON Lines that `read_json_keys` reads


def read_json_lines(name: str, lines: Iterable[Text], column: str) -> Iterator[Text]:
    """Yield the text of each object, one per line; blank lines are skipped.

    Args:
        name: path of the file, for error messages.
        lines: lines of the file.
        column: key of the text.

    Raises:
        UserError: the file is a single JSON array.
    """
    for row, line in enumerate(lines, 1):
        if row == 1 and _beginning(line).startswith("["):
            raise UserError(
                f"{name}: a JSON array, expected one object per line; convert it with `jq -c '.[]'`"
            )
        if isinstance(line, BadText):
            yield line
        elif line.strip():
            yield _parse_json_text(f"{name}:{row}", line, column)


def read_json_keys(lines: Iterable[Text]) -> list[str]:
    """Return the keys of the first `_KEYS` objects of JSON Lines, in order of appearance."""
    keys: dict[str, None] = {}
    for line in itertools.islice(lines, _KEYS):
        with suppress(ValueError, RecursionError):
            row = json.loads(line) if isinstance(line, str) else None
            keys |= dict.fromkeys(row if isinstance(row, dict) else ())
    return list(keys)


def read_csv_header(lines: Iterable[Text], delimiter: str) -> list[str]:
    """Return the cells of the first record of CSV; an empty list if there is no record."""
    texts = (f"{line}\n" for line in lines if isinstance(line, str))
    with suppress(csv.Error):
        return next((cells for cells in csv.reader(texts, delimiter=delimiter) if cells), [])
    return []


def read_parquet_names(file: IO[bytes]) -> list[str]:
    """Return the column names of a Parquet file; an empty list if it is damaged."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        return list(ParquetFile(file).schema_arrow.names)
    except (*DAMAGE, pa.ArrowException):
        return []


def read_parquet_size(file: IO[bytes]) -> tuple[int, int]:
    """Return the number of rows and uncompressed bytes of a Parquet file; (0, 0) if damaged."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        metadata = ParquetFile(file).metadata
    except (*DAMAGE, pa.ArrowException):
        return 0, 0
    sizes = (metadata.row_group(n).total_byte_size for n in range(metadata.num_row_groups))
    return int(metadata.num_rows), int(sum(sizes))


def _beginning(line: Text) -> str:
    return (line.begins if isinstance(line, BadText) else line[:64]).lstrip()


def _parse_json_text(where: str, line: str, column: str) -> Text:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return BadText(where, "not JSON", str(error))
    if not isinstance(row, dict):
        return BadText(where, "not a JSON object")
    if column not in row:
        return BadText(where, f"no column {column!r}", f"columns: {_join_names(list(row))}")
    text = row[column]
    return (
        validate_text(where, text)
        if isinstance(text, str)
        else BadText(where, "not text", _shorten_json(text))
    )


def _shorten_json(value: object) -> str:
    encoded = json.dumps(value)
    return encoded if len(encoded) < 40 else f"{encoded[:40]}…"


def read_csv_records(
    name: str, lines: Iterator[Text], column: str, delimiter: str
) -> Iterator[Text]:
    """Yield the text of each record; errors name the line in which the record begins.

    An empty cell is an empty text, because CSV has no null. Reading stops at a line or record
    longer than `LONGEST` (for example after an unclosed quote), because the end of that record is
    then unknown.

    Args:
        name: path of the file, for error messages.
        lines: lines of the file.
        column: name of the text column in the header.
        delimiter: character between two cells.

    Raises:
        UserError: the header lacks the column.
    """
    # `_CsvLines` limits records to `LONGEST`, so the limit of `csv` must not apply before.
    csv.field_size_limit(max(csv.field_size_limit(), 2 * LONGEST))
    csv_lines = _CsvLines(name, lines)
    records = csv.reader(csv_lines, delimiter=delimiter, strict=True)
    header: list[str] = []
    while csv_lines.bad is None:
        where, cells = csv_lines.next_record(), []  # frees the previous record
        try:
            cells = next(records)
        except StopIteration:
            break
        except csv.Error as error:
            if csv_lines.bad is None:
                yield BadText(where, "not CSV", str(error))
            continue
        if cells and not header:
            require_column(name, column, cells)
            header = cells
        elif cells:
            yield _cell(where, cells, header, column)
    if csv_lines.bad is not None:
        yield csv_lines.bad


def _cell(where: str, cells: list[str], header: list[str], column: str) -> Text:
    if len(cells) != len(header):
        return BadText(
            where, "number of cells differs from the header", f"{len(cells)} for {len(header)}"
        )
    return validate_text(where, cells[header.index(column)])


class _CsvLines:
    """Iterator over lines for `csv.reader` that stops at a line or record that is too long.

    Attributes:
        bad: the reason for the stop; None while all records can be read.
    """

    def __init__(self, name: str, lines: Iterator[Text]) -> None:
        self.bad: BadText | None = None
        self._name, self._lines = name, lines
        self._row = self._first_row = self._characters = 0

    def next_record(self) -> str:
        """Return file and line number of the next record, and reset the length of the record."""
        self._first_row, self._characters = self._row + 1, 0
        return f"{self._name}:{self._first_row}"

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.bad is not None:
            raise StopIteration
        line = next(self._lines)
        self._row += 1
        if isinstance(line, str):
            self._characters += len(line) + 1
            if self._characters <= LONGEST:
                return f"{line}\n"
            line = BadText(f"{self._name}:{self._first_row}", f"longer than {LONGEST >> 20} MiB")
        self.bad = BadText(
            line.where, line.reason, line.detail or "the rest of the file is skipped"
        )
        raise StopIteration


def read_parquet(name: str, file: IO[bytes], column: str) -> Iterator[Text]:
    """Yield the text of each row of a Parquet file.

    Memory is bounded by the size of a page (1 MB by default) and of a cell.

    Args:
        name: path of the file, for error messages.
        file: seekable stream.
        column: name of the text column.

    Raises:
        UserError: the file lacks the column, or the column is not of a string type.
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
        detail = " ".join(str(error).split())
        yield BadText(name, "damaged from some row to the end of the file", detail)


def read_arrow(
    name: str, tables: "Iterable[pa.Table | pa.RecordBatch]", column: str
) -> Iterator[Text]:
    """Yield the text of each row of Arrow tables.

    Args:
        name: name of the source, for error messages.
        tables: consecutive tables or record batches.
        column: name of the text column.

    Raises:
        UserError: a table lacks the column, or the column is not of a string type.
    """
    row = 0
    for table in tables:
        for cell in _text_column(name, table, column):
            row += 1
            yield _read_cell(f"{name}:{row}", cell)


def _text_column(
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
        raise UserError(f"{name}: column {column!r} has type {kind}, expected text")
    return cells


def _read_cell(where: str, cell: "pa.Scalar") -> Text:
    if not cell.is_valid:
        return BadText(where, "not text", "null")
    raw = cell.as_buffer()
    if raw.size > LONGEST:
        return BadText(where, f"longer than {LONGEST >> 20} MiB")
    return validate_text(where, str(raw, "utf-8", "surrogateescape"))


def require_column(name: str, column: str, columns: Sequence[str]) -> None:
    """Raise an error if the column is missing or not unique, even with `bad_text: skip`.

    Args:
        name: name of the source, for error messages.
        column: name of the text column.
        columns: names of all columns.

    Raises:
        UserError: `column` is not in `columns`, or is in it twice.
    """
    if column not in columns:
        raise UserError(f"{name}: no column {column!r}; columns: {_join_names(columns)}")
    if list(columns).count(column) > 1:
        raise UserError(f"{name}: two columns have the name {column!r}; rename one of them")


def _join_names(columns: Sequence[str]) -> str:
    shown = ", ".join(map(repr, columns[:20])) or "none"
    return f"{shown}, …" if len(columns) > 20 else shown
