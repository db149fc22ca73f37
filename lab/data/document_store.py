"""Store the documents of a text on disk between the passes of its preparation.

Each source is read only once, because reading can be slow (the hub, compressed files). Memory
holds sixteen bytes per document: its length and a hash of its text. The hash determines whether
the document is a duplicate, whether it is used and whether it is held out, so none of these depend
on the order of the documents.
"""

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path as File

import numpy as np
import numpy.typing as npt

Digests = npt.NDArray[np.uint64]
_HALF = np.uint64(32)
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: spreads similar values over the word


class DocumentStore:
    """An append-only file of documents.

    Args:
        file: path of the file; created by the first `add`.

    Attributes:
        parts: number of documents of each part, in the order of the calls of `add`.
    """

    def __init__(self, file: File) -> None:
        self._file = file
        self._bytes, self._digests = array("Q"), array("Q")
        self.parts: list[int] = []

    def add(self, documents: Iterable[str]) -> Iterator[int]:
        """Append a part; yield the size of each document in bytes after it is written."""
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
        """Return the hash of each document, uint64, (D,)."""
        return np.frombuffer(self._digests, np.uint64) if self._digests else np.empty(0, np.uint64)

    def bytes_D(self) -> npt.NDArray[np.uint64]:
        """Return the size of each document in bytes, uint64, (D,)."""
        return np.frombuffer(self._bytes, np.uint64) if self._bytes else np.empty(0, np.uint64)

    def part_D(self) -> npt.NDArray[np.int64]:
        """Return the part index of each document, int64, (D,)."""
        return np.repeat(np.arange(len(self.parts)), self.parts)

    def read(self, wanted_D: npt.NDArray[np.bool_]) -> Iterator[str]:
        """Yield the documents selected by the mask `wanted_D`, in the order of the file."""
        with self._file.open("rb") as file:
            for size, is_wanted in zip(self._bytes, wanted_D.tolist(), strict=True):
                if is_wanted:
                    yield file.read(size).decode()
                else:
                    file.seek(size, 1)

    def remove(self) -> None:
        """Delete the file if it exists."""
        self._file.unlink(missing_ok=True)


def hash_text(text: bytes) -> int:
    """Return a 64-bit BLAKE2b hash of a text."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())


def first_occurrence_D(digests_D: Digests) -> npt.NDArray[np.bool_]:
    """Return a mask of the documents that are not duplicates of an earlier one, (D,)."""
    first = np.zeros(len(digests_D), bool)
    first[np.unique(digests_D, return_index=True)[1]] = True
    return first


def hash_fraction_D(digests_D: Digests, purpose: int) -> npt.NDArray[np.float64]:
    """Return a pseudo-random number in [0, 1) for each document, a function of hash and purpose.

    Numbers of different purposes are independent.
    """
    with np.errstate(over="ignore"):
        mixed_D = (digests_D ^ np.uint64(purpose)) * _MIX
        mixed_D = (mixed_D ^ (mixed_D >> _HALF)) * _MIX
    return (mixed_D >> _HALF).astype(np.float64) / 2.0**32
