"""The state of a sweep as figures: what a display shows of it."""

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

_RECENT = 8  # ended trials that are kept for display


def describe_settings(job: Job) -> str:
    """Return a job's settings in a few words."""
    parts = (label(job.cell | job.tuned, job.compared), f"seed {job.trial.seeds.init}")
    return ", ".join(part for part in parts if part)


@dataclass
class RunningTrial:
    """A trial, or a preparatory run, that has its slot.

    Attributes:
        number: of the trial's job; empty for a preparatory run.
        settings: in a few words.
        since: when it got its slot, in seconds of the board's clock.
        course: its way through its phases.
        row: its newest scored point; empty before the first.
    """

    number: str
    settings: str
    since: float
    course: TrialProgress
    row: MetricRow = field(default_factory=dict)


class Board:
    """Counts what has ended, and follows what runs.

    One thread changes it; another may read it meanwhile, and sees each trial as it was or is.

    Args:
        metric: that ranks trials.
        clock: seconds, monotone.

    Attributes:
        jobs: how many the sweep has; 0 until the search says so.
        slots: trials that run at once.
        tasks: phases of fine-tuning of each trial.
        running: trials that have their slot, by number of the job.
        preparing: preparatory runs that have their slot, by name of the record.
        preparatory_flops: of the preparatory runs that have ended, each counted once.
        phase: what the sweep does beside its trials; empty while only they run.
        share: of the phase that is done; None where it is not counted.
    """

    def __init__(self, metric: Metric, clock: Callable[[], float] = time.monotonic) -> None:
        self.metric, self._clock = metric, clock
        self.jobs, self.slots = 0, 1
        self.tasks: Sequence[str] = ()
        self.running: dict[int, RunningTrial] = {}
        self.preparing: dict[str, RunningTrial] = {}
        self.preparatory_flops = 0.0
        self.states: Counter[str] = Counter()
        self._flops = 0.0  # of the trials that have ended, their own training alone
        self.recent: list[tuple[Job, Outcome]] = []
        self.phase = ""
        self.share: float | None = None
        self._durations, self._preparatory_durations = PhaseDurations(), PhaseDurations()
        self._began = self._phase_began = clock()

    def doing(self, phase: str, share: float | None = None) -> bool:
        """Set the phase of the sweep itself; return whether it is a new one."""
        new = phase != self.phase
        if new:
            self._phase_began = self._clock()
        self.phase, self.share = phase, share
        return new

    def start(self, job: Job) -> None:
        """Add a job that has got its slot."""
        now = self._clock()
        course = TrialProgress(self._durations, now, self.tasks)
        self.running[job.number] = RunningTrial(
            str(job.number), describe_settings(job), now, course
        )

    def prepare(self, name: str, run: str) -> None:
        """Add a preparatory run that has got its slot.

        Args:
            name: of its record.
            run: in words.
        """
        now = self._clock()
        course = TrialProgress(self._preparatory_durations, now)
        self.preparing[name] = RunningTrial("", f"preparatory {run}", now, course)

    def prepare_moved(self, name: str, progress: PhaseProgress) -> None:
        """Set how far a preparatory run is."""
        self.preparing[name].course.moved(progress, self._clock())

    def prepared(self, name: str, state: State) -> None:
        """Remove a preparatory run, which has ended or become a trial."""
        was = self.preparing.pop(name, None)
        if was is not None and state == "finished":
            was.course.end(self._clock())

    def moved(self, job: Job, progress: PhaseProgress) -> None:
        """Set how far a job's trial is."""
        self.running[job.number].course.moved(progress, self._clock())

    def row(self, job: Job, row: MetricRow) -> bool:
        """Set a job's newest scored point; return whether it is a new one."""
        running = self.running[job.number]
        new = running.row.get("spent/steps") != row["spent/steps"]
        running.row = row
        return new

    def scored(self, job: Job) -> str:
        """Return the newest score of a running job, in a line."""
        row, budget = self.running[job.number].row, job.trial.budget
        share = min(1.0, row[f"spent/{budget.kind}"] / budget.amount)
        score = f"{row[self.metric.name]:.4f}" if self.metric.name in row else "no score"
        return f"{describe_settings(job)} at {share:.0%} of its budget: {self.metric.name} {score}"

    def end(self, job: Job, outcome: Outcome) -> None:
        """Count a job that has ended, now or in an earlier run of the sweep."""
        if (was := self.running.pop(job.number, None)) and outcome.state == "finished":
            now = self._clock()
            was.course.end(now)
            self._durations.add("trial", now - was.since)
        self.states[outcome.state] += 1
        self._flops += outcome.rows[-1]["spent/marginal_flops"] if outcome.rows else 0.0
        self.recent = [*self.recent[1 - _RECENT :], (job, outcome)]

    @property
    def occupied(self) -> list[RunningTrial]:
        """What has a slot: preparatory runs, then trials."""
        return [*list(self.preparing.values()), *list(self.running.values())]

    @property
    def flops(self) -> float:
        """FLOPs of all training so far, each preparatory run counted once."""
        rows = [each.row for each in list(self.running.values()) if each.row]
        own = sum(row["spent/marginal_flops"] for row in rows)
        return self._flops + own + self.preparatory_flops

    @property
    def ended(self) -> int:
        """How many jobs have ended."""
        return self.states.total()

    @property
    def queued(self) -> int:
        """How many jobs wait for a slot."""
        return max(0, self.jobs - self.ended - len(self.running))

    @property
    def seconds(self) -> float:
        """Seconds since the sweep began."""
        return self._clock() - self._began

    def elapsed(self, running: RunningTrial) -> float:
        """Return the seconds that a trial has had its slot."""
        return self._clock() - running.since

    def left_of(self, running: RunningTrial) -> float | None:
        """Return the seconds that a trial has left, as `Course.left`."""
        return running.course.left(self._clock())

    def left(self) -> str:
        """Return the time until all trials have ended, in words; empty where it is not known."""
        now, running = self._clock(), self.occupied
        rest = [each.course.left(now) for each in running]
        whole = self._durations.mean("trial")
        if whole is None:  # none has ended here: the longest of those that run
            wholes = [
                now - each.since + max(0.0, seconds)
                for each, seconds in zip(running, rest, strict=True)
                if each.number and seconds is not None
            ]
            whole = max(wholes, default=None)
        return format_time_left(total_time_left(rest, self.queued, whole, self.slots))

    def headline(self) -> str:
        """Return trials by state, compute and time, in a line; empty before there are any."""
        if not self.jobs:
            return ""
        states = [f"{count} {state}" for state, count in sorted(self.states.items())]
        count, flops = len(self.preparing), self.flops
        prepares = [f"{count} preparatory run{'s' * (count > 1)}"] if count else []
        parts = [*states, *prepares, f"{len(self.running)} running", f"{self.queued} queued"]
        parts += [f"{flops:.3g} FLOPs" if flops else "", format_duration(self.seconds), self.left()]
        return " · ".join(part for part in parts if part)

    def doings(self) -> str:
        """Return the sweep's own phase, how far it is and what it has taken; empty without one."""
        if not self.phase:
            return ""
        took = self._clock() - self._phase_began
        share = "" if self.share is None else f": {self.share:.0%}"
        rest = format_time_left(took / self.share - took) if self.share else ""
        return ", ".join(
            part for part in (f"{self.phase}{share}", format_duration(took), rest) if part
        )

    def trial(self, running: RunningTrial) -> str:
        """Return the phase of a trial and how far it is."""
        progress = running.course.progress
        share = "" if progress.share is None else f" {progress.share:.0%}"
        return f"{progress.phase}{share}"

    def status(self) -> str:
        """Return the sweep's own phase, or what its slots run, in a line."""
        if self.phase:
            return self.doings()
        trials = [
            ", ".join(
                part for part in (self._named(each), format_time_left(self.left_of(each))) if part
            )
            for each in self.occupied
        ]
        return "; ".join([*trials[:2], *([f"{len(trials) - 2} more"] if len(trials) > 2 else [])])

    def _named(self, running: RunningTrial) -> str:
        return f"{running.settings}: {self.trial(running)}"
