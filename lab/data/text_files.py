"""Lines of files that may be packed, damaged or without end, in bounded memory.

What cannot be text comes out as `BadText`, in its place among the lines, and reading goes on.
"""

import bz2
import codecs
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path as File
from typing import IO, Literal

from lab.errors import UserError

LONGEST = 8 * 2**20  # bytes of a line, a record or a cell
PIECE = 2**20  # characters; a document beyond is handed out in pieces
PACKED = (".gz", ".bz2", ".xz", ".zst")
DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError)  # that unpacking finds

_WRONG = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffd]")


@dataclass(frozen=True)
class BadText:
    """What should be text and is not.

    Attributes:
        where: the file, and its row from 1.
        reason: one of a few, to be counted.
        detail: what exactly was found; empty where the reason says it.
        begins: the first characters of what is too long to keep.
    """

    where: str
    reason: str
    detail: str = ""
    begins: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}" + (f" ({self.detail})" if self.detail else "")


Text = str | BadText


def validate_text(where: str, text: str) -> Text:
    """Return the text, or what is wrong with it.

    No text has C0 or C1 controls (tab, line feed and carriage return apart), halves of surrogate
    pairs, or U+FFFD, which stands where a character was lost before. U+DC80 to U+DCFF are how
    Python keeps bytes that do not decode (PEP 383).
    """
    found = _WRONG.search(text)
    if found is None:
        return text
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:
        return BadText(where, "wrong encoding", f"byte 0x{code - 0xDC00:02X}")
    if code > 0xFF:
        return BadText(where, "not the text it was", f"U+{code:04X}")
    return BadText(where, f"control character U+{code:04X}")


def codec_for_lines(encoding: str) -> codecs.CodecInfo:
    """Return the codec of an encoding whose lines end with the byte of a line feed.

    Raises:
        UserError: there is none of this name, or its lines end otherwise (UTF-16, UTF-32, EBCDIC).
    """
    try:
        codec = codecs.lookup(encoding)
        b"\n".decode(encoding, errors="surrogateescape")  # which idna, for one, does not know
        if "\n".encode(encoding) == b"\n":
            return codec
    except (LookupError, ValueError):
        raise UserError(f"data.source.encoding: no encoding is named {encoding!r}") from None
    raise UserError(
        f"data.source.encoding: {encoding!r} cannot be cut into lines; save the text as utf-8"
    )


def expand_home(path: str) -> File:
    """Return a path, `~` being a home where there is one."""
    with suppress(RuntimeError):
        return File(path).expanduser()
    return File(path)


@contextmanager
def open_unpacked(file: File | Traversable) -> Iterator[IO[bytes]]:
    """Open a file, unpacked by its extension; what is damaged shows when it is read (`DAMAGE`).

    Raises:
        UserError: it cannot be opened.
    """
    try:
        packed = file.open("rb")
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None
    with packed:
        yield unpack_stream(packed, File(file.name).suffix.lower())


def unpack_stream(packed: IO[bytes], suffix: str) -> IO[bytes]:
    """Return a stream of unpacked content; what has no suffix of `PACKED` stays as it is."""
    match suffix:
        case ".gz":
            return io.BufferedReader(gzip.open(packed))  # whose lines are read in C
        case ".bz2":
            return bz2.open(packed)
        case ".xz":
            return lzma.open(packed)
        case ".zst":  # python-zstandard takes a file that was cut off for a whole one
            import pyarrow as pa

            return io.BufferedReader(pa.input_stream(packed, compression="zstd"))
        case _:
            return packed


def read_lines(name: str, stream: IO[bytes], encoding: str) -> Iterator[Text]:
    """Yield each line without its end, LF or CRLF; a BOM of UTF-8 is no text.

    Bytes that do not decode are left for `validate_text` to find. A line beyond `LONGEST` is read to its
    end and not kept. Where the file turns out to be damaged, a `BadText` is its last line.
    """
    codec, row = codec_for_lines(encoding), 0
    try:
        while raw := stream.readline(LONGEST + 1):
            row += 1
            if row == 1 and codec.name.startswith("utf-8"):
                raw = raw.removeprefix(codecs.BOM_UTF8)
            if len(raw) > LONGEST:
                _pass_over(stream, raw)
                begins = _decoded(raw[:64], encoding)
                yield BadText(f"{name}:{row}", f"longer than {LONGEST >> 20} MiB", begins=begins)
            else:
                yield _decoded(raw.removesuffix(b"\n").removesuffix(b"\r"), encoding)
    except DAMAGE as error:
        yield BadText(f"{name}:{row + 1}", "damaged from here to the file's end", str(error))


def _pass_over(stream: IO[bytes], raw: bytes) -> None:
    while raw and not raw.endswith(b"\n"):
        raw = stream.readline(LONGEST)


def _decoded(raw: bytes, encoding: str) -> str:
    try:
        return raw.decode(encoding, errors="surrogateescape")
    except UnicodeDecodeError:  # of an encoding in which a wrong byte can be below 0x80
        return raw.decode(encoding, errors="replace")


def read_plain_text(
    name: str, lines: Iterable[Text], documents: Literal["paragraph", "line", "file"]
) -> Iterator[Text]:
    """Yield the documents of plain text, lines separated by LF.

    A bad line is left out of its document. A document beyond `PIECE` comes in pieces, cut where
    a line ends, so that a file of any size can be one document.
    """
    held = _Held()
    for row, line in enumerate(lines, 1):
        text = validate_text(f"{name}:{row}", line) if isinstance(line, str) else line
        if isinstance(text, BadText):
            yield text
        elif documents == "paragraph" and not text.strip():
            yield from held.take()
        else:
            yield from held.add(text)
            if documents == "line":
                yield from held.take()
    yield from held.take()


def split_into_pieces(text: str) -> Iterator[str]:
    """Yield a document, lines separated by LF, in pieces if it is beyond `PIECE`."""
    text = text.replace("\r\n", "\n")
    if len(text) <= PIECE:
        yield text
        return
    held = _Held()
    for line in text.split("\n"):
        yield from held.add(line)
    yield from held.take()


class _Held:
    """The lines of a document that has not ended."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._size = 0

    def add(self, line: str) -> Iterator[str]:
        """Add a line; yield what was held before where the two are more than a piece."""
        if self._size + len(line) > PIECE:
            yield from self.take()
        self._lines.append(line)
        self._size += len(line) + 1

    def take(self) -> Iterator[str]:
        """Yield what is held, if anything, and hold no more."""
        if self._lines:
            yield "\n".join(self._lines)
        self._lines, self._size = [], 0
