"""Folders that a sweep will write to, checked before it does anything."""

import tempfile
from pathlib import Path as File

from lab.errors import UserError


class PlaceError(UserError):
    """A folder that cannot be used; the message is one line for a person."""


def check_storage(folder: File) -> None:
    """Refuse a storage that cannot be written, or whose path no SQLite address can hold."""
    if set("%?#") & set(str(folder.resolve())):
        raise PlaceError(f"--storage {folder}: %, ? and # cannot stand in a database's address")
    _check_writable(folder, "--storage")


def check_reports(folder: File, name: str) -> None:
    """Refuse a folder of reports that cannot be written, or that holds something else by `name`."""
    _check_writable(folder, "--reports")
    check_target(folder / name)


def check_target(target: File) -> None:
    """Refuse to replace something that is no report."""
    if target.exists() and not target.is_dir():
        raise PlaceError(f"{target}: a file stands where the report's folder would be")
    if target.is_dir() and not (target / "report.html").exists() and any(target.iterdir()):
        raise PlaceError(f"{target}: exists and holds no report; it is left alone")


def _check_writable(folder: File, option: str) -> None:
    """Refuse a folder that cannot be made or written, and leave nothing behind either way."""
    try:
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        why = (error.strerror or "no access").lower()
        raise PlaceError(f"{option} {folder}: cannot be written: {why}") from None
