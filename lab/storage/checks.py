"""Check the folders that a sweep writes to before the sweep starts."""

import fcntl
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path as File
from typing import IO

from lab.errors import UserError
from lab.storage import temp_dirs

# Files and folders of a storage that its databases, locks and records use.
_FILES = ("lock", "mlflow.db", "optuna.db")
_FOLDERS = ("artifacts", "cache", "forecasts", "logs", "searches", "study_artifacts", "trials")


class StorageError(UserError):
    """A folder cannot be used; the message has one line."""


@contextmanager
def claim_storage(storage: File, command: str) -> Iterator[None]:
    """Hold the lock of a storage folder, so that only one sweep writes its databases.

    Args:
        storage: storage folder; created if it does not exist.
        command: command line of this process, for the error message of another sweep.

    Raises:
        StorageError: another sweep is using the folder, or its lock is not a file.
    """
    is_new = not storage.exists()
    storage.mkdir(parents=True, exist_ok=True)
    try:
        with _lock(storage, command):
            yield
    finally:
        if is_new and [file.name for file in storage.iterdir()] == ["lock"]:  # nothing was written
            (storage / "lock").unlink()
            storage.rmdir()  # fails, and deletes nothing, if another process has written meanwhile


@contextmanager
def _lock(storage: File, command: str) -> Iterator[None]:
    with _open_lock(storage) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise StorageError(
                f"--storage {storage}: in use by {lock.read() or 'another sweep'}; wait until it "
                f"ends, or use another folder"
            ) from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}, {command}")
        lock.flush()
        yield


def _open_lock(storage: File) -> IO[str]:
    """Open the lock of a storage without following a link, or waiting for the writer of a pipe."""
    file = storage / "lock"
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(file, flags, 0o666)
    except OSError as error:
        reason = (error.strerror or "cannot be opened").lower()
        raise StorageError(f"--storage {storage}: its file 'lock': {reason}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StorageError(f"--storage {storage}: 'lock' is not a regular file; remove it")
    return os.fdopen(descriptor, "a+", encoding="utf-8")


def check_storage(folder: File) -> None:
    """Check that a storage folder can be written and that its path fits into an SQLite URI.

    Raises:
        StorageError: the folder cannot be written; its path contains `%`, `?` or `#`; or it is in
            a temporary folder, which is deleted.
    """
    if set("%?#") & set(str(folder.resolve())):
        raise StorageError(
            f"--storage {folder}: %, ? and # are not allowed in the path, which is part of a "
            "database URI"
        )
    if (temporary := temp_dirs.find_temporary_folder(folder)) is not None:
        raise StorageError(
            f"--storage {folder}: in {temporary}, a temporary folder of a sweep, which is deleted; "
            "use another folder"
        )
    _check_writable(folder, "--storage")


def check_parts(folder: File) -> None:
    """Check that the parts of a storage are files and folders, since opening a pipe would wait.

    Raises:
        StorageError: something else has the name of a part.
    """
    for names, kind, is_kind in (
        (_FILES, "file", File.is_file),
        (_FOLDERS, "folder", File.is_dir),
    ):
        for name in names:
            if os.path.lexists(folder / name) and not is_kind(folder / name):
                raise StorageError(f"--storage {folder}: {name!r} is not a {kind}; remove it")


def check_reports(folder: File, name: str) -> None:
    """Check that a report can be written to a folder.

    Args:
        folder: folder of all reports.
        name: name of the report.

    Raises:
        StorageError: the folder cannot be written, or it contains something else of this name.
    """
    _check_writable(folder, "--reports")
    check_target(folder / name)


def check_target(target: File) -> None:
    """Check that a path is free, an empty folder or an earlier report.

    Raises:
        StorageError: the path is a file, or a folder with other content than a report.
    """
    if os.path.lexists(target) and not target.is_dir():
        kind = "a file" if target.exists() else "a link to nothing"
        raise StorageError(f"{target}: is {kind}; the report needs a folder of this name")
    if target.is_dir() and not _is_report(target) and any(target.iterdir()):
        raise StorageError(f"{target}: exists and holds no report; it was not changed")


def _is_report(folder: File) -> bool:
    """Return whether a folder holds a report; other programs write a `report.html` as well."""
    others = ("report.md", "trials.csv", "curves.csv")
    return (folder / "report.html").is_file() and any((folder / n).is_file() for n in others)


def _check_writable(folder: File, option: str) -> None:
    """Check that a folder can be created or written, without creating it."""
    try:
        # A link to nothing cannot be replaced by a folder.
        parents = (folder, *folder.absolute().parents)
        existing = next(path for path in parents if os.path.lexists(path))
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        reason = (error.strerror or "no access").lower()
        raise StorageError(f"{option} {folder}: cannot be written: {reason}") from None
