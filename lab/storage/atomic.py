"""Atomic writes: other processes see a file or folder as it was before, or complete.

The content is written to a temporary path in the same folder, flushed to disk and renamed. After an
error the temporary path is removed. A killed process leaves it, and the next write removes or
overwrites it. The name of a temporary path begins with `PREFIX`; mirrors do not copy such files.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path as File

from lab.storage import temp_dirs

PREFIX = ".partial-"


@contextmanager
def write_file(file: File) -> Iterator[File]:
    """Yield a temporary path; its content replaces `file` at the end of the `with` statement.

    A second process that writes the same file waits until the first one has finished.

    Args:
        file: path of the file, in an existing folder.
    """
    with _temporary_file(file) as partial:
        allowed = _permissions(partial)
        yield partial
        _allow(partial, allowed)
        _flush(partial)
        partial.replace(file)
        _flush(file.parent)


@contextmanager
def create_file(file: File) -> Iterator[File]:
    """Yield a temporary path, which becomes the new file `file` at the end of the `with` statement.

    Args:
        file: path of the file, in an existing folder.

    Raises:
        FileExistsError: the file exists; it is not changed.
    """
    with _temporary_file(file) as partial:
        allowed = _permissions(partial)
        yield partial
        _allow(partial, allowed)
        _flush(partial)
        os.link(partial, file)
        partial.unlink()
        _flush(file.parent)


def write_text(file: File, text: str, *, durable: bool = True) -> None:
    """Write a text file in UTF-8, with a final line feed unless the text is empty.

    Args:
        file: path of the file, in an existing folder.
        text: content.
        durable: whether the content is flushed to disk; a file that may be lost with the power
            need not wait for the disk.
    """
    with _temporary_file(file) as partial:
        partial.write_text(f"{text}\n" if text else "", encoding="utf-8")
        if durable:
            _flush(partial)
        partial.replace(file)


@contextmanager
def write_folder(folder: File) -> Iterator[File]:
    """Yield a temporary folder, which becomes `folder` at the end of the `with` statement.

    Args:
        folder: path of the folder, in an existing folder.

    Raises:
        FileExistsError: `folder` exists and is not empty; it is not changed.
    """
    with _temporary_folder(folder) as partial:
        yield partial
        _flush_files(partial)
        _publish(partial, folder)


@contextmanager
def replace_folder(folder: File) -> Iterator[File]:
    """Yield a temporary folder, which replaces `folder` at the end of the `with` statement.

    An existing folder is removed with all of its content. Between the two renames there is no
    folder of this name, because an operating system does not replace a folder with content.

    Args:
        folder: path of the folder, in an existing folder.
    """
    with _temporary_folder(folder) as partial:
        yield partial
        _flush_files(partial)
        if folder.exists():
            folder.rename(partial.with_name(f"{folder.name}.old"))
        _publish(partial, folder)


@contextmanager
def add_files(folder: File) -> Iterator[File]:
    """Yield a temporary folder; its files are moved to `folder` at the end of the `with` statement.

    A new folder appears with all of its files at once. In an existing folder each file appears, or
    replaces the file of the same name, atomically.

    Args:
        folder: path of the folder, in an existing folder.
    """
    with _temporary_folder(folder) as partial:
        yield partial
        _flush_files(partial)
        try:
            _publish(partial, folder)
        except FileExistsError:
            for file in _files(partial):
                target = folder / file.relative_to(partial)
                target.parent.mkdir(parents=True, exist_ok=True)
                file.replace(target)


@contextmanager
def _temporary_file(file: File) -> Iterator[File]:
    """Yield the path of an empty file that this process has locked; remove it after an error."""
    partial = file.with_name(f"{PREFIX}{file.name}")
    descriptor = _open_locked(partial)
    try:
        os.ftruncate(descriptor, 0)
        yield partial
    except BaseException:
        if _is_file_at(descriptor, partial):
            partial.unlink()
        raise
    finally:
        os.close(descriptor)


def _open_locked(partial: File) -> int:
    """Return the descriptor of a file that this process has created or taken over, and locked."""
    while True:
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except BaseException:
            os.close(descriptor)
            raise
        if _is_file_at(descriptor, partial):
            return descriptor
        os.close(descriptor)  # its writer has renamed or removed it meanwhile


def _is_file_at(descriptor: int, path: File) -> bool:
    """Return whether an open file has this path."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def _temporary_folder(folder: File) -> Iterator[File]:
    """Yield an empty folder in a new temporary folder beside `folder`."""
    with temp_dirs.temporary_folder(folder.parent, PREFIX) as temporary:
        partial = temporary / "new"
        partial.mkdir()
        yield partial


def _publish(partial: File, folder: File) -> None:
    """Rename a temporary folder.

    Raises:
        FileExistsError: `folder` exists and is not empty.
    """
    try:
        partial.rename(folder)
        _flush(folder.parent)
    except OSError as error:
        if error.errno in {errno.EEXIST, errno.ENOTEMPTY}:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder)) from None
        raise


def _files(folder: File) -> list[File]:
    return [file for file in folder.rglob("*") if file.is_file()]


def _flush_files(folder: File) -> None:
    """Flush the files and folders of a new folder, which all get the permissions of the folder.

    Some libraries create files that only their owner can read; several users may share a storage.
    """
    allowed = _permissions(folder)
    for path in (*folder.rglob("*"), folder):
        if path.is_symlink():  # its target is not a part of the folder
            continue
        _allow(path, allowed if path.is_dir() else allowed & 0o666)
        if path.is_file() or path.is_dir():
            _flush(path)


def _permissions(path: File) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _allow(path: File, permissions: int) -> None:
    """Add permissions to a file or folder that has fewer."""
    present = _permissions(path)
    if present | permissions != present:
        path.chmod(present | permissions)


def _flush(path: File) -> None:
    """Flush a file or the names in a folder, so that a name never refers to lost content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
