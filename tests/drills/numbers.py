"""Faults inside a trial: weights that become NaN, and exceptions."""

import csv
import json
import shutil
from pathlib import Path
from typing import NamedTuple

from tests.drills.harness import SPACE, Drill, Workspace, Result, Sweep

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


def diverged_for_good(place: Workspace) -> Result:
    """a repeat's weights become NaN at step 200

    Divergence is a result of the setting, so the same command does not train the trial again. The
    other trials are compared. The trial is a repeat, because a diverged search trial can change the
    setting that its cell repeats.
    """
    target = _repeat(place)
    with place.sweep(**_fault(place, "nan", target)) as sweep:
        sweep.wait()
    _check_end(place, sweep, target, "diverged", "is not finite at step ")
    return place.finish(sweep, but={target.number})


def diverged_by_accident(place: Workspace) -> Result:
    """the weights of a search's best trial become NaN once; then its record is deleted

    Training is bitwise repeatable, so a NaN that does not occur again is a fault of the machine. The
    lab cannot detect this and keeps the record. After a user deletes the record, the same command
    trains the trial again, and the result must be that of a sweep without the fault.
    """
    target = _best_of_search(place)
    with place.sweep(**_fault(place, "nan", target)) as sweep:
        sweep.wait()
    _check_end(place, sweep, target, "diverged", "is not finite at step ")
    shutil.rmtree(place.storage / "trials" / target.fingerprint)
    return place.finish(sweep)


def raises_in_repeat(place: Workspace) -> Result:
    """a repeat raises an exception once, at step 200"""
    return _raises(place, _repeat(place))


def raises_in_search(place: Workspace) -> Result:
    """a search's best trial raises an exception once, at step 200"""
    return _raises(place, _best_of_search(place))


def _raises(place: Workspace, target: Target) -> Result:
    with place.sweep(**_fault(place, "raise", target)) as sweep:
        sweep.wait()
    _check_end(place, sweep, target, "failed", "RuntimeError: the drill raises here")
    place.check("too many" not in sweep.out + sweep.err, "the reason is more than one line")
    return place.finish(sweep)


def _fault(place: Workspace, kind: str, target: Target) -> dict[str, object]:
    marker = place.folder / "done"
    return {"fault": kind, "trial": target.name, "step": _STEP, "marker": marker}


def _check_end(place: Workspace, sweep: Sweep, target: Target, state: str, reason: str) -> None:
    """Check that the sweep continued, and that record and output have the state and the reason."""
    assert (place.folder / "done").exists(), "the fault was not injected"
    place.check(sweep.status == 0, f"status {sweep.status}")
    place.check(reason in sweep.out, f"the output does not contain {reason!r}")
    file = place.storage / "trials" / target.fingerprint / "outcome.json"
    outcome = json.loads(file.read_text())
    place.check(outcome["state"] == state, f"recorded as {outcome['state']}: {outcome['reason']}")
    place.check(reason in outcome["reason"], f"recorded as {outcome['reason']!r}")


def _repeat(place: Workspace) -> Target:
    return next(_target(row) for row in _trials(place.reference) if row["role"] == "repeat")


def _best_of_search(place: Workspace) -> Target:
    """Return a search trial with the setting that its cell repeats."""
    rows = _trials(place.reference)
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
