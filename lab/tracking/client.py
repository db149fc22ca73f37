"""Connect to the tracking store: check its URI, create an MLflow client, shorten its errors.

Errors of MLflow and its database (a wrong URI, a locked file, a server that does not respond)
become a `StoreError` with a one-line message.
"""

import logging
import os
import sqlite3
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path as File
from typing import Any
from urllib.parse import unquote

from lab.errors import UserError
from lab.storage import databases

_REMEDY = (
    "{file} may be moved away or deleted: lab.sweep makes it again from the records in --storage"
)
_SCHEMES = ("sqlite", "http", "https")
# Conditions on the rows of tables that MLflow does not write itself when it creates a database.
_RESULTS = {
    "experiments": "name <> 'Default'",
    "runs": "true",
    "registered_models": "true",
    "trace_info": "true",
}


class StoreError(UserError):
    """The tracking store cannot be used; the message is one line."""


def default_uri(storage: File = File("runs")) -> str:
    """Return the tracking URI of the database inside `storage`."""
    return f"sqlite:///{storage.resolve()}/mlflow.db"


def database_file(uri: str) -> File | None:
    """Return the database file of a SQLite URI, or None for the URI of a server.

    Raises:
        StoreError: the URI is neither a SQLite URI with a file nor that of a server.
    """
    scheme, colon, rest = uri.partition("://")
    if not colon or scheme not in _SCHEMES:
        raise StoreError(
            f"tracking URI {uri!r}: must be sqlite:////absolute/path/mlflow.db or "
            "http(s)://host:port"
            + ("; MLflow no longer writes file stores" if scheme in {"file", uri} else "")
        )
    if scheme != "sqlite":
        return None
    if not rest.startswith("/") or rest in {"/", "/:memory:"}:
        raise StoreError(f"tracking URI {uri!r}: names no database file")
    return File(unquote(rest[1:]))


def connect_client(uri: str) -> Any:  # MlflowClient, which mypy cannot see
    """Return an MLflow client after one successful request; create the database if needed.

    Raises:
        StoreError: the URI cannot be read or written, or the server does not respond within
            seconds.
    """
    file = database_file(uri)
    if file is not None:
        _check_database(uri, file)
    # By default MLflow retries an unreachable server for four minutes. setdefault keeps values that
    # the user has set.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    with warnings.catch_warnings(), describe_error(uri):
        warnings.simplefilter("ignore")  # SQLAlchemy's deprecations, meant for MLflow
        if file is not None:
            databases.create_database(file, lambda partial: _request(f"sqlite:///{partial}"))
        return _request(uri)


def connect_writer(uri: str, notify: Callable[[str], None]) -> Any:
    """Return a client as `connect_client`, for the process that writes the store from records.

    A database that a killed process has left incomplete is set aside and made again, unless it
    holds results.

    Args:
        uri: tracking URI.
        notify: function that prints a line; called if a database is set aside.

    Raises:
        StoreError: as `connect_client`.
    """
    file = database_file(uri)
    if file is not None:
        _check_database(uri, file)  # a file that is not MLflow's is never set aside
    try:
        return connect_client(uri)
    except StoreError as error:
        if file is None or not file.exists() or _holds_results(file):
            raise
        _close_connections()
        aside = databases.set_aside(file)
        notify(
            f"{error}; it was incomplete and held no run, is set aside as "
            f"{aside.name} and made again from the records"
        )
    return connect_client(uri)


def _request(uri: str) -> Any:
    """Return a client after one successful request, which creates the tables of a database."""
    from mlflow import MlflowClient  # imported late: it takes seconds

    for name in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        client = MlflowClient(uri, registry_uri=uri)
        client.search_experiments(max_results=1)
    except (ValueError, TypeError) as error:  # the address or the response cannot be parsed
        raise StoreError(f"tracking URI {uri!r}: {_first_line(error)}") from None
    return client


def _holds_results(file: File) -> bool:
    """Return whether a database holds anything that MLflow does not write when it creates it."""
    try:
        ours = databases.count_rows(file, {"sqlite_master": "name = 'experiments'"}) == 1
        return not ours or databases.count_rows(file, _RESULTS) > 0
    except sqlite3.Error:  # locked or damaged: this is not known
        return True


def _close_connections() -> None:
    """Close MLflow's connections to databases, which would still refer to a renamed file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in `connect_client`
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for engine in SqlAlchemyStore._engine_map.values():
        engine.dispose()


@contextmanager
def describe_error(uri: str) -> Iterator[None]:
    """Turn exceptions of MLflow and its database into a `StoreError` with a one-line message."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        # The exceptions of these packages have no common base class, and naming their classes would
        # import the packages.
        if type(error).__module__.partition(".")[0] not in {
            "mlflow",
            "sqlalchemy",
            "alembic",
            "sqlite3",
        }:
            raise
        text = _first_line(_origin(error))
        no_response = "Max retries exceeded" in text or "timed out" in text
        if "malformed" in text or "not a database" in text:
            text = f"{text}; {_REMEDY.format(file=database_file(uri))}"
        raise StoreError(
            f"{uri}: {'no MLflow server responds' if no_response else text}"
        ) from error


def _check_database(uri: str, file: File) -> None:
    """Raise a `StoreError` at once for an unusable file, which MLflow would retry for minutes."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            with tempfile.TemporaryFile(dir=file.parent):  # the folder can be written
                return
        with closing(sqlite3.connect(file, timeout=5)) as database:
            database.execute("BEGIN IMMEDIATE")
            database.rollback()
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    except (sqlite3.Error, OSError) as error:
        damaged = type(error) is sqlite3.DatabaseError  # a subclass if it is locked, for example
        remedy = f"; {_REMEDY.format(file=file)}" if damaged else ""
        raise StoreError(f"tracking URI {uri!r}: {_first_line(error)}{remedy}") from error
    if tables and "experiments" not in tables:
        raise StoreError(f"tracking URI {uri!r}: the database is not an MLflow database")


def _origin(error: BaseException) -> BaseException:
    """Return the innermost cause of an exception: the database's own error, if it has one."""
    while (cause := getattr(error, "orig", None) or error.__cause__) is not None:
        error = cause
    return error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
