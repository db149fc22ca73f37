"""Files of trials in the form in which optuna-dashboard stores and shows them, without its package.

Source: `optuna_dashboard/artifact/_backend.py` (0.21). A file is copied to a folder under a UUID,
and an attribute of the study has its name and type. Unlike the attributes of a trial, which
`optuna.artifacts.upload_artifact` writes, it can be added to a trial that has ended.
"""

import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from pathlib import Path as File
from typing import Any, NamedTuple

from optuna.storages import BaseStorage

from lab.storage import atomic

FOLDER = "study_artifacts"  # in a storage
_KEY = re.compile(r"dashboard:artifacts:(\d+):([0-9a-f-]+)")


class Artifact(NamedTuple):
    """A file of a trial.

    Attributes:
        trial: id of the trial.
        identity: UUID of the content, the name of the copy.
    """

    trial: int
    identity: str


def attach_content(
    storage: BaseStorage, study: int, artifact: Artifact, folder: File, content: bytes, name: str
) -> None:
    """Attach a file to a trial.

    Args:
        storage: Optuna storage.
        study: id of the study.
        artifact: the trial, and the UUID of the content (`identify`).
        folder: folder of the copy; created if it does not exist.
        content: content of the file, JSON Lines.
        name: name that optuna-dashboard shows.
    """
    folder.mkdir(exist_ok=True)
    with atomic.write_file(folder / artifact.identity) as partial:
        partial.write_bytes(content)
    entry = {"artifact_id": artifact.identity, "filename": name, "mimetype": "application/jsonl",
             "encoding": None}  # fmt: skip
    key = f"dashboard:artifacts:{artifact.trial}:{artifact.identity}"
    storage.set_study_system_attr(study, key, json.dumps(entry))


def identify(content: bytes) -> str:
    """Return the UUID of the content of a file."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, hashlib.sha256(content).hexdigest()))


def list_attached(attributes: Mapping[str, Any]) -> set[Artifact]:
    """Return the files that are attached to trials.

    Args:
        attributes: system attributes of a study.
    """
    found = map(_KEY.fullmatch, attributes)
    return {Artifact(int(match[1]), match[2]) for match in found if match}
