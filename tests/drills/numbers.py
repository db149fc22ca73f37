"""Trials that go wrong by themselves: numbers that are none, and errors."""

import csv
import json
import shutil
from pathlib import Path
from typing import NamedTuple

from tests.drills.harness import SPACE, Drill, Place, Result, Sweep

_STEP = 200  # of some hundreds; not one at which the trial is scored


class Target(NamedTuple):
    """The trial that a fault is meant for.

    Attributes:
        name: width, learning rate and seed, as faults/sitecustomize.py writes them.
        number: its place in the table.
        fingerprint: its record's folder.
    """

    name: str
    number: str
    fingerprint: str


def diverged_for_good(place: Place) -> Result:
    """a repeat's weights become NaN at step 200

    Divergence says something about the setting, so its end is settled: the same command does not
    train it again, and the other trials are compared. A repeat, because a search trial that
    diverges may rightly change which setting its cell repeats.
    """
    target = _repeat(place)
    with place.sweep(**_fault(place, "nan", target)) as sweep:
        sweep.wait()
    _ended(place, sweep, target, "diverged", "is not finite at step ")
    return place.finish(sweep, but={target.number})


def diverged_by_accident(place: Place) -> Result:
    """a search's best trial becomes NaN once; then its record is deleted

    Training is bitwise repeatable, so a NaN that would not come again is the machine's fault. The
    lab cannot know, and keeps the record; a person who does deletes it, and the same command
    trains the trial again and must arrive where nothing had happened.
    """
    target = _best_of_search(place)
    with place.sweep(**_fault(place, "nan", target)) as sweep:
        sweep.wait()
    _ended(place, sweep, target, "diverged", "is not finite at step ")
    shutil.rmtree(place.storage / "trials" / target.fingerprint)
    return place.finish(sweep)


def raises_in_repeat(place: Place) -> Result:
    """a repeat raises once, at step 200"""
    return _raises(place, _repeat(place))


def raises_in_search(place: Place) -> Result:
    """a search's best trial raises once, at step 200"""
    return _raises(place, _best_of_search(place))


def _raises(place: Place, target: Target) -> Result:
    with place.sweep(**_fault(place, "raise", target)) as sweep:
        sweep.wait()
    _ended(place, sweep, target, "failed", "RuntimeError: the drill raises here")
    place.check("too many" not in sweep.out + sweep.err, "the reason is more than one line")
    return place.finish(sweep)


def _fault(place: Place, kind: str, target: Target) -> dict[str, object]:
    marker = place.folder / "done"
    return {"fault": kind, "trial": target.name, "step": _STEP, "marker": marker}


def _ended(place: Place, sweep: Sweep, target: Target, state: str, reason: str) -> None:
    """See that the sweep went on, and that record and output say how the trial ended."""
    assert (place.folder / "done").exists(), "the fault was never committed"
    place.check(sweep.status == 0, f"status {sweep.status}")
    place.check(reason in sweep.out, f"it is not told that the trial ended: {reason!r}")
    file = place.storage / "trials" / target.fingerprint / "outcome.json"
    outcome = json.loads(file.read_text())
    place.check(outcome["state"] == state, f"recorded as {outcome['state']}: {outcome['reason']}")
    place.check(reason in outcome["reason"], f"recorded as {outcome['reason']!r}")


def _repeat(place: Place) -> Target:
    return next(_target(row) for row in _trials(place.undisturbed) if row["role"] == "repeat")


def _best_of_search(place: Place) -> Target:
    """Return the trial whose setting its cell repeats."""
    rows = _trials(place.undisturbed)
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
