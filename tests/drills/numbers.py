"""Faults inside a trial: weights that become NaN, and exceptions."""

import csv
import json
import shutil
from pathlib import Path
from typing import NamedTuple

from tests.drills.harness import SPACE, Drill, Result, Sweep, Workspace

_STEP = 200  # of some hundred steps; the trial is not scored at this step


class Target(NamedTuple):
    """The trial in which a fault is injected.

    Attributes:
        name: generator width, learning rate and seed, in the format of faults/sitecustomize.py.
        number: number of the trial in the table.
        fingerprint: name of the trial, and of its record's folder.
    """

    name: str
    number: str
    fingerprint: str


def diverged_for_good(workspace: Workspace) -> Result:
    """a repeat's weights become NaN at step 200

    Divergence is a result of the setting, so the same command does not train the trial again. The
    other trials are compared. The trial is a repeat, because a diverged search trial can change the
    setting that its cell repeats.
    """
    target = _repeat(workspace)
    with workspace.sweep(**_fault(workspace, "nan", target)) as sweep:
        sweep.wait()
    _check_end(workspace, sweep, target, "diverged", "is not finite at step ")
    return workspace.finish(sweep, but={target.number})


def diverged_by_accident(workspace: Workspace) -> Result:
    """the weights of a search's best trial become NaN once; then its record is deleted

    Training is bitwise repeatable, so a NaN that does not occur again is a fault of the machine.
    The lab cannot detect this and keeps the record. After a user deletes the record, the same
    command trains the trial again, and the result must be that of a sweep without the fault.
    """
    target = _best_of_search(workspace)
    with workspace.sweep(**_fault(workspace, "nan", target)) as sweep:
        sweep.wait()
    _check_end(workspace, sweep, target, "diverged", "is not finite at step ")
    shutil.rmtree(workspace.storage / "trials" / target.fingerprint)
    return workspace.finish(sweep)


def raises_in_repeat(workspace: Workspace) -> Result:
    """a repeat raises an exception once, at step 200"""
    return _raises(workspace, _repeat(workspace))


def raises_in_search(workspace: Workspace) -> Result:
    """a search's best trial raises an exception once, at step 200"""
    return _raises(workspace, _best_of_search(workspace))


def _raises(workspace: Workspace, target: Target) -> Result:
    with workspace.sweep(**_fault(workspace, "raise", target)) as sweep:
        sweep.wait()
    _check_end(workspace, sweep, target, "failed", "RuntimeError: the drill raises here")
    workspace.check(
        "must not be shown" not in sweep.out + sweep.err, "the reason is more than one line"
    )
    return workspace.finish(sweep)


def _fault(workspace: Workspace, kind: str, target: Target) -> dict[str, object]:
    marker = workspace.folder / "done"
    return {"fault": kind, "trial": target.name, "step": _STEP, "marker": marker}


def _check_end(workspace: Workspace, sweep: Sweep, target: Target, state: str, reason: str) -> None:
    """Check that the sweep continued, and that record and output have the state and the reason."""
    assert (workspace.folder / "done").exists(), "the fault was not injected"
    expected = 1 if state == "failed" else 0
    workspace.check(sweep.status == expected, f"status {sweep.status}")
    workspace.check(reason in sweep.out, f"the output does not contain {reason!r}")
    file = workspace.storage / "trials" / target.fingerprint / "outcome.json"
    outcome = json.loads(file.read_text())
    workspace.check(
        outcome["state"] == state, f"recorded as {outcome['state']}: {outcome['reason']}"
    )
    workspace.check(reason in outcome["reason"], f"recorded as {outcome['reason']!r}")


def _repeat(workspace: Workspace) -> Target:
    return next(_target(row) for row in _trials(workspace.reference) if row["role"] == "repeat")


def _best_of_search(workspace: Workspace) -> Target:
    """Return a search trial with the setting that its cell repeats."""
    rows = _trials(workspace.reference)
    repeat = next(row for row in rows if row["role"] == "repeat")
    return next(
        _target(row)
        for row in rows
        if row["role"] == "search" and row["cell"] == repeat["cell"]
        if row["tuned"] == repeat["tuned"]
    )


def _target(row: dict[str, str]) -> Target:
    parts = (row["objective.generator.width"], row["optim.lr"], row["seeds.init"])
    return Target(" ".join(parts), row["number"], row["fingerprint"])


def _trials(folder: Path) -> list[dict[str, str]]:
    with (folder / "reports" / SPACE.stem / "trials.csv").open(newline="") as opened:
        return list(csv.DictReader(opened))


DRILLS: dict[str, Drill] = {
    "diverged": diverged_for_good,
    "diverged-once": diverged_by_accident,
    "raises-in-repeat": raises_in_repeat,
    "raises-in-search": raises_in_search,
}
