"""Trials that differ in the length of their budget alone: the longer one goes on from the shorter.

Only where the schedule does not depend on the budget is a run's beginning that of a longer one:
at a constant rate without warm-up, and without stages.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path as File

from lab.config.trial import Trial
from lab.storage import record


def extend_from_shorter_run(folder: File, trial: Trial, lineage: str) -> None:
    """Start a record from the longest run of the same lineage that is shorter.

    Args:
        folder: of the trial's record, opened, among those of the others; one with checkpoints of
            its own is left alone.
        trial: what it is of.
        lineage: names all trials that differ from it in the budget's amount alone.
    """
    if not trial.extendable or (folder / "checkpoints").exists():
        return
    shorter = list(_shorter(folder, trial, lineage))
    if not shorter:
        return
    _, origin = max(shorter)
    # What its encoder gave when it was fine-tuned is no score of a run that goes on.
    record.write_rows(folder, record.read_curve(origin), without=("finetune",))
    record.write_origin(folder, origin.name)
    partial = folder / "checkpoints.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(origin / "checkpoints", partial)
    partial.rename(folder / "checkpoints")  # last: what has them is left alone


def _shorter(folder: File, trial: Trial, lineage: str) -> Iterator[tuple[float, File]]:
    """Yield amount and folder of each finished run of the lineage with a smaller budget."""
    for asked in folder.parent.glob("*/trial.json"):
        try:
            said = json.loads(asked.read_text())
        except ValueError:
            continue
        if said.get("lineage") != lineage or record.read_state(asked.parent) != "finished":
            continue
        amount = said["trial"]["budget"]["amount"]
        if amount < trial.budget.amount and (asked.parent / "checkpoints").exists():
            yield amount, asked.parent
