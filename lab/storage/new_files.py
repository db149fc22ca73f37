"""Write new files together: all of them, or none."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path as File

from lab.errors import UserError


def check_not_there(file: File, option: str) -> None:
    """Refuse a path that cannot be a new file.

    Args:
        file: to be written.
        option: that names it.

    Raises:
        UserError: it is there already, or its folder is not.
    """
    if os.path.lexists(file):
        raise UserError(f"{file}: is there already; remove it, or name another by {option}")
    if not file.parent.is_dir():
        raise UserError(f"{option} {file}: there is no folder {str(file.parent)!r}")


@contextmanager
def write_all(contents: Mapping[File, str]) -> Iterator[None]:
    """Write new files, and remove them again where the body fails.

    Raises:
        UserError: one cannot be written.
    """
    made: list[File] = []
    try:
        for file, content in contents.items():
            _write(file, content)
            made.append(file)
        yield
    except BaseException:
        for file in made:
            file.unlink(missing_ok=True)
        raise


def _write(file: File, content: str) -> None:
    """Write a file that appears whole, and replaces none."""
    partial = ""
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=file.parent, delete=False, encoding="utf-8", newline="\n"
        ) as out:
            partial = out.name
            out.write(content)
        File(partial).chmod(0o666 & ~_umask())
        os.link(partial, file)
    except FileExistsError:
        raise UserError(f"{file}: is there already; remove it first") from None
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None
    finally:
        if partial:
            with suppress(OSError):
                File(partial).unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
