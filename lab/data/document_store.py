"""Documents on disk between the passes of a preparation: read once, cleaned, told apart.

Sources are read a single time, whatever they cost to read (a hub, a compressed file). In memory
stay sixteen bytes a document: its length and a hash of its text, which says whether it stands
there twice, whether it is used and whether it is held out. So none of this depends on an order.
"""

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path as File

import numpy as np
import numpy.typing as npt

Digests = npt.NDArray[np.uint64]
_HALF = np.uint64(32)
_MIX = np.uint64(0x9E3779B97F4A7C15)  # the golden ratio's: spreads neighbours over all 64 bits


class DocumentStore:
    """An append-only file of documents.

    Attributes:
        parts: how many documents stand in each part, in their order.
    """

    def __init__(self, file: File) -> None:
        self._file = file
        self._bytes, self._digests = array("Q"), array("Q")
        self.parts: list[int] = []

    def add(self, documents: Iterable[str]) -> Iterator[int]:
        """Append a part; yield the bytes of each document once it is there."""
        first = len(self._bytes)
        with self._file.open("ab") as out:
            for document in documents:
                encoded = document.encode()
                out.write(encoded)
                self._bytes.append(len(encoded))
                self._digests.append(hash_text(encoded))
                yield len(encoded)
        self.parts.append(len(self._bytes) - first)

    def digests_D(self) -> Digests:
        """Return each document's hash."""
        return np.frombuffer(self._digests, np.uint64) if self._digests else np.empty(0, np.uint64)

    def bytes_D(self) -> npt.NDArray[np.uint64]:
        """Return each document's size."""
        return np.frombuffer(self._bytes, np.uint64) if self._bytes else np.empty(0, np.uint64)

    def part_D(self) -> npt.NDArray[np.int64]:
        """Return which part each document belongs to."""
        return np.repeat(np.arange(len(self.parts)), self.parts)

    def read(self, wanted_D: npt.NDArray[np.bool_]) -> Iterator[str]:
        """Yield the documents that are wanted."""
        with self._file.open("rb") as spooled:
            for size, wanted in zip(self._bytes, wanted_D.tolist(), strict=True):
                if wanted:
                    yield spooled.read(size).decode()
                else:
                    spooled.seek(size, 1)

    def remove(self) -> None:
        """Delete the file."""
        self._file.unlink(missing_ok=True)


def hash_text(text: bytes) -> int:
    """Return 64 bits that name a text."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())


def first_occurrence_D(digests_D: Digests) -> npt.NDArray[np.bool_]:
    """Return which documents do not stand there before."""
    first = np.zeros(len(digests_D), bool)
    first[np.unique(digests_D, return_index=True)[1]] = True
    return first


def hash_fraction_D(digests_D: Digests, purpose: int) -> npt.NDArray[np.float64]:
    """Return each document's place in [0, 1) for a purpose; another purpose has other places."""
    with np.errstate(over="ignore"):
        mixed_D = (digests_D ^ np.uint64(purpose)) * _MIX
        mixed_D = (mixed_D ^ (mixed_D >> _HALF)) * _MIX
    return (mixed_D >> _HALF).astype(np.float64) / 2.0**32
