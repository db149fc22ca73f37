"""Files that are named by a hash of their content, and found by a hash of their settings.

An index file, named by the hash of the settings, holds the name of the file. The first file that is
made with some settings in a storage is used by all later sweeps there, even where another machine
would make a different one from the same settings.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path as File
from typing import Any

import numpy as np
import numpy.typing as npt

from lab.storage import atomic
from lab.storage.mirror import Mirror


def find_or_make(index: File, make: Callable[[], File], mirror: Mirror) -> File:
    """Return the file that an index file names; make both if one of them is missing.

    Several processes may do so at once. In a shared folder all get the same file. On a remote
    storage two machines that finish within moments of each other may keep different files; their
    trials then have different identities, and later sweeps use the file that was indexed last.

    Args:
        index: path of the index file, in the folder of the file.
        make: function that makes the file and returns its path; called at most once.
        mirror: synchronization of the folder with a remote storage.
    """
    file = _pull(index, mirror)
    if file is None:
        index.unlink(missing_ok=True)  # names a file that has been deleted
        mirror.push(index)
        made = make()
        mirror.push(made)
        file = _pull(index, mirror) or _add(index, made)
    mirror.push(file)  # a process may have been killed between writing and uploading
    mirror.push(index)
    return file


def find_file(index: File) -> File | None:
    """Return the file that an index file names; None if one of the two is missing."""
    named = _read(index)
    return named if named is not None and named.is_file() else None


def hash_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Return the first twelve hexadecimal digits of `sha256_arrays`."""
    return sha256_arrays(arrays)[:12]


def sha256_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Return the SHA-256 of the names and contents of arrays, hexadecimal."""
    hashed = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        hashed.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        hashed.update(np.ascontiguousarray(array).tobytes())
    return hashed.hexdigest()


def _read(index: File) -> File | None:
    """Return the file that an index file names; None if there is none or it is damaged."""
    if not index.is_file():
        return None
    name = index.read_text(encoding="utf-8", errors="replace").strip()
    return index.with_name(name) if re.fullmatch(r"\w[\w.-]*", name, re.ASCII) else None


def _pull(index: File, mirror: Mirror) -> File | None:
    """Download an index file and the file that it names; return the latter if there is one."""
    mirror.pull(index)
    named = _read(index)
    if named is not None:
        mirror.pull(named)
    return find_file(index)


def _add(index: File, made: File) -> File:
    """Write an index file, unless another process has; return the file that it names."""
    try:
        with atomic.create_file(index) as partial:
            partial.write_text(f"{made.name}\n", encoding="utf-8")
    except FileExistsError:
        return find_file(index) or made
    return made
