"""Extend a finished run: a trial continues from a shorter run that begins exactly as the trial.

The beginning of a longer run equals a shorter one only if the schedule does not depend on the
budget: a constant learning rate, after a warm-up of a fixed amount of compute if there is one, and
an objective without stages. A trial whose cooldown does depend on its budget continues from the
trunk that ends where the cooldown starts (`lab.config.schedules.trunks`).
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path as File

from lab.config.results import MetricRow
from lab.errors import UserError
from lab.storage import atomic, provenance, record
from lab.storage.record import Origin
from lab.trials.assignment import Assignment


def extend_from_shorter_run(
    work: Assignment, may_extend: Callable[[File], bool] = lambda _: True
) -> None:
    """Copy curve and checkpoints of the longest finished shorter run of a lineage into a record.

    A record with checkpoints, and a trial that cannot be extended, are left unchanged.

    Args:
        work: trial with its record, which is in the folder of all records.
        may_extend: function that returns whether the run of a record may be extended.
    """
    if not work.trial.extendable and work.trial.trunk is None:
        return
    work.mirror.pull(work.folder / "checkpoints")
    if (work.folder / "checkpoints").exists():
        return
    for _, folder in sorted(_finished_shorter_runs(work), reverse=True):
        if may_extend(folder):
            work.mirror.pull(folder)
            if (folder / "checkpoints").exists():
                _copy(work, folder)
                return


def _copy(work: Assignment, source: File) -> None:
    """Copy the state of a run into the record of a trial that continues it."""
    rows = record.read_curve(source)
    origin = Origin(name=source.name, charged_flops=_charge(work, source, rows))
    # The fine-tuning scores of the shorter run's encoder are not scores of the longer run.
    own_rows = (_without_charged(row, work, origin.charged_flops) for row in rows)
    record.write_rows(work.folder, own_rows, without=("finetune",))
    record.write_blocks(work.folder, record.read_untrained_blocks(source))
    record.write_origin(work.folder, origin)
    provenance.add_provenance(work.folder, *provenance.read_provenance(source))
    # Last: an interrupted extension is repeated, unless the record has checkpoints.
    with atomic.write_folder(work.folder / "checkpoints") as partial:
        shutil.copytree(source / "checkpoints", partial, dirs_exist_ok=True)
    work.mirror.push(work.folder)


def _own_flops(row: MetricRow, work: Assignment) -> float:
    """Return the FLOPs of a run without those of the runs that its initial weights are from."""
    return row.get("spent/flops", 0.0) - work.charged.flops


def _without_charged(row: MetricRow, work: Assignment, charged_flops: float) -> MetricRow:
    """Return a point without marginal FLOPs for which other trials are charged."""
    if "spent/flops" not in row:
        return row
    return row | {"spent/marginal_flops": max(0.0, _own_flops(row, work) - charged_flops)}


def _charge(work: Assignment, source: File, rows: tuple[MetricRow, ...]) -> float:
    """Return the FLOPs of a run for which other trials are charged.

    A shorter trial is charged for its own run. A trial that branches from a trunk is charged for
    those parts of it that no trial was charged for before.
    """
    if work.trial.trunk is None:
        return _own_flops(rows[-1], work)
    for part in _parts(source):
        if record.read_charged(part) not in ("", work.folder.name):
            return _own_flops(record.read_curve(part)[-1], work)
        record.write_charged(part, work.folder.name)
        work.mirror.push(part / record.CHARGED)
    return 0.0


def _parts(trunk: File) -> Iterator[File]:
    """Yield the records of the parts of a trunk, longest first, as far as they exist."""
    part = trunk
    while record.read_curve(part):
        yield part
        if not (name := record.read_origin(part).name):
            return
        part = trunk.parent / name


def _finished_shorter_runs(work: Assignment) -> Iterator[tuple[float, File]]:
    """Yield budget and folder of each finished run of the lineage that a trial can continue."""
    trunk = work.trial.trunk
    for file in work.folder.parent.glob("*/trial.json"):
        shorter = file.parent
        if record.read_facts(shorter).get("lineage") != work.lineage:
            continue
        outcome = record.read_outcome(shorter)  # None where points or the outcome are damaged
        if outcome is None or outcome.state != "finished":
            continue
        try:
            other, _ = record.read_trial(shorter)
        except UserError:  # damaged, or of another version
            continue
        amount = other.budget.amount
        ends_before = amount < work.trial.budget.amount
        if other.extendable and (ends_before if trunk is None else amount <= trunk.budget.amount):
            yield amount, shorter
