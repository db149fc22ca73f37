"""What a trial reports: its state, the points of its curve, and how it ended."""

from dataclasses import dataclass
from typing import Literal

State = Literal["queued", "running", "finished", "stopped", "diverged", "failed", "interrupted"]
MetricRow = dict[str, float]  # one scored point of a curve: `spent/*` and metrics, by name


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a job ended.

    Attributes:
        state: `finished` has a score, the others a reason.
        reason: one line; of a finished trial, which shorter run it went on from, if it did.
        rows: the curve, from the untrained encoder (step 0) to the end.
        began: Unix time at which the trial took its slot.
        seconds: it held the slot, set-up included.
        busy: seconds of these that went into training or scoring.
        device: what it was computed on.
        shared: whether other trials used the device too, so that its seconds say little.
        tries: how often it has been tried, this and earlier ones that failed.
        traceback: traceback of the exception that ended a failed trial; empty otherwise, and where
            the trial's process died.
    """

    state: State
    reason: str
    rows: tuple[MetricRow, ...]
    began: float
    seconds: float
    busy: float
    device: str = ""
    shared: bool = False
    tries: int = 1
    traceback: str = ""
