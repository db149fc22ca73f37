"""Result of a trial: its state, its scores at each evaluation, and its resource use."""

from dataclasses import dataclass
from typing import Literal

State = Literal[
    "queued", "running", "finished", "stopped", "diverged", "failed", "interrupted", "infeasible"
]
MetricRow = dict[str, float]  # one evaluation: `spent/*` and metrics, by name


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of one trial.

    Attributes:
        state: final state; a `finished` trial has a score, any other state has a reason. A trial is
            `infeasible` in a sweep if it violates a constraint of it, and `stopped` if it ended at
            a rung of successive halving; no record has these states.
        reason: explanation of the state in one line; for a finished trial, the shorter run that it
            was extended from, or empty.
        rows: evaluations from the untrained encoder (step 0) to the end.
        started_at: Unix time at which the trial occupied its slot.
        seconds: time in the slot, set-up included.
        busy: part of `seconds` that was spent on training or scoring.
        device: name of the device that the trial ran on.
        shared: whether other trials used the device too; their load distorts `seconds` then.
        attempts: number of attempts, this one and earlier failed ones.
        traceback: traceback of the exception that ended a failed trial; empty otherwise, and where
            the process of the trial died.
    """

    state: State
    reason: str
    rows: tuple[MetricRow, ...]
    started_at: float
    seconds: float
    busy: float
    device: str = ""
    shared: bool = False
    attempts: int = 1
    traceback: str = ""
