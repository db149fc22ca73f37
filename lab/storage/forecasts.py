"""Forecasts in a storage: one JSON file each in `forecasts/`, written once and never changed.

A file has the SHA-256 of its content, so that a later change of a prediction or of the date is
detected. Its name is a hash of the inputs of the forecast.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any

from lab.storage import atomic, digests
from lab.storage.mirror import Mirror

FOLDER = "forecasts"
REMEDY = "it is not used; restore the file as it was written, or delete it"


@dataclass(frozen=True, kw_only=True)
class StoredFiles:
    """Forecasts of a storage.

    Attributes:
        contents: content of each undamaged file, by name without suffix, sorted.
        damaged: messages about the other files, by name without suffix; their paths are relative
            to the storage, because reports have these messages.
    """

    contents: Mapping[str, Any]
    damaged: Mapping[str, str]


def forecast_file(storage: File, name: str) -> File:
    """Return the path of a forecast."""
    return storage / FOLDER / f"{name}.json"


def write_forecast(storage: File, name: str, content: object, mirror: Mirror) -> bool:
    """Write a forecast; return whether it is new. An existing file of this name is not changed.

    Args:
        storage: local folder of the storage; created if it does not exist.
        name: name of the forecast.
        content: its content, as `json.dumps` accepts it.
        mirror: synchronization of `storage` with a remote storage.
    """
    file = forecast_file(storage, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    mirror.pull(file.parent)
    try:
        with atomic.create_file(file) as partial:
            partial.write_text(digests.format_json(content, indent=1), encoding="utf-8")
    except FileExistsError:
        return False
    mirror.push(file.parent)
    return True


def read_forecasts(storage: File, mirror: Mirror) -> StoredFiles:
    """Return the forecasts of a storage.

    Args:
        storage: local folder of the storage; it may not exist.
        mirror: synchronization of `storage` with a remote storage.
    """
    mirror.pull(storage / FOLDER)
    contents, damaged = {}, {}
    for file in sorted((storage / FOLDER).glob("[!.]*.json")):
        try:
            contents[file.stem] = digests.read_json(file, REMEDY)
        except digests.DamagedFileError as error:
            damaged[file.stem] = str(error).removeprefix(f"{storage}/")
    return StoredFiles(contents=contents, damaged=damaged)
