"""Notes of trials in the form in which optuna-dashboard stores and shows them, without its package.

Source: `optuna_dashboard/_note.py` (0.21). The note of a trial is a pair of attributes of its
study: a version, and the Markdown text in parts of at most 2,045 characters.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from optuna.storages import BaseStorage

from lab.config.experiment import Job
from lab.config.labels import label

_LONGEST = 2_045  # characters of an attribute
_VERSION = re.compile(r"dashboard:(\d+):note_ver")


def write_note(storage: BaseStorage, study: int, trial: int, text: str) -> None:
    """Write the first version of a trial's note.

    Args:
        storage: Optuna storage.
        study: id of the study.
        trial: id of the trial.
        text: text in Markdown.
    """
    for part, start in enumerate(range(0, len(text), _LONGEST)):
        content = text[start : start + _LONGEST]
        storage.set_study_system_attr(study, f"dashboard:{trial}:note_str:{part}", content)
    storage.set_study_system_attr(study, f"dashboard:{trial}:note_ver", 1)


def list_noted(attributes: Mapping[str, Any]) -> set[int]:
    """Return the ids of the trials that have a note.

    Args:
        attributes: system attributes of a study.
    """
    return {int(found[1]) for name in attributes if (found := _VERSION.fullmatch(name))}


def describe_job(job: Job, fingerprint: str, run: str) -> str:
    """Return the note of a job's trial in Markdown: settings, record, and run in MLflow.

    Args:
        job: job of the search.
        fingerprint: name of the record of its trial.
        run: address of its MLflow run; empty if it is unknown.
    """
    seeds = job.trial.seeds
    lines = [
        f"**trial {job.number}**: {_code(label(job.cell | job.tuned, job.compared) or 'base')}",
        "",
        f"- cell: {_code(json.dumps(job.cell))}",
        f"- record: {_code(f'trials/{fingerprint}')}",
        f"- seeds (init, order, mask): {seeds.init}, {seeds.order}, {seeds.mask}",
    ]
    if run:
        lines.append(f"- MLflow run: <{run}>")
    if job.proposed_by:
        lines.append(f"- proposed by sweep {_code(job.proposed_by)}")
    if job.infeasible:
        lines.append(f"- infeasible, not trained: {_code(job.infeasible)}")
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    """Return a text as code, in which Markdown interprets nothing."""
    return f"`{' '.join(text.split()).replace('`', chr(39))}`"
