"""Queue of the jobs that wait for the preparatory runs that their trials start from."""

from collections.abc import Callable, Container
from pathlib import Path as File
from typing import NamedTuple

from lab.config.experiment import Job
from lab.config.preparatory_runs import preparatory_runs
from lab.config.results import Outcome, State
from lab.config.trial import Trial
from lab.trials.assignment import Assignment


class FailedRun(NamedTuple):
    """A preparatory run that ended without weights to start from.

    Attributes:
        name: name of its record.
        state: state in which it ended: any but `finished`.
        reason: reason in one line.
    """

    name: str
    state: State
    reason: str


class PreparatoryQueue:
    """Holds jobs back until their preparatory runs have ended, and returns these runs, each once.

    Args:
        build_assignment: function that returns the assignment of a preparatory run.
        read_outcome: function that returns the outcome of the run recorded in a folder; None where
            it has to run.
        running: folders of the records of all trials that are running.
    """

    def __init__(
        self,
        build_assignment: Callable[[Trial], Assignment],
        read_outcome: Callable[[File], Outcome | None],
        running: Container[File],
    ) -> None:
        self._build_assignment, self._read_outcome = build_assignment, read_outcome
        self._running = running
        self._waiting: list[Job] = []
        self._used: dict[File, Outcome] = {}

    @property
    def waiting(self) -> int:
        """Number of jobs held back."""
        return len(self._waiting)

    def hold_if_unready(self, job: Job) -> bool:
        """Hold a job back while a preparatory run of it has to end; return whether it is held."""
        unready = bool(self._missing(job))
        if unready:
            self._waiting.append(job)
        return unready

    def pop_ready(self) -> Job | None:
        """Remove and return a job with no preparatory run left to end; None without one."""
        job = next((job for job in self._waiting if not self._missing(job)), None)
        if job is not None:
            self._waiting.remove(job)
        return job

    def next_run(self) -> Assignment | None:
        """Return a preparatory run that a waiting job needs and that is not running; else None."""
        missing = (run for job in self._waiting for run in self._missing(job))
        return next((run for run in missing if run.folder not in self._running), None)

    def failed_run(self, trial: Trial) -> FailedRun | None:
        """Return a preparatory run of a trial that did not finish; None where all have finished.

        All preparatory runs of the trial must have ended.
        """
        for run in self._runs(trial):
            outcome = self._used[run.folder]
            if outcome.state != "finished":
                return FailedRun(run.folder.name, outcome.state, outcome.reason)
        return None

    @property
    def flops(self) -> float:
        """FLOPs of all ended preparatory runs that jobs start from, each counted once."""
        rows = [outcome.rows[-1] for outcome in self._used.values() if outcome.rows]
        return sum(row["spent/flops"] for row in rows)

    def measures(self) -> dict[str, float]:
        """Return number, FLOPs and slot seconds of these runs, by metric; empty without any."""
        if not self._used:
            return {}
        return {
            "preparatory_runs": len(self._used),
            "preparatory_flops": self.flops,
            "preparatory_slot_seconds": sum(outcome.seconds for outcome in self._used.values()),
        }

    def _runs(self, trial: Trial) -> list[Assignment]:
        runs = dict.fromkeys(preparatory_runs(trial).values())
        return [self._build_assignment(run) for run in runs]

    def _missing(self, job: Job) -> list[Assignment]:
        """Return a job's preparatory runs that have not ended; store the outcomes of the others."""
        missing = []
        for run in self._runs(job.trial):
            outcome = self._read_outcome(run.folder)
            if outcome is None:
                missing.append(run)
            else:
                self._used[run.folder] = outcome
        return missing
