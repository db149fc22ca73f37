"""Temporary folders that are removed with their process, or by a later one if it was killed."""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path as File
from typing import IO

# Only this module writes a file of this name with this content, so nothing else that lies in the
# temporary folder, a storage for example, is ever taken for an abandoned folder.
MARK = ".electra-lab-scratch"
CONTENT = (
    b"A temporary folder of electra-lab. It is deleted once no process holds a lock on this.\n"
)


@contextmanager
def temporary_folder(parent: File, prefix: str) -> Iterator[File]:
    """Make a new folder in `parent`, and remove abandoned ones with the same prefix.

    A process holds a lock on the mark in its folder while it lives. The lock works across
    containers and restarts, where a process number does not.
    """
    _remove_abandoned(parent, prefix)
    made = File(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        with (made / "unlocked").open("wb") as mark:
            mark.write(CONTENT)
            mark.flush()
            fcntl.flock(mark, fcntl.LOCK_EX)
            (made / "unlocked").rename(made / MARK)  # whole and locked before it has its name
            yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _remove_abandoned(parent: File, prefix: str) -> None:
    for found in parent.glob(f"{prefix}*"):
        with suppress(OSError), _open_mark(found) as mark:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its process lives
            if mark.read(len(CONTENT) + 1) == CONTENT and not _holds_results(found):
                shutil.rmtree(found, ignore_errors=True)


@contextmanager
def _open_mark(found: File) -> Iterator[IO[bytes]]:
    """Open the mark of a folder without following symbolic links or waiting for a pipe.

    Raises:
        OSError: it has none, or one of the two belongs to another user.
    """
    directory = os.open(found, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        opened = os.open(MARK, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW, dir_fd=directory)
        with os.fdopen(opened, "r+b", buffering=0) as mark:
            status = os.fstat(opened)
            owners = {os.fstat(directory).st_uid, status.st_uid}
            if not stat.S_ISREG(status.st_mode) or owners != {os.getuid()}:
                raise PermissionError(f"{found}: not a folder that this user's process made")
            yield mark
    finally:
        os.close(directory)


def _holds_results(found: File) -> bool:
    """Return whether records of trials or a database lie in a folder, marked or not."""
    return any(entry.name == "trials" or entry.suffix == ".db" for entry in found.iterdir())
