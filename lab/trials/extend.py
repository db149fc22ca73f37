"""Extend a finished run: a trial continues from a shorter run that differs only in its budget.

The beginning of a longer run equals a shorter one only if the schedule does not depend on the
budget: a constant learning rate without warm-up, and an objective without stages.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path as File

from lab.config.trial import Trial
from lab.errors import UserError
from lab.storage import atomic, provenance, record


def extend_from_shorter_run(folder: File, trial: Trial, lineage: str) -> None:
    """Copy curve and checkpoints of the longest finished shorter run of a lineage into a record.

    A record with checkpoints, and a trial that cannot be extended, are left unchanged.

    Args:
        folder: folder of the trial's record, in the folder of all records.
        trial: trial of the record.
        lineage: hash of the trial without the amount of its budget; equal for all trials that
            differ from it only in that amount.
    """
    if not trial.extendable or (folder / "checkpoints").exists():
        return
    shorter = list(_finished_shorter_runs(folder, trial, lineage))
    if not shorter:
        return
    _, origin = max(shorter)
    # The fine-tuning scores of the shorter run's encoder are not scores of the longer run.
    record.write_rows(folder, record.read_curve(origin), without=("finetune",))
    record.write_origin(folder, origin.name)
    provenance.add_provenance(folder, *provenance.read_provenance(origin))
    # Last: an interrupted extension is repeated, unless the record has checkpoints.
    with atomic.write_folder(folder / "checkpoints") as partial:
        shutil.copytree(origin / "checkpoints", partial, dirs_exist_ok=True)


def _finished_shorter_runs(
    folder: File, trial: Trial, lineage: str
) -> Iterator[tuple[float, File]]:
    """Yield budget and folder of each finished run of the lineage with a smaller budget."""
    for file in folder.parent.glob("*/trial.json"):
        shorter = file.parent
        if record.read_facts(shorter).get("lineage") != lineage:
            continue
        outcome = record.read_outcome(shorter)  # None where points or the outcome are damaged
        if outcome is None or outcome.state != "finished":
            continue
        try:
            amount = record.read_trial(shorter)[0].budget.amount
        except UserError:  # damaged
            continue
        if amount < trial.budget.amount and (shorter / "checkpoints").exists():
            yield amount, shorter
