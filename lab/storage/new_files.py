"""Write several new files: either all of them, or none."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path as File

from lab.errors import UserError
from lab.storage import atomic


def check_not_there(file: File, option: str) -> None:
    """Check that a path can become a new file.

    Args:
        file: path of the new file.
        option: command line option that sets the path.

    Raises:
        UserError: the file exists, or its folder does not.
    """
    if os.path.lexists(file):
        raise UserError(f"{file}: already exists; remove it, or choose another path with {option}")
    if not file.parent.is_dir():
        raise UserError(f"{option} {file}: there is no folder {str(file.parent)!r}")


@contextmanager
def write_all(contents: Mapping[File, str]) -> Iterator[None]:
    """Write new files; remove them again if the body of the `with` statement raises.

    Args:
        contents: text of each file.

    Raises:
        UserError: a file exists or cannot be written.
    """
    if present := [str(file) for file in contents if os.path.lexists(file)]:
        verb, them = ("exists", "it") if len(present) == 1 else ("exist", "them")
        raise UserError(f"{', '.join(present)}: already {verb}; remove {them} first")
    written: list[File] = []
    try:
        for file, content in contents.items():
            _write(file, content)
            written.append(file)
        yield
    except BaseException:
        for file in written:
            file.unlink(missing_ok=True)
        raise


def _write(file: File, content: str) -> None:
    """Write a new file atomically."""
    try:
        with atomic.create_file(file) as partial:
            partial.write_text(content, encoding="utf-8", newline="\n")
    except FileExistsError:
        raise UserError(f"{file}: already exists; remove it first") from None
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None
