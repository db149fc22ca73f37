"""Optuna storage of a sweep's studies."""

from pathlib import Path as File

from optuna.storages import BaseStorage, RDBStorage

from lab.storage import databases

_LOCK_TIMEOUT = 60  # seconds to wait for a database that another process has locked


def open_storage(storage: str | BaseStorage) -> BaseStorage:
    """Return the storage of a URL; it waits while another process has locked the database.

    A damaged database is set aside: the studies are made again from the notes and the records.
    """
    if isinstance(storage, BaseStorage):
        return storage
    _, is_file, path = storage.partition("sqlite:///")
    if is_file:
        if File(path).exists() and databases.is_damaged(File(path)):
            databases.set_aside(File(path))
        databases.create_database(
            File(path), lambda partial: _connect(f"sqlite:///{partial}").engine.dispose()
        )
    return _connect(storage)


def _connect(storage: str) -> RDBStorage:
    return RDBStorage(storage, engine_kwargs={"connect_args": {"timeout": _LOCK_TIMEOUT}})
