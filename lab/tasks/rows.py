"""Rows of a task, from wherever they are, each with the name by which an error speaks of it.

A table is read whole: fine-tuning goes over it several times. CSV is read as text throughout, so
that a label `NA` or `01` stays what it is. Local files are read by the standard library and
pyarrow; saved folders and the hub through `datasets`, which runs no code of theirs.
"""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path as File
from typing import Any, assert_never

from lab.config.tasks import FORMATS, EmbeddedRows, FileRows, HubRows, SavedRows
from lab.errors import UserError
from lab.tasks import hf_datasets
from lab.tasks.embedded import read_embedded_rows

SourceRow = tuple[str, dict[str, Any]]  # its name, as file:row from 1, and its columns


def read_rows(source: EmbeddedRows | FileRows | SavedRows | HubRows) -> list[SourceRow]:
    """Return all rows of a source.

    Raises:
        UserError: it cannot be read, a row is not one, or there are none.
    """
    match source:
        case EmbeddedRows():
            rows = list(_numbered(source.name, read_embedded_rows(source.name, source.split)))
        case FileRows():
            rows = _table(File(source.path))
        case SavedRows():
            rows = _saved(source)
        case HubRows():
            rows = _hub(source)
        case _:
            assert_never(source)
    if not rows:
        raise UserError(f"{_named(source)}: no rows")
    return rows


def _named(source: EmbeddedRows | FileRows | SavedRows | HubRows) -> str:
    match source:
        case FileRows() | SavedRows():
            return source.path
        case EmbeddedRows() | HubRows():
            return f"{source.name} {source.split}"
        case _:
            assert_never(source)


def _numbered(name: str, rows: Iterable[dict[str, Any]]) -> Iterator[SourceRow]:
    return ((f"{name}:{number}", row) for number, row in enumerate(rows, 1))


def _table(file: File) -> list[SourceRow]:
    try:
        match file.suffix:
            case ".csv":
                return list(_csv(file, csv.excel))
            case ".tsv":
                return list(_csv(file, _Unquoted))
            case ".jsonl":
                return list(_json_lines(file))
            case ".json":
                return list(_json(file))
            case ".parquet":
                return list(_parquet(file))
    except UnicodeDecodeError:
        raise UserError(f"{file}: not UTF-8 text") from None
    except OSError as error:
        raise UserError(f"{file}: {(error.strerror or 'cannot be read').lower()}") from None
    raise UserError(f"{file}: no table that is known; {', '.join(FORMATS)}")


class _Unquoted(csv.excel_tab):
    """A quotation mark is text, as in GLUE's files."""

    quoting = csv.QUOTE_NONE


def _csv(file: File, dialect: type[csv.Dialect]) -> Iterator[SourceRow]:
    csv.field_size_limit(max(csv.field_size_limit(), 2**24))
    with file.open(encoding="utf-8-sig", newline="") as lines:
        records = csv.DictReader(lines, dialect=dialect, strict=True)
        try:
            for number, row in enumerate(records, 1):
                if None in row or None in row.values():
                    raise UserError(f"{file}:{number}: not as many cells as the header")
                yield f"{file}:{number}", row
        except csv.Error as error:
            raise UserError(f"{file}: line {records.line_num}: not CSV: {error}") from None


def _json_lines(file: File) -> Iterator[SourceRow]:
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"{file}:{number}", _object(f"{file}:{number}", _parsed(file, number, line))


def _parsed(file: File, number: int, text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}:{number}: not JSON: {error}") from None


def _object(where: str, row: object) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise UserError(f"{where}: not a JSON object")
    return row


def _json(file: File) -> Iterator[SourceRow]:
    """Yield the rows of a list, or the questions of SQuAD's own files."""
    read = _parsed(file, 1, file.read_text(encoding="utf-8-sig"))
    if isinstance(read, list):
        for number, row in enumerate(read, 1):
            yield f"{file}:{number}", _object(f"{file}:{number}", row)
        return
    try:
        yield from _numbered(str(file), list(_squad(read)))
    except (KeyError, TypeError) as error:
        raise UserError(f"{file}: neither a list of rows nor SQuAD's form: {error!r}") from None


def _squad(read: Any) -> Iterator[dict[str, Any]]:
    for article in read["data"]:
        for paragraph in article["paragraphs"]:
            for asked in paragraph["qas"]:
                texts = [answer["text"] for answer in asked["answers"]]
                starts = [answer["answer_start"] for answer in asked["answers"]]
                yield {
                    "question": asked["question"],
                    "context": paragraph["context"],
                    "answers": {"text": texts, "answer_start": starts},
                }


def _parquet(file: File) -> Iterator[SourceRow]:
    import pyarrow as pa
    from pyarrow.parquet import read_table

    with file.open("rb") as opened:
        try:
            rows = read_table(opened).to_pylist()
        except pa.ArrowException as error:
            raise UserError(f"{file}: not Parquet: {' '.join(str(error).split())}") from None
    yield from _numbered(str(file), rows)


def _saved(source: SavedRows) -> list[SourceRow]:
    datasets = hf_datasets.import_datasets()
    try:
        found = datasets.load_from_disk(source.path)
    except Exception as error:  # datasets raises whatever its parts do
        raise UserError(f"{source.path}: no folder that datasets saved: {_first(error)}") from None
    if isinstance(found, datasets.Dataset):
        return list(_numbered(source.path, found))
    if source.split not in found:
        raise UserError(f"{source.path}: no split {source.split!r}; it has {', '.join(found)}")
    return list(_numbered(f"{source.path} {source.split}", found[source.split]))


def _hub(source: HubRows) -> list[SourceRow]:
    try:
        found = hf_datasets.import_datasets().load_dataset(
            source.name,
            source.configuration or None,
            split=source.split,
            revision=source.revision,
        )
    except Exception as error:  # datasets raises whatever its parts do
        raise UserError(
            f"{source.name}: {_first(error)}; a local folder serves as well, by --folder or in a "
            f"YAML file"
        ) from None
    return list(_numbered(f"{source.name} {source.configuration} {source.split}", found))


def _first(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
