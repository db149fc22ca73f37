"""Read lines of text files in bounded memory.

Files may be compressed, may be damaged and may have lines of any length. Lines that are not valid
text are returned as `BadText` in their position, and reading continues.
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

from lab.data.encodings.transcoding import Transcoded
from lab.errors import UserError, one_line

LONGEST = 8 * 2**20  # largest size of a line, a record or a cell, in bytes
PIECE = 2**20  # characters; a longer document is divided into pieces
PACKED = (".gz", ".bz2", ".xz", ".zst")
DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError)  # errors of decompression

_ENCODING, _CHARACTER, _CONTROL = "wrong encoding", "invalid character", "control character"
_CHARACTERS = (_ENCODING, _CHARACTER)
_INVALID = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffd]")


@dataclass(frozen=True)
class BadText:
    """A row that is not valid text.

    Attributes:
        where: file and number of the row, from 1.
        reason: category of the error; rows are counted by it.
        detail: details of the error; may be empty.
        begins: first characters of a line that is too long.
    """

    where: str
    reason: str
    detail: str = ""
    begins: str = ""

    @property
    def in_characters(self) -> bool:
        """Whether the row has characters that text does not have; its encoding may be wrong."""
        return self.reason in _CHARACTERS or self.reason.startswith(_CONTROL)

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}" + (f" ({self.detail})" if self.detail else "")


Text = str | BadText


def validate_text(where: str, text: str) -> Text:
    """Return the text if it is valid, otherwise the reason as `BadText`.

    Invalid are C0 and C1 control characters except white space, unpaired surrogates, and U+FFFD,
    which replaces characters lost in an earlier conversion. Bytes that cannot be decoded are U+DC80
    to U+DCFF in Python (`surrogateescape`, PEP 383). A form feed or vertical tab becomes a space.

    Args:
        where: file and number of the row, for error messages.
        text: text decoded with `errors="surrogateescape"`.
    """
    invalid = _INVALID.search(text)
    if invalid is None:
        return text.replace("\f", " ").replace("\v", " ")
    code = ord(invalid[0])
    if 0xDC80 <= code <= 0xDCFF:
        return BadText(where, _ENCODING, f"byte 0x{code - 0xDC00:02X}")
    if code > 0xFF:
        return BadText(where, _CHARACTER, f"U+{code:04X}")
    return BadText(where, f"{_CONTROL} U+{code:04X}")


def find_codec(encoding: str) -> codecs.CodecInfo:
    """Return the codec of an encoding of text.

    Raises:
        UserError: the encoding is unknown.
    """
    try:
        codec = codecs.lookup(encoding)
        codec.incrementaldecoder("replace").decode("\n".encode(encoding), True)
        b"\n".decode(encoding, errors="surrogateescape")  # some codecs, such as idna, reject it
    except UnicodeDecodeError:  # a line feed has several bytes
        return codec
    except (LookupError, ValueError, TypeError):
        raise UserError(f"base.data.source.encoding: unknown encoding {encoding!r}") from None
    return codec


def _decode_wide(stream: IO[bytes], encoding: str) -> tuple[IO[bytes], str]:
    """Return the stream and its encoding; as UTF-8 if a line feed is not the single byte 0x0A."""
    if "\n".encode(encoding) == b"\n":
        return stream, encoding
    return io.BufferedReader(Transcoded(stream, encoding)), "utf-8"


def expand_home(path: str) -> File:
    """Return a path with `~` expanded, if there is a home directory."""
    with suppress(RuntimeError):
        return File(path).expanduser()
    return File(path)


@contextmanager
def open_unpacked(file: File | Traversable) -> Iterator[IO[bytes]]:
    """Open a file for reading, decompressed according to its extension.

    Damaged compression raises one of `DAMAGE` while the stream is read.

    Raises:
        UserError: the file cannot be opened.
    """
    try:
        packed = file.open("rb")
    except OSError as error:
        raise UserError(f"{one_line(str(file))}: {error.strerror}") from None
    with packed:
        yield unpack_stream(packed, File(file.name).suffix.lower())


def unpack_stream(packed: IO[bytes], suffix: str) -> IO[bytes]:
    """Return a stream of the decompressed content; unchanged if `suffix` is not in `PACKED`."""
    match suffix:
        case ".gz":
            return io.BufferedReader(gzip.open(packed))  # `BufferedReader` reads lines in C
        case ".bz2":
            return bz2.open(packed)
        case ".xz":
            return lzma.open(packed)
        case ".zst":  # python-zstandard does not detect a truncated file
            import pyarrow as pa

            return io.BufferedReader(pa.input_stream(packed, compression="zstd"))
        case _:
            return packed


def read_lines(name: str, stream: IO[bytes], encoding: str) -> Iterator[Text]:
    """Yield each line without its line end (LF, CRLF or CR) and without a byte order mark.

    Bytes that cannot be decoded are kept as surrogates, which `validate_text` rejects. A line
    longer than `LONGEST` is skipped and yielded as `BadText`. A file with a byte order mark of
    UTF-8 in another encoding is skipped. If the file is damaged, the last item is a `BadText`.

    Args:
        name: path of the file, for error messages.
        stream: decompressed content.
        encoding: encoding of the text, accepted by `find_codec`.
    """
    codec, row = find_codec(encoding), 0
    stream, encoding = _decode_wide(stream, encoding)
    marked = codec.name.startswith("utf")
    try:
        for raw in _split_lines(stream):
            row += 1
            if marked:  # files with marks that were joined have some inside
                raw = raw.removeprefix(codecs.BOM_UTF8)
            elif row == 1 and raw.startswith(codecs.BOM_UTF8):
                yield BadText(f"{name}:1", _ENCODING, "the byte order mark of utf-8")
                return
            if len(raw) > LONGEST:
                begins = _decode(raw[:64], encoding)
                yield BadText(f"{name}:{row}", f"longer than {LONGEST >> 20} MiB", begins=begins)
            else:
                yield _decode(raw, encoding)
    except DAMAGE as error:
        yield BadText(f"{name}:{row + 1}", "damaged from here to the end of the file", str(error))


def _split_lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of a stream without their ends; of a too long one the first bytes only."""
    rest, after_cr = b"", False
    while raw := stream.readline(LONGEST + 1 - len(rest)):
        if after_cr:  # the last block ended between CR and LF
            raw = raw.removeprefix(b"\n")
        after_cr = raw.endswith(b"\r")
        lines, rest = _cut_lines(rest + raw)
        yield from lines
        if len(rest) > LONGEST:
            yield rest
            behind = _skip_line(stream)
            after_cr = behind.endswith(b"\r")
            lines, rest = _cut_lines(behind.removeprefix(b"\r").removeprefix(b"\n"))
            yield from lines
    if rest:
        yield rest


