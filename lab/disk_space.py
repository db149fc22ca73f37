"""Full disks: recognize the errors of libraries, and describe the room that is missing."""

import errno
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path as File

NO_SPACE = "no space left in"  # begins each description
_CODES = {errno.ENOSPC, errno.EDQUOT}
# Messages of the system (also in errors without a code, such as those of safetensors) and SQLite.
_TEXTS = ("No space left on device", "Disk quota exceeded", "database or disk is full")
_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_PROBE = 2**18  # bytes that fit on a disk that is not full


class DiskFullError(Exception):
    """A disk is full; the message is one line with the folder and the room that is missing."""


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error, or one that caused it, was raised because a disk is full."""
    return any(_is_disk_full(each) for each in _causes(error))


def describe_full(folder: File, needed: int | None = None, content: str = "the next file") -> str:
    """Return the folder of a full disk and the room on it, in one line.

    Args:
        folder: folder that was written to.
        needed: size in bytes of what was to be written; None if it is unknown.
        content: what was to be written.
    """
    free = shutil.disk_usage(_existing(folder)).free
    text = f"{NO_SPACE} {folder}: {format_size(free)} free"
    if needed is None:
        return text
    missing = format_size(max(needed - free, 1))
    return f"{text}, {format_size(needed)} needed for {content}; {missing} missing"


def find_full(folders: Iterable[File]) -> list[File]:
    """Return the folders in which a small file cannot be written because the disk is full."""
    return [folder for folder in dict.fromkeys(folders) if _is_full(_existing(folder))]


def format_size(count: int) -> str:
    """Return a number of bytes as text: `512 bytes`, `3.1 MB` or `2.0 GB`."""
    sizes = [(count / 1_000**power, unit) for power, unit in enumerate(_UNITS)]
    size, unit = next((each for each in sizes if each[0] < 999.5), sizes[-1])
    return f"{size:.1f} {unit}" if unit != _UNITS[0] else f"{count} {unit}"


def _is_full(folder: File) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
            written = 0
            while written < _PROBE:
                written += probe.write(bytes(_PROBE - written))
    except OSError as error:
        return is_disk_full(error)
    return False


def _is_disk_full(error: BaseException) -> bool:
    if isinstance(error, DiskFullError) or getattr(error, "errno", None) in _CODES:
        return True
    return any(text in str(error) for text in _TEXTS)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes; `orig` is the database's error inside one of SQLAlchemy."""
    seen: list[BaseException] = []
    pending: list[BaseException | None] = [error]
    while pending:
        each = pending.pop()
        if each is not None and each not in seen:
            seen.append(each)
            pending += [each.__cause__, each.__context__, getattr(each, "orig", None)]
            yield each


def _existing(folder: File) -> File:
    """Return a folder, or the nearest folder above it that exists."""
    return next(each for each in (folder, *folder.absolute().parents) if each.exists())
