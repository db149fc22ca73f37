"""Find files by a pattern in which `**` stands for any number of folders.

`glob` follows symbolic links in `**`, also a link to a folder that contains it: each file is then
found up to 40 times, and with two such links the search does not end. Here each folder is entered
once, and never by a link to a folder above it.
"""

import glob
import os
from collections.abc import Iterator
from pathlib import Path as File

_ANY = "**"


def find_paths(pattern: str) -> Iterator[str]:
    """Yield the paths that match a pattern, in no particular order.

    Args:
        pattern: pattern of `glob`. As there, a wildcard matches no name that begins with a dot.
    """
    parts = File(pattern).parts
    if _ANY not in parts:
        yield from glob.iglob(pattern)  # noqa: PTH207 - the path may be absolute
        return
    position = parts.index(_ANY)
    after = parts[position + 1 :] or ("*",)
    for base in glob.iglob(str(File(*parts[:position]))):  # noqa: PTH207
        for folder in _folders(File(base)):
            yield from find_paths(str(File(glob.escape(str(folder)), *after)))


def _folders(base: File) -> Iterator[File]:
    """Yield a folder and all folders below it, each once; real folders before links to them."""
    seen: set[File] = set()
    waiting = [base] if base.is_dir() else []
    while waiting:
        start = waiting.pop(0)
        if start.resolve() in seen:
            continue
        for name, folders, _ in os.walk(start):  # does not enter links
            folder = File(name)
            folders[:] = sorted(each for each in folders if not each.startswith("."))
            waiting += [folder / each for each in folders if _leads_down(folder / each)]
            folders[:] = [each for each in folders if (folder / each).resolve() not in seen]
            if folder.resolve() not in seen:
                seen.add(folder.resolve())
                yield folder


def _leads_down(path: File) -> bool:
    """Return whether a path is a link to a folder that does not contain the link."""
    return path.is_symlink() and not path.parent.resolve().is_relative_to(path.resolve())
