"""Where sweeps are recorded: a tracking URI, and a client that has answered once.

What MLflow and its databases throw at a wrong URI, a locked file or a dead server ends here as
one line.
"""

import logging
import os
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path as File
from typing import Any
from urllib.parse import unquote

from lab.errors import UserError

_SCHEMES = ("sqlite", "http", "https")


class StoreError(UserError):
    """The store cannot be used; the message is one line for a person."""


def default_uri(storage: File = File("runs")) -> str:
    """Return the tracking URI of the database inside `storage`."""
    return f"sqlite:///{storage.resolve()}/mlflow.db"


def database_file(uri: str) -> File | None:
    """Return the file behind a SQLite URI; None for a server, which has no file here.

    Raises:
        StoreError: the URI is neither.
    """
    scheme, colon, rest = uri.partition("://")
    if not colon or scheme not in _SCHEMES:
        raise StoreError(
            f"tracking URI {uri!r}: write sqlite:////absolute/path/mlflow.db or http(s)://host:port"
            + ("; MLflow no longer writes file stores" if scheme in {"file", uri} else "")
        )
    if scheme != "sqlite":
        return None
    if not rest.startswith("/") or rest in {"/", "/:memory:"}:
        raise StoreError(f"tracking URI {uri!r}: names no database file")
    return File(unquote(rest[1:]))


def connect_client(uri: str) -> Any:  # MlflowClient, which mypy cannot see
    """Return a client that has answered once; a SQLite schema is created by the way.

    Creating the schema breaks when several processes do it at once, so this belongs into the
    driver, before workers start.

    Raises:
        StoreError: the URI cannot be read or written, or no server answers within seconds.
    """
    file = database_file(uri)
    if file is not None:
        _check_database(uri, file)
    # MLflow retries a dead server for four minutes; setdefault leaves a person's choice alone.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    with warnings.catch_warnings(), describe_error(uri):
        warnings.simplefilter("ignore")  # SQLAlchemy's advice to MLflow's authors
        from mlflow import MlflowClient  # here, because importing it takes seconds

        for chatter in ("mlflow", "alembic", "urllib3"):
            logging.getLogger(chatter).setLevel(logging.CRITICAL)
        try:
            client = MlflowClient(uri, registry_uri=uri)
            client.search_experiments(max_results=1)
        except (ValueError, TypeError) as error:  # an address or an answer that cannot be parsed
            raise StoreError(f"tracking URI {uri!r}: {_first_line(error)}") from None
        return client


@contextmanager
def describe_error(uri: str) -> Iterator[None]:
    """Turn what MLflow and its database throw into one line."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        # Their exceptions have no common base, and naming them would import them at once.
        if type(error).__module__.partition(".")[0] not in {"mlflow", "sqlalchemy", "alembic"}:
            raise
        text = _first_line(_origin(error))
        dead = "Max retries exceeded" in text or "timed out" in text
        raise StoreError(f"{uri}: {'no MLflow server answers' if dead else text}") from error


def _check_database(uri: str, file: File) -> None:
    """Fail at once where MLflow would retry an unreadable file for minutes."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(file, timeout=5)) as opened:
            opened.execute("BEGIN IMMEDIATE")
            opened.rollback()
            tables = {name for (name,) in opened.execute("SELECT name FROM sqlite_master")}
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"tracking URI {uri!r}: {_first_line(error)}") from None
    if tables and "experiments" not in tables:
        raise StoreError(f"tracking URI {uri!r}: a database, but not one of MLflow's")


def _origin(error: BaseException) -> BaseException:
    """Return what the database itself said, where it was that."""
    while (cause := getattr(error, "orig", None) or error.__cause__) is not None:
        error = cause
    return error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
