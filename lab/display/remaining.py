"""How long trials still take, by what their phases took in this sweep.

An estimate follows what a trial reports. Where a phase takes longer than earlier ones did, that
is said instead of a time.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from lab.trials.progress import TRAINED, TRAINING, UNTRAINED, PhaseProgress


class PhaseDurations:
    """What phases of trials took in this sweep, in seconds."""

    def __init__(self) -> None:
        self._known: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, phase: str, seconds: float) -> None:
        """Count a whole phase in."""
        self._known[phase].append(seconds)

    def mean(self, *phases: str) -> float | None:
        """Return the mean of the first of `phases` that is known."""
        return next((fmean(self._known[name]) for name in phases if name in self._known), None)


@dataclass(frozen=True)
class _Seen:
    """A report and its time, in seconds."""

    at: float
    progress: PhaseProgress


class TrialProgress:
    """A running trial's way through its phases.

    Args:
        durations: of the sweep, which each ended phase is added to.
        began: time at which the trial got its slot, in seconds.
        tasks: phases of fine-tuning that follow training.
    """

    def __init__(self, durations: PhaseDurations, began: float, tasks: Sequence[str] = ()) -> None:
        self._durations, self._tasks = durations, tuple(tasks)
        seen = _Seen(began, PhaseProgress(phase="starting"))
        self._seen = seen, seen  # the first and the last report of the present phase

    @property
    def progress(self) -> PhaseProgress:
        """The last report."""
        return self._seen[1].progress

    def moved(self, progress: PhaseProgress, now: float) -> None:
        """Take a report in."""
        first, last = self._seen
        if progress == last.progress:
            return
        seen = _Seen(now, progress)
        if progress.phase == last.progress.phase:
            self._seen = first, seen
        else:
            self.end(now)
            self._seen = seen, seen

    def left(self, now: float) -> float | None:
        """Return seconds to the end, negative where overdue; None where nothing is known yet."""
        present = self._left_of_phase(now)
        rest = [self._durations.mean(*names) for names in self._to_come()]
        if present is None or None in rest:
            return None
        later = sum(seconds for seconds in rest if seconds is not None)
        return max(0.0, present) + later if later else present

    def end(self, now: float) -> None:
        """Count the present phase in, which has ended as it should."""
        first, _ = self._seen
        done = 1.0 - (first.progress.share or 0.0)
        if done > 0:  # a phase that went on from a checkpoint counts as if it had been whole
            self._durations.add(first.progress.phase, (now - first.at) / done)

    def _left_of_phase(self, now: float) -> float | None:
        first, last = self._seen
        gained = (last.progress.share or 0.0) - (first.progress.share or 0.0)
        if gained > 0:
            whole = (last.at - first.at) / gained
        else:
            known = self._durations.mean(*_alike(first.progress.phase))
            if known is None:
                return None
            whole = known
        return (1.0 - (last.progress.share or 0.0)) * whole - (now - last.at)

    def _to_come(self) -> list[tuple[str, ...]]:
        """Return the phases after the present one, each with others that take about as long."""
        order = [UNTRAINED, TRAINING, TRAINED, *self._tasks]
        phase = self.progress.phase
        later = order[order.index(phase) + 1 :] if phase in order else order
        return [_alike(name) for name in later]


def _alike(phase: str) -> tuple[str, ...]:
    """Return phases from which the duration of one can be taken, the best first."""
    return {TRAINED: (TRAINED, UNTRAINED), UNTRAINED: (UNTRAINED, TRAINED)}.get(phase, (phase,))


def total_time_left(
    running: Sequence[float | None], queued: int, whole: float | None, slots: int
) -> float | None:
    """Return seconds until all trials have ended; None where one of them is not known yet.

    Args:
        running: seconds that each running trial has left.
        queued: trials that wait for a slot.
        whole: seconds of one trial.
        slots: trials that run at once.
    """
    known = [seconds for seconds in running if seconds is not None]
    if len(known) < len(running) or (queued and whole is None) or not (known or queued):
        return None
    work = sum(max(0.0, seconds) for seconds in known) + queued * (whole or 0.0)
    return max([work / slots, *known]) if work else max(known)
