"""Read the rows of a task from its source; each row has a name for error messages.

Tables are read into memory, because fine-tuning reads them several times. All cells of CSV are
text, so that labels such as `NA` or `01` are unchanged. Local files are read with the standard
library and pyarrow; saved folders and the hub with `datasets`, which runs no code of a repository.
"""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path as File
from typing import TYPE_CHECKING, Any, assert_never

from lab.config.tasks import FORMATS, EmbeddedRows, FileRows, HubRows, SavedRows
from lab.errors import UserError
from lab.tasks import hf_datasets
from lab.tasks.embedded import read_embedded_rows

if TYPE_CHECKING:
    import pyarrow as pa

SourceRow = tuple[str, dict[str, Any]]  # name (file:row, from 1), cells by column


def read_rows(source: EmbeddedRows | FileRows | SavedRows | HubRows, where: str) -> list[SourceRow]:
    """Return all rows of a source.

    Args:
        source: source of the rows.
        where: task and split, for error messages on saved folders and the hub.

    Raises:
        UserError: the source cannot be read, has an invalid row, or has no rows.
    """
    match source:
        case EmbeddedRows():
            rows = list(_numbered(source.name, read_embedded_rows(source.name, source.split)))
        case FileRows():
            file = File(source.path)
            if file.exists() and not (file.is_file() or file.is_dir()):
                raise UserError(f"{file}: not a regular file")  # opening a pipe would wait
            rows = _read_table(file)
        case SavedRows():
            rows = list(_read_saved(source, where))
        case HubRows():
            rows = list(_read_hub(source, where))
        case _:
            assert_never(source)
    if not rows:
        raise UserError(f"{_source_name(source)}: no rows")
    return rows


def _source_name(source: EmbeddedRows | FileRows | SavedRows | HubRows) -> str:
    match source:
        case FileRows() | SavedRows():
            return source.path
        case EmbeddedRows() | HubRows():
            return f"{source.name} {source.split}"
        case _:
            assert_never(source)


def _numbered(name: str, rows: Iterable[dict[str, Any]]) -> Iterator[SourceRow]:
    return ((f"{name}:{number}", row) for number, row in enumerate(rows, 1))


def _read_table(file: File) -> list[SourceRow]:
    try:
        match file.suffix:
            case ".csv":
                return list(_read_csv(file, csv.excel))
            case ".tsv":
                return list(_read_csv(file, _Unquoted))
            case ".jsonl":
                return list(_read_json_lines(file))
            case ".json":
                return list(_read_json(file))
            case ".parquet":
                return list(_read_parquet(file))
    except UnicodeDecodeError:
        raise UserError(f"{file}: not UTF-8 text") from None
    except OSError as error:
        raise UserError(f"{file}: {(error.strerror or 'cannot be read').lower()}") from None
    raise UserError(f"{file}: unknown table format; allowed: {', '.join(FORMATS)}")


class _Unquoted(csv.excel_tab):
    """TSV in which quotation marks are ordinary characters, as in the files of GLUE."""

    quoting = csv.QUOTE_NONE


def _read_csv(file: File, dialect: type[csv.Dialect]) -> Iterator[SourceRow]:
    csv.field_size_limit(max(csv.field_size_limit(), 2**24))
    with file.open(encoding="utf-8-sig", newline="") as lines:
        records = csv.DictReader(lines, dialect=dialect, strict=True)
        try:
            _check_names(file, filter(None, records.fieldnames or ()))
            for number, row in enumerate(records, 1):
                if None in row or None in row.values():
                    raise UserError(f"{file}:{number}: number of cells differs from the header")
                yield f"{file}:{number}", row
        except csv.Error as error:
            raise UserError(f"{file}: line {records.line_num}: not CSV: {error}") from None


def _check_names(file: File, names: Iterable[str]) -> None:
    """Raise an error if two columns have the same name: only one of them would be read."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UserError(f"{file}: two columns have the name {name!r}; rename one of them")
        seen.add(name)


def _read_json_lines(file: File) -> Iterator[SourceRow]:
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield (
                    f"{file}:{number}",
                    _check_object(f"{file}:{number}", _parse_json(file, number, line)),
                )


def _parse_json(file: File, number: int, text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_build_object)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}:{number}: not JSON: {error}") from None


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; raise `ValueError` if a key occurs twice, as Python keeps the last."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)!r} occurs twice")
    return content


def _check_object(where: str, row: object) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise UserError(f"{where}: not a JSON object")
    return row


def _read_json(file: File) -> Iterator[SourceRow]:
    """Yield the rows of a JSON array, or the questions of a file in SQuAD's format."""
    content = _parse_json(file, 1, file.read_text(encoding="utf-8-sig"))
    if isinstance(content, list):
        for number, row in enumerate(content, 1):
            yield f"{file}:{number}", _check_object(f"{file}:{number}", row)
        return
    try:
        yield from _numbered(str(file), list(_squad_rows(content)))
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{file}: neither a list of rows nor the format of SQuAD: {error!r}"
        ) from None


def _squad_rows(content: Any) -> Iterator[dict[str, Any]]:
    for article in content["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                texts = [answer["text"] for answer in question["answers"]]
                starts = [answer["answer_start"] for answer in question["answers"]]
                yield {
                    "question": question["question"],
                    "context": paragraph["context"],
                    "answers": {"text": texts, "answer_start": starts},
                }


def _read_parquet(file: File) -> Iterator[SourceRow]:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    with file.open("rb") as opened:
        try:
            table = ParquetFile(opened).read()
        except pa.ArrowException as error:
            raise UserError(f"{file}: not Parquet: {' '.join(str(error).split())}") from None
        _check_names(file, table.column_names)
        yield from _numbered(str(file), _list_cells(file, table))


def _list_cells(file: File, table: "pa.Table") -> list[dict[str, Any]]:
    columns = {}
    for name in table.column_names:
        try:
            columns[name] = table.column(name).to_pylist()
        except UnicodeDecodeError:
            raise
        # Of Arrow, or of a date that Python does not have; the column need not be one of the task.
        except (ValueError, OverflowError, TypeError) as error:
            raise UserError(
                f"{file}: column {name!r} has a cell that cannot be read: {error}; remove it"
            ) from None
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _read_saved(source: SavedRows, where: str) -> Iterator[SourceRow]:
    name = " ".join(filter(None, (source.path, source.split)))
    return _numbered(name, hf_datasets.open_saved(source, where))


def _read_hub(source: HubRows, where: str) -> Iterator[SourceRow]:
    try:
        rows = hf_datasets.download(source, where)
    except UserError as error:
        raise UserError(
            f"{error}; a local folder can be used instead, with --folder or in a YAML file"
        ) from None
    return _numbered(f"{source.name} {source.configuration} {source.split}", rows)
