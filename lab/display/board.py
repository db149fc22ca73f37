"""State of a running sweep for display: counts, progress, compute and time left."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lab.config.experiment import Job
from lab.config.labels import label
from lab.config.metrics import Metric
from lab.config.results import MetricRow, Outcome, State
from lab.display.remaining import PhaseDurations, TrialProgress, total_time_left
from lab.formatting import format_duration, format_time_left
from lab.trials.progress import PhaseProgress

_RECENT = 8  # number of ended trials that are kept for display


def describe_settings(job: Job) -> str:
    """Return a job's compared and tuned values and its seed, as a short text."""
    parts = (label(job.cell | job.tuned, job.compared), f"seed {job.trial.seeds.init}")
    return ", ".join(part for part in parts if part)


@dataclass
class RunningTrial:
    """A trial, or a preparatory run, that occupies a slot.

    Attributes:
        number: number of the trial's job; empty for a preparatory run.
        settings: settings as a short text.
        since: time of its start, in seconds of the board's clock.
        progress: progress through the trial's phases.
        row: newest evaluation; empty before the first.
    """

    number: str
    settings: str
    since: float
    progress: TrialProgress
    row: MetricRow = field(default_factory=dict)


class Board:
    """Counts ended trials and keeps the progress of running ones.

    One thread may change the board while another reads it. The reader sees each trial as it was
    before or after a change.

    Args:
        metric: metric that ranks trials.
        clock: monotonic clock that returns seconds.

    Attributes:
        jobs: number of jobs of the sweep; 0 until the search is open.
        slots: number of trials that run at the same time.
        tasks: names of each trial's fine-tuning phases.
        running: running trials, by number of the job.
        preparing: running preparatory runs, by name of the record.
        preparatory_flops: FLOPs of the preparatory runs that have ended, each counted once.
        recent: newest ended jobs with their outcomes, the last at the end.
        phase: phase of the sweep itself; empty while only trials run.
        share: share of the phase that is done, from 0 to 1; None where it is unknown.
    """

    def __init__(self, metric: Metric, clock: Callable[[], float] = time.monotonic) -> None:
        self.metric, self._clock = metric, clock
        self.jobs, self.slots = 0, 1
        self.tasks: Sequence[str] = ()
        self.running: dict[int, RunningTrial] = {}
        self.preparing: dict[str, RunningTrial] = {}
        self.preparatory_flops = 0.0
        self._ended: dict[int, Outcome] = {}  # by number of the job
        self.recent: list[tuple[Job, Outcome]] = []
        self.phase = ""
        self.share: float | None = None
        self._durations, self._preparatory_durations = PhaseDurations(), PhaseDurations()
        self._began = self._phase_began = clock()

    def set_phase(self, phase: str, share: float | None = None) -> bool:
        """Set the phase of the sweep itself; return whether it differs from the phase before."""
        new = phase != self.phase
        if new:
            self._phase_began = self._clock()
        self.phase, self.share = phase, share
        return new

    def start(self, job: Job) -> None:
        """Add a job that has started in a slot."""
        now = self._clock()
        progress = TrialProgress(self._durations, now, self.tasks)
        self.running[job.number] = RunningTrial(
            str(job.number), describe_settings(job), now, progress
        )

    def start_preparatory(self, name: str, description: str) -> None:
        """Add a preparatory run that has started in a slot.

        Args:
            name: name of its record.
            description: its settings as a short text.
        """
        now = self._clock()
        progress = TrialProgress(self._preparatory_durations, now)
        self.preparing[name] = RunningTrial("", f"preparatory {description}", now, progress)

    def update_preparatory(self, name: str, progress: PhaseProgress) -> None:
        """Set the progress of a preparatory run."""
        self.preparing[name].progress.update(progress, self._clock())

    def end_preparatory(self, name: str, state: State) -> None:
        """Remove a preparatory run, which has ended or is a trial from now on."""
        ended = self.preparing.pop(name, None)
        if ended is not None and state == "finished":
            ended.progress.end(self._clock())

    def update(self, job: Job, progress: PhaseProgress) -> None:
        """Set the progress of a job's trial."""
        self.running[job.number].progress.update(progress, self._clock())

    def add_evaluation(self, job: Job, row: MetricRow) -> bool:
        """Set the newest evaluation of a job; return whether it differs from the one before."""
        running = self.running[job.number]
        new = running.row.get("spent/steps") != row["spent/steps"]
        running.row = row
        return new

    def describe_score(self, job: Job) -> str:
        """Return the newest score of a running job and its share of the budget, in one line."""
        row, budget = self.running[job.number].row, job.trial.budget
        share = min(1.0, row[f"spent/{budget.kind}"] / budget.amount)
        score = f"{row[self.metric.name]:.4f}" if self.metric.name in row else "no score"
        return f"{describe_settings(job)} at {share:.0%} of its budget: {self.metric.name} {score}"

    def end(self, job: Job, outcome: Outcome) -> None:
        """Count a job that has ended, now or in an earlier run of the sweep."""
        if (ended := self.running.pop(job.number, None)) and outcome.state == "finished":
            now = self._clock()
            ended.progress.end(now)
            self._durations.add("trial", now - ended.since)
        self._ended[job.number] = outcome
        self.recent = [*self.recent[1 - _RECENT :], (job, outcome)]

    @property
    def in_slots(self) -> list[RunningTrial]:
        """All running preparatory runs, then all running trials."""
        return [*list(self.preparing.values()), *list(self.running.values())]

    @property
    def states(self) -> Counter[str]:
        """Number of ended jobs, by state; `stopped` is the end at a rung of the search."""
        return Counter(outcome.state for outcome in list(self._ended.values()))

    @property
    def flops(self) -> float:
        """FLOPs of all training so far, each preparatory run counted once."""
        rows = [each.row for each in list(self.running.values()) if each.row]
        running = sum(row["spent/marginal_flops"] for row in rows)
        last = [outcome.rows[-1] for outcome in list(self._ended.values()) if outcome.rows]
        ended = sum(row["spent/marginal_flops"] for row in last)
        return ended + running + self.preparatory_flops

    @property
    def ended(self) -> int:
        """Number of jobs that have ended."""
        return self.states.total()

    @property
    def queued(self) -> int:
        """Number of jobs that have not started."""
        return max(0, self.jobs - self.ended - len(self.running))

    @property
    def seconds(self) -> float:
        """Seconds since the board was created."""
        return self._clock() - self._began

    def elapsed(self, running: RunningTrial) -> float:
        """Return the seconds since a running trial started."""
        return self._clock() - running.since

    def seconds_left(self, running: RunningTrial) -> float | None:
        """Return the estimated seconds that a trial has left, as `TrialProgress.seconds_left`."""
        return running.progress.seconds_left(self._clock())

    def describe_time_left(self) -> str:
        """Return the estimated time until all trials have ended, as text; empty where unknown."""
        now, running = self._clock(), self.in_slots
        rest = [each.progress.seconds_left(now) for each in running]
        whole = self._durations.mean("trial")
        if whole is None:  # no trial has ended in this run: take the longest of the running trials
            wholes = [
                now - each.since + max(0.0, seconds)
                for each, seconds in zip(running, rest, strict=True)
                if each.number and seconds is not None
            ]
            whole = max(wholes, default=None)
        return format_time_left(total_time_left(rest, self.queued, whole, self.slots))

    def headline(self) -> str:
        """Return counts by state, compute and time, in one line; empty until the jobs are known."""
        if not self.jobs:
            return ""
        states = [f"{count} {state}" for state, count in sorted(self.states.items())]
        count, flops = len(self.preparing), self.flops
        preparing = [f"{count} preparatory run{'s' * (count > 1)}"] if count else []
        parts = [*states, *preparing, f"{len(self.running)} running", f"{self.queued} queued"]
        parts += [
            f"{flops:.3g} FLOPs" if flops else "",
            format_duration(self.seconds),
            self.describe_time_left(),
        ]
        return " · ".join(part for part in parts if part)

    def describe_phase(self) -> str:
        """Return the sweep's own phase, its share and its duration so far; empty without one."""
        if not self.phase:
            return ""
        took = self._clock() - self._phase_began
        share = "" if self.share is None else f": {self.share:.0%}"
        rest = format_time_left(took / self.share - took) if self.share else ""
        return ", ".join(
            part for part in (f"{self.phase}{share}", format_duration(took), rest) if part
        )

    def describe_trial_phase(self, running: RunningTrial) -> str:
        """Return the phase of a trial and its share."""
        progress = running.progress.newest
        share = "" if progress.share is None else f" {progress.share:.0%}"
        return f"{progress.phase}{share}"

    def status(self) -> str:
        """Return the sweep's own phase, or the running trials, in one line."""
        if self.phase:
            return self.describe_phase()
        trials = [
            ", ".join(
                part
                for part in (
                    self._describe_running(each),
                    format_time_left(self.seconds_left(each)),
                )
                if part
            )
            for each in self.in_slots
        ]
        return "; ".join([*trials[:2], *([f"{len(trials) - 2} more"] if len(trials) > 2 else [])])

    def _describe_running(self, running: RunningTrial) -> str:
        return f"{running.settings}: {self.describe_trial_phase(running)}"
