"""Find the trials of a storage by the FLOPs that they are trained for."""

from collections.abc import Iterator, Mapping
from pathlib import Path as File
from typing import Any, NamedTuple

from lab.storage import record


class TrainedTrial(NamedTuple):
    """A trial whose training has begun.

    Attributes:
        name: name of its record.
        settings: the trial as in `trial.json`.
    """

    name: str
    settings: Mapping[str, Any]


def find_trained(storage: File, least: float) -> Iterator[TrainedTrial]:
    """Yield the trials whose training has begun and which end at `least` FLOPs or more.

    A trial whose budget is in other units counts by the FLOPs that it has spent so far.

    Args:
        storage: local folder of the storage; it may not exist.
        least: smallest number of FLOPs.
    """
    for file in sorted((storage / "trials").glob("*/trial.json")):
        settings = record.read_facts(file.parent).get("trial")
        rows = record.read_curve(file.parent)
        has_begun = bool(rows) or record.read_state(file.parent) not in (None, "queued")
        if isinstance(settings, dict) and has_begun:
            spent = max((row.get("spent/flops", 0.0) for row in rows), default=0.0)
            if max(spent, _flops(settings)) >= least:
                yield TrainedTrial(file.parent.name, settings)


def _flops(settings: Mapping[str, Any]) -> float:
    """Return the budget of a trial in FLOPs; 0 if it is in other units."""
    match settings.get("budget"):
        case {"kind": "flops", "amount": int(amount) | float(amount)}:
            return float(amount)
    return 0.0
