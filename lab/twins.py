"""Trials that differ in the length of their budget alone: the longer one goes on from the shorter.

Only where the schedule does not depend on the budget is a run's beginning that of a longer one:
at a constant rate without warm-up, and without stages.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path as File

from lab import record
from lab.spec import Trial
from lab.work import Work


def take_over(work: Work) -> None:
    """Start a record from the longest run of the same lineage that is shorter.

    Among the records that lie in the same folder; one that has checkpoints is left alone.
    """
    folder = work.folder
    if not work.trial.extendable or (folder / "checkpoints").exists():
        return
    shorter = list(_shorter(folder, work.trial, work.lineage))
    if not shorter:
        return
    _, origin = max(shorter)
    shutil.copyfile(origin / "curve.jsonl", folder / "curve.jsonl")
    shutil.copytree(origin / "checkpoints", folder / "checkpoints")
    record.note_origin(folder, origin.name)


def _shorter(folder: File, trial: Trial, lineage: str) -> Iterator[tuple[float, File]]:
    """Yield amount and folder of each finished run of the lineage with a smaller budget."""
    for asked in folder.parent.glob("*/trial.json"):
        try:
            said = json.loads(asked.read_text())
        except ValueError:
            continue
        if said.get("lineage") != lineage or record.state(asked.parent) != "finished":
            continue
        amount = said["trial"]["budget"]["amount"]
        if amount < trial.budget.amount and (asked.parent / "checkpoints").exists():
            yield amount, asked.parent
