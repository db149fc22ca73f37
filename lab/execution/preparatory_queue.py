"""Queue of the jobs that wait for the preparatory runs that their trials start from.

These are mlm runs that provide a trial's initial weights, and the parts of a branch's trunk, which
are trained one after another.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path as File
from typing import NamedTuple

from lab.config.experiment import Job, Role
from lab.config.preparatory_runs import preparatory_runs
from lab.config.results import Outcome, State
from lab.config.schedules.trunks import trunk_parts
from lab.config.trial import Trial
from lab.storage import record
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
        branch_points: budgets at which trials of the sweep leave their trunks, by role of the job
            that needs a trunk (`designs.find_branch_points`).
        has_ended: function that returns whether a job's trial has ended, so that it needs no trunk.
    """

    def __init__(
        self,
        build_assignment: Callable[[Trial], Assignment],
        read_outcome: Callable[[File], Outcome | None],
        running: Container[File],
        branch_points: Mapping[Role, Sequence[float]],
        has_ended: Callable[[Job], bool] = lambda _: False,
    ) -> None:
        self._build_assignment, self._read_outcome = build_assignment, read_outcome
        self._running, self._branch_points = running, branch_points
        self._has_ended = has_ended
        self._assignments: dict[Trial, Assignment] = {}
        self._parts: set[File] = set()  # records of parts of trunks
        self._waiting: list[Job] = []
        self._used: dict[File, Outcome] = {}

    @property
    def waiting(self) -> int:
        """Number of jobs held back."""
        return len(self._waiting)

    def hold_if_unready(self, job: Job) -> bool:
        """Hold a job back while a preparatory run of it has to end; return whether it is held."""
        unready = bool(self._missing(job)) and not self._has_ended(job)
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

    def failed_run(self, job: Job) -> FailedRun | None:
        """Return a preparatory run of a job that did not finish; None where all have finished.

        All preparatory runs of the job must have ended. Of a trunk, the longest part that has
        ended decides.
        """
        ended = [run for run in self._runs(job) if run.folder in self._used]
        for run in ended if job.trial.trunk is None else ended[-1:]:
            outcome = self._used[run.folder]
            if outcome.state != "finished":
                return FailedRun(run.folder.name, outcome.state, outcome.reason)
        return None

    @property
    def flops(self) -> float:
        """FLOPs of all ended preparatory runs for which no trial is charged, each counted once."""
        uncharged = (run for folder, run in self._used.items() if not record.read_charged(folder))
        return sum(map(_own_flops, uncharged))

    def measures(self) -> dict[str, float]:
        """Return number, FLOPs and slot seconds of mlm runs and of trunks, by metric.

        Of the parts of trunks, the FLOPs for which no trial is charged are counted too. Metrics of
        a kind of run are missing if there is none of it.
        """
        parts = {folder: run for folder, run in self._used.items() if folder in self._parts}
        others = [run for folder, run in self._used.items() if folder not in parts]
        measures = _measure("preparatory", others) | _measure("trunk", list(parts.values()))
        # A sum of floats in another order may be smaller by rounding.
        uncharged = max(0.0, self.flops - measures.get("preparatory_flops", 0.0))
        return measures | ({"trunk_uncharged_flops": uncharged} if uncharged else {})

    def _runs(self, job: Job) -> list[Assignment]:
        parts = trunk_parts(job.trial, self._branch_points[job.role])
        runs = dict.fromkeys((*preparatory_runs(job.trial).values(), *parts))
        for run in runs:
            if run not in self._assignments:
                self._assignments[run] = self._build_assignment(run)
        self._parts.update(self._assignments[part].folder for part in parts)
        return [self._assignments[run] for run in runs]

    def _missing(self, job: Job) -> list[Assignment]:
        """Return a job's preparatory runs that have to end and may run now.

        The outcomes of the ended ones are stored.
        """
        runs = self._runs(job)
        for run in runs:
            known = self._used.get(run.folder)
            if known is not None and known.state == "finished":
                continue
            if (outcome := self._read_outcome(run.folder)) is not None:
                self._used[run.folder] = outcome
        if job.trial.trunk is not None:
            return self._next_part(runs)
        return [run for run in runs if run.folder not in self._used]

    def _next_part(self, parts: Sequence[Assignment]) -> list[Assignment]:
        """Return the part after the longest one that has ended, if that one has finished."""
        following: list[Assignment] = []
        for part in reversed(parts):
            ended = self._used.get(part.folder)
            if ended is not None:
                return following if ended.state == "finished" else []
            following = [part]
        return following


def _own_flops(run: Outcome) -> float:
    """Return the FLOPs of a run without those of the part of a trunk that it extends."""
    if not run.rows:
        return 0.0
    return run.rows[-1].get("spent/marginal_flops", run.rows[-1]["spent/flops"])


def _measure(kind: str, runs: Sequence[Outcome]) -> dict[str, float]:
    if not runs:
        return {}
    return {
        f"{kind}_runs": len(runs),
        f"{kind}_flops": sum(map(_own_flops, runs)),
        f"{kind}_slot_seconds": sum(run.seconds for run in runs),
    }
