"""Jobs that wait until the preparatory runs that they start from have ended."""

from collections.abc import Callable, Container
from pathlib import Path as File
from typing import NamedTuple

from lab.config.experiment import Job
from lab.config.preparatory_runs import preparatory_runs
from lab.config.results import Outcome, State
from lab.config.trial import Trial
from lab.trials.assignment import Assignment


class FailedRun(NamedTuple):
    """A preparatory run without weights to start from.

    Attributes:
        name: of its record.
        state: `failed` or `diverged`.
        reason: one line.
    """

    name: str
    state: State
    reason: str


class PreparatoryQueue:
    """Holds jobs back, and names the runs that have to be trained for them, each once.

    Args:
        work: makes work of a preparatory run.
        ended: returns how the run recorded in a folder ended; None where it has yet to run.
        running: folders of the records of what runs now.
    """

    def __init__(
        self,
        work: Callable[[Trial], Assignment],
        ended: Callable[[File], Outcome | None],
        running: Container[File],
    ) -> None:
        self._work, self._ended, self._running = work, ended, running
        self._waiting: list[Job] = []
        self._used: dict[File, Outcome] = {}

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._waiting)

    def holds(self, job: Job) -> bool:
        """Return whether a job has to wait; it is then kept until it is `released`."""
        waits = bool(self._missing(job))
        if waits:
            self._waiting.append(job)
        return waits

    def released(self) -> Job | None:
        """Return a job whose preparatory runs have all ended, and keep it no longer."""
        job = next((job for job in self._waiting if not self._missing(job)), None)
        if job is not None:
            self._waiting.remove(job)
        return job

    def next(self) -> Assignment | None:
        """Return a run that a waiting job needs and that does not run yet."""
        missing = (work for job in self._waiting for work in self._missing(job))
        return next((work for work in missing if work.folder not in self._running), None)

    def lost(self, trial: Trial) -> FailedRun | None:
        """Return a run without which a trial cannot start, now that all of them have ended."""
        for work in self._works(trial):
            outcome = self._used[work.folder]
            if outcome.state != "finished":
                return FailedRun(work.folder.name, outcome.state, outcome.reason)
        return None

    @property
    def flops(self) -> float:
        """FLOPs of the runs that jobs have started from, each counted once."""
        rows = [outcome.rows[-1] for outcome in self._used.values() if outcome.rows]
        return sum(row["spent/flops"] for row in rows)

    def measures(self) -> dict[str, float]:
        """Return what the runs have cost that jobs have started from, each counted once."""
        if not self._used:
            return {}
        return {
            "preparatory_runs": len(self._used),
            "preparatory_flops": self.flops,
            "preparatory_slot_seconds": sum(outcome.seconds for outcome in self._used.values()),
        }

    def _works(self, trial: Trial) -> list[Assignment]:
        return [self._work(run) for run in dict.fromkeys(preparatory_runs(trial).values())]

    def _missing(self, job: Job) -> list[Assignment]:
        """Return the runs that have yet to end, and note those that have."""
        missing = []
        for work in self._works(job.trial):
            outcome = self._ended(work.folder)
            if outcome is None:
                missing.append(work)
            else:
                self._used[work.folder] = outcome
        return missing
