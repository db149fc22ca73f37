"""Decode a stream of any encoding to UTF-8 in bounded memory."""

import codecs
import io
from typing import IO

_BLOCK = 2**16  # bytes decoded at once


class Transcoded(io.RawIOBase):
    """A stream of UTF-8 from a stream of another encoding; invalid bytes become U+FFFD.

    Args:
        stream: content in the encoding.
        encoding: name of the encoding, for example `utf-16`.
    """

    def __init__(self, stream: IO[bytes], encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        self._decoded, self._ended = b"", False

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer; return the number of bytes, 0 at the end."""
        while not self._decoded and not self._ended:
            raw = self._stream.read(_BLOCK)
            self._ended = not raw
            self._decoded = self._decoder.decode(raw, self._ended).encode("utf-8", "replace")
        size = min(len(buffer), len(self._decoded))
        buffer[:size] = self._decoded[:size]
        self._decoded = self._decoded[size:]
        return size
