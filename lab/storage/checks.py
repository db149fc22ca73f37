"""Folders that a sweep will write to, checked before it does anything."""

import fcntl
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path as File

from lab.errors import UserError


class StorageError(UserError):
    """A folder that cannot be used; the message is one line for a person."""


@contextmanager
def claim_storage(storage: File, command: str) -> Iterator[None]:
    """Keep a storage to one sweep at a time, which is the one writer of its databases.

    Args:
        storage: made if it is not there.
        command: told to whoever comes second.

    Raises:
        PlaceError: another sweep is using it.
    """
    made = not storage.exists()
    storage.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(storage, command):
            yield
    finally:
        if made and [file.name for file in storage.iterdir()] == ["lock"]:  # nothing came of it
            shutil.rmtree(storage)


@contextmanager
def _locked(storage: File, command: str) -> Iterator[None]:
    with (storage / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise StorageError(
                f"--storage {storage}: in use by {lock.read() or 'another sweep'}; wait for it to "
                f"end, or name another folder"
            ) from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}, {command}")
        lock.flush()
        yield


def check_storage(folder: File) -> None:
    """Refuse a storage that cannot be written, or whose path no SQLite address can hold."""
    if set("%?#") & set(str(folder.resolve())):
        raise StorageError(f"--storage {folder}: %, ? and # cannot stand in a database's address")
    _check_writable(folder, "--storage")


def check_reports(folder: File, name: str) -> None:
    """Refuse a folder of reports that cannot be written, or that holds something else by `name`."""
    _check_writable(folder, "--reports")
    check_target(folder / name)


def check_target(target: File) -> None:
    """Refuse to replace something that is no report."""
    if target.exists() and not target.is_dir():
        raise StorageError(f"{target}: a file stands where the report's folder would be")
    if target.is_dir() and not (target / "report.html").exists() and any(target.iterdir()):
        raise StorageError(f"{target}: exists and holds no report; it is left alone")


def _check_writable(folder: File, option: str) -> None:
    """Refuse a folder that cannot be made or written, and leave nothing behind either way."""
    try:
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        why = (error.strerror or "no access").lower()
        raise StorageError(f"{option} {folder}: cannot be written: {why}") from None
