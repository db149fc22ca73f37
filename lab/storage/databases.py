"""SQLite databases: made aside and renamed; an unusable one is set aside, never deleted.

A library creates its tables in many steps. If its process is killed in between, the database can
neither be used nor completed. Each database of a storage can be made again from the records.
"""

import logging
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path as File

from lab.storage import atomic

_LOG = logging.getLogger(__name__)
_COMPANIONS = ("-journal", "-wal", "-shm")  # files that SQLite writes beside a database
_TIMEOUT = 5.0  # seconds to wait for another process that has locked a database


class _FoundError(Exception):
    """Another process has made the database meanwhile."""


def create_database(file: File, make: Callable[[File], None]) -> None:
    """Make a database in a temporary file and rename it, unless it exists.

    Args:
        file: path of the database; its folder is created if necessary.
        make: function that creates the tables of the database at a path.
    """
    if _has_content(file):
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic.write_file(file) as partial:
            if _has_content(file):
                raise _FoundError
            _delete_companions(partial)  # of a process that was killed while it made the database
            make(partial)
    except _FoundError:
        return


def set_aside(file: File) -> File:
    """Rename a database, with the files that SQLite has written beside it; return the new path."""
    number = 1
    while (target := file.with_name(f"{file.name}.set-aside-{number}")).exists():
        number += 1
    for companion in _COMPANIONS:
        beside = file.with_name(f"{file.name}{companion}")
        if beside.exists():
            beside.rename(target.with_name(f"{target.name}{companion}"))
    file.rename(target)
    _LOG.warning("%s was set aside as %s", file, target.name)
    return target


def count_rows(file: File, queries: Mapping[str, str]) -> int:
    """Return the number of rows in some tables of a database.

    Args:
        file: path of the database.
        queries: condition on the rows of each table; a table that does not exist has no rows.

    Raises:
        sqlite3.Error: the file is no database, is damaged or is locked.
    """
    with closing(sqlite3.connect(file, timeout=_TIMEOUT)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
        tables.add("sqlite_master")
        counts = (
            database.execute(f"SELECT count(*) FROM {table} WHERE {condition}").fetchone()[0]  # noqa: S608 - constants
            for table, condition in queries.items()
            if table in tables
        )
        return sum(counts)


def is_damaged(file: File) -> bool:
    """Return whether a file is no SQLite database, or a damaged one."""
    try:
        with closing(sqlite3.connect(file, timeout=_TIMEOUT)) as database:
            return bool(database.execute("PRAGMA quick_check(1)").fetchone() != ("ok",))
    except sqlite3.OperationalError:  # locked, or it cannot be opened
        return False
    except sqlite3.DatabaseError:
        return True


def _has_content(file: File) -> bool:
    return file.exists() and file.stat().st_size > 0


def _delete_companions(file: File) -> None:
    for companion in _COMPANIONS:
        file.with_name(f"{file.name}{companion}").unlink(missing_ok=True)
