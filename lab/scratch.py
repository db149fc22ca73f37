"""Folders that go when their process is done, or the next time if it was killed."""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path as File


@contextmanager
def folder(parent: File, prefix: str) -> Iterator[File]:
    """Make a new folder in `parent`, and remove those with the same prefix whose maker is gone.

    Whoever lives holds a lock on a file in it, which holds across containers and restarts as a
    process number does not.
    """
    for left in parent.glob(f"{prefix}*/lock"):
        with suppress(OSError), left.open() as lock:  # its maker lives
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left.parent, ignore_errors=True)
    made = File(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        with (made / "unlocked").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (made / "unlocked").rename(made / "lock")  # nobody sees it without its lock
            yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
