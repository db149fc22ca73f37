"""Stream the documents of a single source in bounded memory.

Local files are read by `text_files` and `tabular`, saved folders and the hub by `hub`. A document
of more than 2**20 characters is yielded in pieces that end at the end of a line. Documents of
white space only are dropped. Rows are numbered from 1.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path as File
from typing import IO, Literal, assert_never

from lab.config.data import EmbeddedText, HubDataset, SavedDataset, SingleSource, TextFiles
from lab.data import hub, tabular
from lab.data.encodings.encoding_guess import describe_encoding
from lab.data.recursive_glob import find_paths
from lab.data.text_files import (
    DAMAGE,
    PACKED,
    BadText,
    Text,
    expand_home,
    find_codec,
    open_unpacked,
    read_lines,
    read_plain_text,
    split_into_pieces,
)
from lab.errors import UserError, one_line

_FORMATS = (".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet")
_SAMPLE = 2**23  # bytes from which the encoding of a file with invalid text is guessed
_SHOWN = 5  # skipped rows that are kept as examples
_PACKED_RATIO = 4.0  # compression ratio of English text; measured with xz on the embedded text


class SourceReader:
    """Reads the documents of a source and rejects or skips rows that are not valid text.

    Args:
        source: source of the documents.
        bad_text: "refuse" raises an error at the first invalid row, "skip" counts invalid rows.

    Attributes:
        skipped: number of rows skipped in the current or last stream, by reason; the unreadable
            rest of a damaged file counts as one row.
        examples: the first skipped rows, as `file:row: reason`.
    """

    def __init__(self, source: SingleSource, bad_text: Literal["refuse", "skip"]) -> None:
        self.skipped: Counter[str] = Counter()
        self.examples: list[str] = []
        self._source = source
        self._bad_text = bad_text

    def documents(self) -> Iterator[str]:
        """Yield all documents of the source, in the same order in every call.

        Raises:
            UserError: the source cannot be read, or a row is invalid and `bad_text` is "refuse".
        """
        self.skipped.clear()
        self.examples.clear()
        for text in _texts(self._source):
            if isinstance(text, BadText):
                self._skip(text)
            else:
                yield from (piece for piece in split_into_pieces(text) if piece.strip())

    def _skip(self, bad: BadText) -> None:
        if self._bad_text == "refuse":
            skip = "set `base.data.bad_text: skip` to skip such rows"
            raise UserError(f"{bad}; {self._advice(bad) or skip}")
        self.skipped[bad.reason] += 1
        if len(self.examples) < _SHOWN:
            advice = None if self.examples else self._advice(bad)
            self.examples.append(f"{bad}; {advice}" if advice else str(bad))

    def _advice(self, bad: BadText) -> str | None:
        """Return advice on the encoding of a file with an invalid row; None if it is right."""
        file = File(bad.where.rpartition(":")[0])
        if not isinstance(self._source, TextFiles) or not bad.in_characters or not file.is_file():
            return None
        try:
            with open_unpacked(file) as stream:
                sample = stream.read(_SAMPLE)
        except (*DAMAGE, UserError):
            return None
        return describe_encoding(str(file), sample, self._source.encoding)


def source_identity(source: SingleSource) -> object:
    """Return a JSON value that identifies the content: hashes of files, or a commit of the hub.

    It depends on the names, contents and order of the files, not on their folder or times.

    Raises:
        UserError: a file does not exist, or the request to the hub fails.
    """
    match source:
        case EmbeddedText():
            return [[file.name, _digest(file)] for file in _embedded_files()]
        case TextFiles():
            return [[file.name, _digest(file)] for file in matching_files(source)]
        case SavedDataset():
            folder = expand_home(source.path)
            files = sorted(file for file in folder.rglob("*") if file.is_file())
            if not files:
                raise UserError(
                    f"base.data.source.path: the folder {source.path!r} does not exist or has no "
                    f"files"
                )
            return [[file.relative_to(folder).as_posix(), _digest(file)] for file in files]
        case HubDataset():
            return [source.name, source.configuration, source.split, hub.resolve_commit(source)]
        case _:
            assert_never(source)


def estimate_size(source: SingleSource) -> float | None:
    """Return the approximate size of the text in bytes, or None for a data set of the hub.

    Compressed files and Parquet count as `_PACKED_RATIO` times their size.

    Raises:
        UserError: a file does not exist.
    """
    match source:
        case EmbeddedText():
            return float(sum(_unpacked_size(file.name, _size(file)) for file in _embedded_files()))
        case TextFiles():
            return sum(
                _unpacked_size(file.name, file.stat().st_size) for file in matching_files(source)
            )
        case SavedDataset():
            folder = expand_home(source.path)
            return float(sum(file.stat().st_size for file in folder.rglob("*.arrow")))
        case HubDataset():
            return None
        case _:
            assert_never(source)


def _unpacked_size(name: str, bytes_: int) -> float:
    return bytes_ * (_PACKED_RATIO if name.endswith((*PACKED, ".parquet")) else 1.0)


def _size(file: Traversable) -> int:
    with file.open("rb") as opened:
        return opened.seek(0, os.SEEK_END)


def _digest(file: File | Traversable) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type]


def _texts(source: SingleSource) -> Iterator[Text]:
    match source:
        case EmbeddedText():
            yield from _embedded_texts()
        case TextFiles():
            find_codec(source.encoding)
            for file in matching_files(source):
                yield from _report_empty(one_line(str(file)), _file_texts(source, file))
        case SavedDataset():
            yield from _report_empty(source.path, hub.read_saved_texts(source))
        case HubDataset():
            yield from _report_empty(source.name, hub.read_hub_texts(source))
        case _:
            assert_never(source)


def _report_empty(name: str, texts: Iterable[Text]) -> Iterator[Text]:
    """Yield the texts; if there are none, yield a `BadText` instead."""
    row = None
    for row in texts:
        yield row
    if row is None:
        yield BadText(name, "empty file")


def _embedded_files() -> list[Traversable]:
    folder = resources.files("lab").joinpath("text", "corpus")
    return sorted((f for f in folder.iterdir() if f.name.endswith(".xz")), key=lambda f: f.name)


def _embedded_texts() -> Iterator[str]:
    """Yield the embedded documents unchanged; they contain U+0002, an error of the scan."""
    for file in _embedded_files():
        with open_unpacked(file) as rows:
            yield from (json.loads(row)["text"] for row in rows)


def matching_files(source: TextFiles) -> list[File]:
    """Return the files of `source.paths` without duplicates, sorted by path.

    Raises:
        UserError: a path matches no file, or the format of a file is unknown.
    """
    files = sorted({file for path in source.paths for file in _expand(path)})
    for file in files:
        detect_format(file)
    return files


def _expand(path: str) -> list[File]:
    whole = expand_home(path)
    if os.path.lexists(whole):  # before globbing: a file name may contain brackets
        if not whole.is_file():
            raise UserError(
                f"base.data.source.paths: {path!r} is not a file; use '{whole}/*.txt' for the "
                f"files of a folder, or `kind: saved` for a folder saved by `datasets`"
            )
        return [whole]
    files = [File(name) for name in find_paths(str(whole)) if File(name).is_file()]
    if not files:
        raise UserError(
            f"base.data.source.paths: no file matches {path!r} (working directory: {File.cwd()})"
        )
    return files


def detect_format(file: File) -> str:
    """Return the extension of the format, in lower case, without that of the compression.

    Raises:
        UserError: the extension is none of the known formats.
    """
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    if not suffixes or suffixes[-1] not in _FORMATS:
        raise UserError(
            f"base.data.source.paths: {str(file)!r}: unknown file extension; allowed are "
            f"{' '.join(_FORMATS)}, each also compressed as {' '.join(PACKED)}"
        )
    return suffixes[-1]


def _file_texts(source: TextFiles, file: File) -> Iterator[Text]:
    with open_unpacked(file) as stream:
        if detect_format(file) != ".parquet":
            yield from stream_texts(source, file, stream)
            return
        try:
            with open_seekable(file, stream) as whole:
                yield from tabular.read_parquet(one_line(str(file)), whole, source.column)
        except DAMAGE as error:  # of the compression; `read_parquet` reports damaged pages
            yield BadText(
                one_line(str(file)), "damaged from here to the end of the file", str(error)
            )


def stream_texts(source: TextFiles, file: File, stream: IO[bytes]) -> Iterator[Text]:
    """Yield the texts of a decompressed stream in any format except Parquet.

    Args:
        source: column of the text, unit of a document and encoding.
        file: path of the file; gives the names of rows and the format.
        stream: decompressed content of the file, or its beginning.
    """
    name = one_line(str(file))
    rows = read_lines(name, stream, source.encoding)
    match detect_format(file):
        case ".txt":
            yield from read_plain_text(name, rows, source.documents)
        case ".csv" | ".tsv" as suffix:
            yield from tabular.read_csv_records(
                name, rows, source.column, tabular.DELIMITERS[suffix]
            )
        case _:
            yield from tabular.read_json_lines(name, rows, source.column)


@contextmanager
def open_seekable(file: File, stream: IO[bytes]) -> Iterator[IO[bytes]]:
    """Yield a seekable stream, which Parquet needs because its footer is at the end of the file.

    A compressed file is decompressed to a temporary file first.

    Args:
        file: path of the file.
        stream: decompressed content of the file.

    Raises:
        DAMAGE: the compressed file is damaged.
    """
    if file.suffix.lower() not in PACKED:
        yield stream
        return
    with tempfile.TemporaryFile() as whole:
        shutil.copyfileobj(stream, whole)
        yield whole
