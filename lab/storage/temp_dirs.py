"""Temporary folders: removed when their process ends, or by a later process if it was killed."""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path as File
from typing import IO

# Only this module writes a file of this name with this content, so that no other folder, a storage
# for example, is mistaken for an abandoned temporary folder.
MARK = ".electra-lab-scratch"
CONTENT = (
    b"A temporary folder of electra-lab. It is deleted once no process holds a lock on this.\n"
)


@contextmanager
def temporary_folder(parent: File, prefix: str) -> Iterator[File]:
    """Create a new folder in `parent`, and remove abandoned folders with the same prefix.

    A process holds a lock on the mark file in its folder until it ends. Unlike a process number,
    the lock is valid across containers and restarts.

    Args:
        parent: folder of the temporary folders.
        prefix: first characters of the folder's name.
    """
    _remove_abandoned(parent, prefix)
    folder = File(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        with (folder / "unlocked").open("wb") as mark:
            mark.write(CONTENT)
            mark.flush()
            fcntl.flock(mark, fcntl.LOCK_EX)
            (folder / "unlocked").rename(folder / MARK)  # complete and locked before it is renamed
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(parent: File, prefix: str) -> None:
    for folder in parent.glob(f"{prefix}*"):
        with suppress(OSError), _open_mark(folder) as mark:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while the owner is running
            if mark.read(len(CONTENT) + 1) == CONTENT and not _holds_results(folder):
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _open_mark(folder: File) -> Iterator[IO[bytes]]:
    """Open the mark file of a folder without following symbolic links or blocking on a pipe.

    Raises:
        OSError: there is no mark file, or it or the folder belongs to another user.
    """
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        descriptor = os.open(MARK, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW, dir_fd=directory)
        with os.fdopen(descriptor, "r+b", buffering=0) as mark:
            status = os.fstat(descriptor)
            owners = {os.fstat(directory).st_uid, status.st_uid}
            if not stat.S_ISREG(status.st_mode) or owners != {os.getuid()}:
                raise PermissionError(f"{folder}: not a folder that this user's process made")
            yield mark
    finally:
        os.close(directory)


def find_temporary_folder(path: File) -> File | None:
    """Return the temporary folder that contains a path, or is that path; None for any other path.

    What is written there would be deleted with the folder.
    """
    absolute = path.resolve()
    folders = (absolute, *absolute.parents)
    return next((folder for folder in folders if os.path.lexists(folder / MARK)), None)


def _holds_results(folder: File) -> bool:
    """Return whether a folder contains, at any depth, records of trials or a database."""
    return any(
        "trials" in folders or any(File(file).suffix == ".db" for file in files)
        for _, folders, files in os.walk(folder)
    )
