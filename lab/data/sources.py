"""From a plain source to a stream of documents, in bounded memory.

Local files are read by `read_lines` and `columns`, the rest by `hub`, through `datasets`.
A document beyond 1 MiB of characters is handed out in pieces that end where a line ends.
Whitespace alone is no document. Rows are counted from 1.
"""

import glob
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
from lab.data.text_files import (
    DAMAGE,
    PACKED,
    BadText,
    Text,
    codec_for_lines,
    expand_home,
    open_unpacked,
    read_lines,
    read_plain_text,
    split_into_pieces,
)
from lab.errors import UserError

_FORMATS = (".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet")
_SHOWN = 5
_PACKED_RATIO = 4.0  # bytes of English text to a packed one; xz of the embedded text


class SourceReader:
    """Reads a source, and refuses or counts what in it is no text.

    Attributes:
        skipped: how many rows were left out, by reason, in the present or last stream; what is
            lost behind a damage counts as one.
        examples: the first of them, as `file:row: reason`.
    """

    def __init__(self, source: SingleSource, bad_text: Literal["refuse", "skip"]) -> None:
        self.skipped: Counter[str] = Counter()
        self.examples: list[str] = []
        self._source = source
        self._bad_text = bad_text

    def documents(self) -> Iterator[str]:
        """Yield the documents from the beginning, in an order that the content alone decides.

        Raises:
            UserError: nothing can be read, or a row is bad and to be refused.
        """
        self.skipped.clear()
        self.examples.clear()
        for text in _texts(self._source):
            if isinstance(text, BadText):
                self._leave_out(text)
            else:
                yield from (piece for piece in split_into_pieces(text) if piece.strip())

    def _leave_out(self, bad: BadText) -> None:
        if self._bad_text == "refuse":
            raise UserError(f"{bad}; `data.bad_text: skip` leaves such rows out")
        self.skipped[bad.reason] += 1
        if len(self.examples) < _SHOWN:
            self.examples.append(str(bad))


def source_identity(source: SingleSource) -> object:
    """Return what names the content, for JSON: digests of files, or a commit of the hub.

    A file's folder and times are no part of it; its name is, and its place in the order.

    Raises:
        UserError: there is no such file, or the hub does not answer.
    """
    match source:
        case EmbeddedText():
            return [[file.name, _digest(file)] for file in _embedded()]
        case TextFiles():
            return [[file.name, _digest(file)] for file in matching_files(source)]
        case SavedDataset():
            folder = expand_home(source.path)
            files = sorted(file for file in folder.rglob("*") if file.is_file())
            if not files:
                raise UserError(f"data.source.path: no folder {source.path!r} with files in it")
            return [[file.relative_to(folder).as_posix(), _digest(file)] for file in files]
        case HubDataset():
            return [source.name, source.configuration, source.split, hub.resolve_commit(source)]
        case _:
            assert_never(source)


def estimate_size(source: SingleSource) -> float | None:
    """Return about how many bytes of text a source holds; None where only the hub knows.

    Packed files and Parquet count as `_PACKED_RATIO` times their size.

    Raises:
        UserError: there is no such file.
    """
    match source:
        case EmbeddedText():
            return float(sum(_unpacked_size(file.name, _length(file)) for file in _embedded()))
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


def _length(file: Traversable) -> int:
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
            codec_for_lines(source.encoding)
            for file in matching_files(source):
                yield from _or_empty(str(file), _file_texts(source, file))
        case SavedDataset():
            yield from _or_empty(source.path, hub.read_saved_texts(source))
        case HubDataset():
            yield from _or_empty(source.name, hub.read_hub_texts(source))
        case _:
            assert_never(source)


def _or_empty(name: str, texts: Iterable[Text]) -> Iterator[Text]:
    row = None
    for row in texts:
        yield row
    if row is None:
        yield BadText(name, "empty file")


def _embedded() -> list[Traversable]:
    folder = resources.files("lab").joinpath("text", "corpus")
    return sorted((f for f in folder.iterdir() if f.name.endswith(".xz")), key=lambda f: f.name)


def _embedded_texts() -> Iterator[str]:
    """Yield the embedded documents as they are, a slip of the scanner's (U+0002) among them."""
    for file in _embedded():
        with open_unpacked(file) as rows:
            yield from (json.loads(row)["text"] for row in rows)


def matching_files(source: TextFiles) -> list[File]:
    """Return the files in order, each once; all exist and have a format."""
    found = sorted({file for path in source.paths for file in _matches(path)})
    for file in found:
        detect_format(file)
    return found


def _matches(path: str) -> list[File]:
    whole = expand_home(path)
    if os.path.lexists(whole):  # a name may have brackets in it
        if not whole.is_file():
            raise UserError(
                f"data.source.paths: {path!r} is no file; for a folder's files take "
                f"'{whole}/*.txt', for what `datasets` saved `kind: saved`"
            )
        return [whole]
    names = glob.glob(str(whole), recursive=True)  # noqa: PTH207 - the path may be absolute
    files = [File(name) for name in names if File(name).is_file()]
    if not files:
        raise UserError(f"data.source.paths: no file matches {path!r} from {File.cwd()}")
    return files


def detect_format(file: File) -> str:
    """Return the extension that says what is in the file, whatever it is packed as."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    if not suffixes or suffixes[-1] not in _FORMATS:
        raise UserError(
            f"data.source.paths: {str(file)!r} ends with none of {' '.join(_FORMATS)}, "
            f"each also packed as {' '.join(PACKED)}"
        )
    return suffixes[-1]


def _file_texts(source: TextFiles, file: File) -> Iterator[Text]:
    with open_unpacked(file) as stream:
        if detect_format(file) != ".parquet":
            yield from stream_texts(source, file, stream)
            return
        try:
            with open_seekable(file, stream) as whole:
                yield from tabular.read_parquet(str(file), whole, source.column)
        except DAMAGE as error:  # of the packing; columns.parquet reports that of its pages
            yield BadText(str(file), "damaged from here to the file's end", str(error))


def stream_texts(source: TextFiles, file: File, stream: IO[bytes]) -> Iterator[Text]:
    """Yield the texts of an unpacked stream, or of its beginning, of any format but Parquet.

    Args:
        source: column, kind of documents and encoding.
        file: names the rows, and its extension the format.
        stream: its content.
    """
    name = str(file)
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
    """Return an unpacked stream from which Parquet, which is read from its end, can be read.

    A packed file is unpacked on disk first.

    Raises:
        DAMAGE: the packing is damaged.
    """
    if file.suffix.lower() not in PACKED:
        yield stream
        return
    with tempfile.TemporaryFile() as whole:
        shutil.copyfileobj(stream, whole)
        yield whole