def _cut_lines(raw: bytes) -> tuple[list[bytes], bytes]:
    """Return the lines that end in `raw`, and the beginning of the next one."""
    if raw.endswith(b"\n"):
        return raw[:-1].removesuffix(b"\r").split(b"\r"), b""
    *lines, rest = raw.split(b"\r")
    return lines, rest


def _skip_line(stream: IO[bytes]) -> bytes:
    """Skip a line; return the bytes from its CR on, or no bytes if it ends with LF."""
    while raw := stream.readline(LONGEST):
        if (end := raw.find(b"\r")) >= 0:
            return raw[end:]
        if raw.endswith(b"\n"):
            break
    return b""


def _decode(raw: bytes, encoding: str) -> str:
    try:
        return raw.decode(encoding, errors="surrogateescape")
    except UnicodeDecodeError:  # `surrogateescape` cannot represent an invalid byte below 0x80
        return raw.decode(encoding, errors="replace")


def read_plain_text(
    name: str, lines: Iterable[Text], documents: Literal["paragraph", "line", "file"]
) -> Iterator[Text]:
    """Yield the documents of plain text, with lines separated by LF.

    An invalid line is omitted from its document. A document longer than `PIECE` is divided into
    pieces at line ends, so that a file of any size can be one document.

    Args:
        name: path of the file, for error messages.
        lines: lines of the file.
        documents: unit of a document: a paragraph (ended by a blank line), a line, or the file.
    """
    buffer = _DocumentLines()
    for row, line in enumerate(lines, 1):
        text = validate_text(f"{name}:{row}", line) if isinstance(line, str) else line
        if isinstance(text, BadText):
            yield text
        elif documents == "paragraph" and not text.strip():
            yield from buffer.take()
        else:
            yield from buffer.add(text)
            if documents == "line":
                yield from buffer.take()
    yield from buffer.take()


def split_into_pieces(text: str) -> Iterator[str]:
    """Yield a document, with lines separated by LF; divided at line ends if over `PIECE`."""
    text = text.replace("\r\n", "\n")
    if len(text) <= PIECE:
        yield text
        return
    buffer = _DocumentLines()
    for line in text.split("\n"):
        yield from buffer.add(line)
    yield from buffer.take()


class _DocumentLines:
    """Buffer for the lines of the current document."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._size = 0

    def add(self, line: str) -> Iterator[str]:
        """Add a line; first yield the buffered lines if they would exceed `PIECE` with it."""
        if self._size + len(line) > PIECE:
            yield from self.take()
        self._lines.append(line)
        self._size += len(line) + 1

    def take(self) -> Iterator[str]:
        """Yield the buffered lines as one text, if there are any, and clear the buffer."""
        if self._lines:
            yield "\n".join(self._lines)
        self._lines, self._size = [], 0
