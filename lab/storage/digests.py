"""Digests that detect damaged files: a SHA-256 of each block, or of the content of a JSON file.

A damaged file is one whose content is not what was written: bits that a disk or a copy has changed,
a truncated file, or an edit by hand.
"""

import hashlib
import json
import platform
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any

from lab.errors import UserError
from lab.storage import atomic, regular_files
from lab.storage.remote import machine_cache

_BLOCK = 16 * 2**20  # bytes; a thread holds one block in memory
_THREADS = 4
# Bytes that are read again by each process. It takes less than 0.1 s; for larger files, a note in
# the cache of the machine says that they were read.
_SMALL = 64 * 2**20
_HEAD, _MIDDLE, _TAIL = '{"sha256": "', '", "content": ', "}\n"


class DamagedFileError(UserError):
    """A file is not as it was written; the message names it and the remedy."""


@dataclass(frozen=True)
class FileDigest:
    """Size and digests of a file.

    Attributes:
        bytes: size of the file.
        sha256: SHA-256 of each block of `_BLOCK` bytes, hexadecimal.
    """

    bytes: int
    sha256: tuple[str, ...]


def digest_file(file: File) -> FileDigest:
    """Return the size and the digests of a file."""
    size = file.stat().st_size
    with ThreadPoolExecutor(_THREADS) as pool:
        starts = range(0, size, _BLOCK)
        return FileDigest(size, tuple(pool.map(lambda start: _digest_block(file, start), starts)))


def check_files(folder: File, digests: Mapping[str, FileDigest], remedy: str) -> None:
    """Check that files are as they were written.

    Files of more than `_SMALL` bytes together are read once on a machine, and again if one of them
    has another size, time of change or inode than then.

    Args:
        folder: folder of the files.
        digests: digest of each file, by name.
        remedy: what the user can do, for the message.

    Raises:
        DamagedFileError: a file is missing or damaged.
    """
    if sum(digest.bytes for digest in digests.values()) <= _SMALL:
        _read_files(folder, digests, remedy)
        return
    note, state = _note(folder, digests), _state(folder, digests, remedy)
    with suppress(OSError):
        if note.read_text(encoding="utf-8").strip() == state:
            return
    _read_files(folder, digests, remedy)
    with suppress(OSError):  # the note only saves time
        note.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(note, state, durable=False)


def write_json(file: File, content: object, *, indent: int | None = None) -> None:
    """Write `content` atomically as JSON with a digest, for `read_json`."""
    atomic.write_text(file, format_json(content, indent=indent).removesuffix("\n"))


def format_json(content: object, *, indent: int | None = None) -> str:
    """Return `content` as JSON with a digest, for `read_json`."""
    text = json.dumps(content, indent=indent)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{_HEAD}{digest}{_MIDDLE}{text}{_TAIL}"


def read_json(file: File, remedy: str) -> Any:
    """Return the content that `write_json` wrote.

    Args:
        file: path of the file.
        remedy: what the user can do if the file is damaged, for the message.

    Raises:
        DamagedFileError: the file is missing or damaged.
    """
    try:
        text = regular_files.read_text(file)
    except (OSError, ValueError) as error:
        raise damaged(file, _reason(error), remedy) from None
    head, middle, payload = text.removesuffix(_TAIL).partition(_MIDDLE)
    digest = hashlib.sha256(payload.encode()).hexdigest()
    if not (middle and text.endswith(_TAIL)) or head != f"{_HEAD}{digest}":
        raise damaged(file, "its content differs from its SHA-256", remedy)
    return json.loads(payload)


def damaged(file: File, reason: str, remedy: str) -> DamagedFileError:
    """Return the exception for a damaged file."""
    return DamagedFileError(f"{file}: damaged: {reason}; {remedy}")


def _read_files(folder: File, digests: Mapping[str, FileDigest], remedy: str) -> None:
    for name, expected in digests.items():
        try:
            found = digest_file(folder / name)
        except OSError as error:
            raise damaged(folder / name, _reason(error), remedy) from None
        if found != expected:
            raise damaged(folder / name, _describe(found, expected), remedy)


def _describe(found: FileDigest, expected: FileDigest) -> str:
    if found.bytes != expected.bytes:
        return f"it has {found.bytes:,} bytes instead of {expected.bytes:,}"
    pairs = enumerate(zip(found.sha256, expected.sha256, strict=True))
    start = next(number for number, (one, other) in pairs if one != other) * _BLOCK
    end = min(start + _BLOCK, found.bytes)
    return f"bytes {start:,} to {end:,} differ from their SHA-256"


def _digest_block(file: File, start: int) -> str:
    with regular_files.open_binary(file) as stream:
        stream.seek(start)
        return hashlib.sha256(stream.read(_BLOCK)).hexdigest()


def _note(folder: File, digests: Mapping[str, FileDigest]) -> File:
    """Return the path of the note that files were read; the cache may be shared by machines."""
    key = json.dumps([platform.node(), str(folder.resolve()), sorted(digests)])
    return machine_cache() / "read" / hashlib.sha256(key.encode()).hexdigest()[:24]


def _state(folder: File, digests: Mapping[str, FileDigest], remedy: str) -> str:
    """Return a hash of the expected digests and of the status of the files."""
    hashed = hashlib.sha256()
    for name, digest in sorted(digests.items()):
        try:
            status = (folder / name).stat()
        except OSError as error:
            raise damaged(folder / name, _reason(error), remedy) from None
        times = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        hashed.update(f"{name} {digest} {times}\n".encode())
    return hashed.hexdigest()


def _reason(error: Exception) -> str:
    return error.strerror or "no access" if isinstance(error, OSError) else "not UTF-8"
