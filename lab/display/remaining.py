"""Estimated time left of trials, from the durations of earlier phases of the same sweep.

An estimate is updated with each progress report of a trial. It is negative where a phase takes
longer than expected; the display then shows a text instead of a time.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from lab.trials.progress import TRAINED, TRAINING, UNTRAINED, PhaseProgress


class PhaseDurations:
    """Durations of the trials' phases in this sweep, in seconds."""

    def __init__(self) -> None:
        self._known: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, phase: str, seconds: float) -> None:
        """Add the duration of a complete phase."""
        self._known[phase].append(seconds)

    def mean(self, *phases: str) -> float | None:
        """Return the mean duration of the first of `phases` with a known one; None without any."""
        return next((fmean(self._known[name]) for name in phases if name in self._known), None)


@dataclass(frozen=True)
class _Report:
    """A progress report and its time, in seconds."""

    time: float
    progress: PhaseProgress


class TrialProgress:
    """Progress of a running trial through its phases.

    Args:
        durations: durations of the sweep's phases; each phase of the trial is added at its end.
        began: time at which the trial started in its slot, in seconds.
        tasks: names of the fine-tuning phases that follow training.
    """

    def __init__(self, durations: PhaseDurations, began: float, tasks: Sequence[str] = ()) -> None:
        self._durations, self._tasks = durations, tuple(tasks)
        report = _Report(began, PhaseProgress(phase="starting"))
        self._reports = report, report  # the first and the newest report of the current phase

    @property
    def newest(self) -> PhaseProgress:
        """Newest report."""
        return self._reports[1].progress

    def update(self, progress: PhaseProgress, now: float) -> None:
        """Add a progress report; a report equal to the newest one has no effect."""
        first, newest = self._reports
        if progress == newest.progress:
            return
        report = _Report(now, progress)
        if progress.phase == newest.progress.phase:
            self._reports = first, report
        else:
            self.end(now)
            self._reports = report, report

    def seconds_left(self, now: float) -> float | None:
        """Return the estimated seconds to the trial's end.

        Returns:
            A negative number where the estimate is exceeded; None where no estimate is possible
            yet.
        """
        present = self._seconds_left_of_phase(now)
        rest = [self._durations.mean(*names) for names in self._later_phases()]
        if present is None or None in rest:
            return None
        later = sum(seconds for seconds in rest if seconds is not None)
        return max(0.0, present) + later if later else present

    def end(self, now: float) -> None:
        """Add the duration of the current phase, which has ended, to the sweep's durations."""
        first, _ = self._reports
        done = 1.0 - (first.progress.share or 0.0)
        if done > 0:  # the duration of a phase continued from a checkpoint is extrapolated
            self._durations.add(first.progress.phase, (now - first.time) / done)

    def _seconds_left_of_phase(self, now: float) -> float | None:
        first, newest = self._reports
        gained = (newest.progress.share or 0.0) - (first.progress.share or 0.0)
        if gained > 0:
            whole = (newest.time - first.time) / gained
        else:
            mean = self._durations.mean(*_similar_phases(first.progress.phase))
            if mean is None:
                return None
            whole = mean
        return (1.0 - (newest.progress.share or 0.0)) * whole - (now - newest.time)

    def _later_phases(self) -> list[tuple[str, ...]]:
        """Return the phases after the current one, each with phases of a similar duration."""
        order = [UNTRAINED, TRAINING, TRAINED, *self._tasks]
        phase = self.newest.phase
        later = order[order.index(phase) + 1 :] if phase in order else order
        return [_similar_phases(name) for name in later]


def _similar_phases(phase: str) -> tuple[str, ...]:
    """Return the phases that can predict the duration of a phase, the best predictor first."""
    return {TRAINED: (TRAINED, UNTRAINED), UNTRAINED: (UNTRAINED, TRAINED)}.get(phase, (phase,))


def total_time_left(
    running: Sequence[float | None], queued: int, whole: float | None, slots: int
) -> float | None:
    """Return the estimated seconds until all trials have ended; None where it is unknown.

    Args:
        running: seconds that each running trial has left; None where they are unknown.
        queued: number of trials that have not started.
        whole: seconds of a whole trial; None where they are unknown.
        slots: number of trials that run at the same time.
    """
    known = [seconds for seconds in running if seconds is not None]
    if len(known) < len(running) or (queued and whole is None) or not (known or queued):
        return None
    work = sum(max(0.0, seconds) for seconds in known) + queued * (whole or 0.0)
    return max([work / slots, *known]) if work else max(known)
