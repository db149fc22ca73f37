"""The driver of a sweep: asks the search, hands work to the runner, sees to the records.

It is the one writer of the store and of the search's studies. A trial's own record is written
where the trial runs; the driver copies it on, so whatever dies, nothing that ended is lost.
"""

import json
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path as File

from lab.config.experiment import Experiment, Job
from lab.config.metrics import finetuned
from lab.config.preparatory_runs import describe, unstarted_identity
from lab.config.results import Outcome, State
from lab.config.trial import Trial
from lab.display.board import describe_settings
from lab.display.live import View
from lab.execution import provenance
from lab.execution.preparatory_queue import FailedRun, PreparatoryQueue
from lab.execution.prerequisites import Prerequisites, TrialInputs
from lab.formatting import format_duration
from lab.loading import search_space
from lab.search.search import Search
from lab.storage import record
from lab.storage.mirror import Mirror, MirrorError
from lab.tracking import tags
from lab.tracking.client import StoreError
from lab.tracking.store import MlflowStore
from lab.tracking.sync import MlflowSync
from lab.trials import extend, progress
from lab.trials.assignment import Assignment

# A failed trial may have been the machine's fault; these say something about the setting.
_SETTLED: tuple[State, ...] = ("finished", "diverged")


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where a sweep runs and what it leaves where.

    Attributes:
        storage: absolute folder of records and caches.
        mirror: what keeps it equal to the storage that all machines see.
        ray: address of the folder for what Ray itself writes.
        address: of a Ray cluster to join; None starts Ray here.
        fresh: whether what has ended before is run again.
    """

    storage: File
    mirror: Mirror
    ray: str
    address: str | None = None
    fresh: bool = False


class Driver:
    """Runs an experiment; its other methods make it the runner's source.

    Args:
        experiment: what is asked.
        site: where.
        store: opened on the tracking URI.
        view: open; shows how things stand.
    """

    def __init__(self, experiment: Experiment, site: Site, store: MlflowStore, view: View) -> None:
        self._experiment, self._site, self._store = experiment, site, store
        self._board, self._view = view.board, view
        self._storage, self._mirror = site.storage, site.mirror
        self._mirror.pull(self._storage / "searches")
        self._search = Search(
            experiment,
            f"sqlite:///{self._storage}/optuna.db",
            self._storage / "searches",
            fresh=site.fresh,
        )
        self._board.jobs = self._search.jobs
        self._ledger = MlflowSync(store, self._view.say)
        self._supplies = Prerequisites(self._storage, self._mirror, view.doing)
        self._out: dict[File, list[Job]] = {}  # no job is out with a preparatory run
        self._done: set[File] = set()
        self._preparatory = PreparatoryQueue(self._preparatory_work, self._prepared, self._out)
        self._first: Assignment | None = None
        self._busy = 0.0
        self._before: dict[File, float] = {}
        self._looked = 0.0
        self.stop_file = self._storage / f"stop-{uuid.uuid4().hex}"

    def run(self, command: str) -> None:
        """Run every job that has not ended in this sweep or another, and record all of them.

        Args:
            command: what a person would type to do it again; kept with the results.
        """
        began = time.monotonic()
        self._supplies.prepare(self._experiment)
        self._board.tasks = [
            progress.finetuning_phase(each.name) for each in self._supplies.tasks.values()
        ]
        self._view.doing("opening the sweep's run in MLflow")
        self._begin(command)
        state: State = "interrupted"
        measures: dict[str, float] = {}
        try:
            self._first = self.next()
            if self._first is not None:
                measures = self._carry_out(began)
                if self.stop_file.exists():
                    raise KeyboardInterrupt
            self._view.doing("copying the last records to MLflow")
            self._ledger.settle()
            measures |= self._preparatory.measures()
            state = "finished"
        finally:
            self._interrupt()
            self.stop_file.unlink(missing_ok=True)
            self._mirror.push(self.stop_file)
            # What cut a sweep off is what it ends with; the store hears of it the next time.
            with suppress(StoreError) if state == "interrupted" else nullcontext():
                self._store.close(state, measures)

    def _carry_out(self, began: float) -> dict[str, float]:
        """Run what there is, and return the sweep's own measures."""
        self._view.doing("starting Ray" if self._site.address is None else "joining Ray")
        from lab.execution import (
            ray_cluster,
            runner,  # ray takes seconds to import
            worker_group,
        )

        resources = self._experiment.resources
        with ray_cluster.open_cluster(resources, self._site.address) as opened:
            self._board.slots = opened.slots
            ready = time.monotonic()
            self._view.doing("")
            with self._stops_gently():
                runner.run_trials(
                    self,
                    resources,
                    opened,
                    self._site.ray,
                    runner.run_in_actor
                    if resources.workers == 1
                    else worker_group.run_in_worker_group,
                )
            wall = time.monotonic() - ready
            self._view.doing("stopping Ray")
        return {
            "slots": opened.slots,
            "setup_seconds": ready - began,
            "wall_seconds": wall,
            "slot_share": self._busy / (opened.slots * wall),
        }

    def next(self) -> Assignment | None:
        """Return the next trial to run; one whose record is complete is recorded on the way."""
        if self._first is not None:
            work, self._first = self._first, None
            return work
        if self.stop_file.exists():
            return None
        while (run := self._preparatory.next()) is None:
            job = self._preparatory.released() or self._ask()
            if job is None:
                return None
            if not self._preparatory.holds(job) and (ready := self._next_of(job)) is not None:
                return ready
        self._open(run)
        self._out[run.folder] = []
        self._board.prepare(run.folder.name, describe(run.trial))
        self._view.say(f"preparatory run {run.folder.name}: {describe(run.trial)}")
        return run

    def _ask(self) -> Job | None:
        """Return a new job, unless as many as there are slots wait for preparatory runs."""
        return self._search.ask() if self._preparatory.waiting < self._board.slots else None

    def _next_of(self, job: Job) -> Assignment | None:
        """Return the work of a job that can start; None where none is left or it runs already."""
        self._board.preparatory_flops = self._preparatory.flops
        if (lost := self._preparatory.lost(job.trial)) is not None:
            self._end_unstarted(job, lost)
            return None
        work = self._work(job)
        self._fetch(work.folder)
        outcome = record.read_outcome(work.folder)
        if outcome is not None and self._settles(job, work.folder, outcome):
            self._end(job, work.folder, outcome)
        elif work.folder in self._out:  # two settings that came out the same: run once
            if not self._out[work.folder]:  # until now it was a preparatory run
                self._board.prepared(work.folder.name, "running")
                self._board.start(job)
            self._out[work.folder].append(job)
        else:
            self._hand_out(job, work)
            return work
        return None

    def _end_unstarted(self, job: Job, lost: FailedRun) -> None:
        """Record that a job cannot start, because a run that it starts from did not finish."""
        supply = self._supplies.before(job.trial)
        identity = unstarted_identity(supply.identity, lost.name)
        folder = self._storage / "trials" / job.trial.fingerprint(identity)
        record.write_queued(folder, job.trial, job.trial.lineage(identity), supply.text.name)
        reason = f"its preparatory run {lost.name} {lost.state}: {lost.reason}"
        self._end(job, folder, self._cut_off(lost.state, reason, folder))

    def _work(self, job: Job) -> Assignment:
        return self._work_of(job.trial, self._supplies.of(job.trial))

    def _preparatory_work(self, run: Trial) -> Assignment:
        return replace(self._work_of(run, self._supplies.before(run)), tasks=())

    def _work_of(self, trial: Trial, supply: TrialInputs) -> Assignment:
        identity = supply.identity
        return Assignment(
            trial=trial,
            folder=self._storage / "trials" / trial.fingerprint(identity),
            text=supply.text,
            held_out=supply.held_out,
            start=supply.start,
            short_text=supply.short_text,
            charged=supply.charged,
            earlier_flops=supply.earlier_flops,
            metric=self._experiment.metric,
            resources=self._experiment.resources,
            lineage=trial.lineage(identity),
            mirror=self._mirror,
            tasks=tuple(self._supplies.tasks),
            task_seeds=self._experiment.finetune.seeds,
        )

    def _prepared(self, folder: File) -> Outcome | None:
        """Return how a preparatory run has ended; None where it has yet to, or to run again."""
        self._fetch(folder)
        outcome = record.read_outcome(folder)
        if outcome is None or folder in self._done:
            return outcome
        return outcome if outcome.state in _SETTLED and not self._site.fresh else None

    def _settles(self, job: Job, folder: File, outcome: Outcome) -> bool:
        """Return whether an outcome stands, and the trial need not run."""
        if self._site.fresh and folder not in self._done:
            return False
        # What another search stopped lagged behind other settings than this one's.
        stopped = outcome.state == "stopped" and self._search.stopped(job)
        if outcome.state == "finished":
            return not self._supplies.lacks(job.trial, folder, outcome)
        return stopped or outcome.state in _SETTLED

    def _hand_out(self, job: Job, work: Assignment) -> None:
        earlier = record.read_last_outcome(work.folder)
        self._open(work, extends=not self._search.stops(job))
        self._out[work.folder] = [job]
        # What had finished and is given more scores is written to the store anew.
        again = earlier is not None and earlier.state == "finished"
        self._ledger.note(job, work.folder, fresh=self._site.fresh or again)
        self._board.start(job)
        self._view.changed(f"started {describe_settings(job)}")

    def _open(self, work: Assignment, *, extends: bool = True) -> None:
        """Open a trial's record; it may go on from a shorter run where it `extends` one."""
        if self._site.fresh:
            record.forget(work.folder)
            self._mirror.push(work.folder)
        self._mirror.push(self._storage / "searches")
        earlier = record.read_last_outcome(work.folder)
        self._before[work.folder] = earlier.busy if earlier else 0.0
        if (
            rows := record.read_curve(work.folder)
        ) and self._supplies.tasks:  # theirs are taken anew
            anew = [finetuned(task.name).name for task in self._supplies.tasks.values()]
            record.write_rows(work.folder, rows, without=anew)
        record.write_queued(work.folder, work.trial, work.lineage, work.text.name)
        if not self._site.fresh and extends:
            extend.extend_from_shorter_run(work.folder, work.trial, work.lineage)
        self._mirror.push(record.stop_file(work.folder))
        progress.clear_progress(work.folder)
        self._mirror.push(work.folder / progress.NAME)

    def done(self) -> bool:
        """Return whether every job has ended, or no more are wanted and none is out."""
        self._ledger.keep_up()
        return self._search.done or (self.stop_file.exists() and not self._out)

    def began(self, work: Assignment) -> None:
        """Record that a trial has its slot."""
        self._fetch(work.folder)
        for job in self._out[work.folder]:
            self._ledger.note(job, work.folder)

    def looked(self) -> None:
        """Read how far the running trials are, as often as the storage is to be asked."""
        now = time.monotonic()
        if now - self._looked < self._mirror.pause:
            return
        self._looked = now
        for folder, jobs in self._out.items():
            with suppress(MirrorError):  # it is for display alone
                self._mirror.pull(folder, progress.NAME)
            if (seen := progress.read_progress(folder)) is None:
                continue
            if jobs:
                self._board.moved(jobs[0], seen)
            else:
                self._board.prepare_moved(folder.name, seen)

    def scored(self, work: Assignment) -> None:
        """Log the points that a running trial has added to its record, and end it if it lags."""
        self._fetch(work.folder)
        rows = record.read_curve(work.folder)
        if not rows:
            return
        for job in self._out[work.folder]:
            self._ledger.note(job, work.folder)
            if self._search.lags(job, rows):
                record.stop_file(work.folder).touch()
                self._mirror.push(record.stop_file(work.folder))
        for job in self._out[work.folder][:1]:  # none of a preparatory run
            if self._board.row(job, rows[-1]):
                self._view.changed(f"scored {self._board.scored(job)}")

    def ended(self, work: Assignment, error: str | None) -> None:
        """Record how a trial ended."""
        self._fetch(work.folder)
        outcome = record.read_outcome(work.folder)
        if outcome is None:
            outcome = self._cut_off(
                "failed",
                error or "it left no outcome; does its machine see --storage?",
                work.folder,
            )
        self._done.add(work.folder)
        self._busy += max(0.0, outcome.busy - self._before.pop(work.folder))
        jobs = self._out.pop(work.folder)
        for job in jobs:
            self._end(job, work.folder, outcome)
        if not jobs:
            self._board.prepared(work.folder.name, outcome.state)
            why = f": {outcome.reason}" if outcome.reason else ""
            self._view.say(f"preparatory run {work.folder.name} {outcome.state}{why}")

    def _end(self, job: Job, folder: File, outcome: Outcome) -> None:
        self._ledger.note(job, folder)
        if outcome.state != "interrupted":  # it goes on another time; the search still waits
            self._search.tell(job, outcome)
        self._board.end(job, outcome)
        score = outcome.rows[-1].get(self._experiment.metric.name) if outcome.rows else None
        shown = f" {self._experiment.metric.name} {score:.4f}" if score is not None else ""
        why = f": {outcome.reason}" if outcome.reason else ""
        if self._search.waits(job, outcome):
            why += "; its cell is repeated once the same command has tried it again"
        left = self._board.left()
        self._view.changed(
            f"{outcome.state} {describe_settings(job)}{shown} in {format_duration(outcome.seconds)}{why}"
            + (f", {left}" if left else "")
        )

    @contextmanager
    def _stops_gently(self) -> Iterator[None]:
        """Let the first Ctrl-C ask running trials to save and end, and the second end at once."""

        def asked(*_: object) -> None:
            if self.stop_file.exists():
                raise KeyboardInterrupt
            self.stop_file.touch()
            self._mirror.push(self.stop_file)
            self._view.say("stopping: running trials save their state; Ctrl-C again stops now")

        before = signal.signal(signal.SIGINT, asked)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _interrupt(self) -> None:
        """Say of the trials that were running when the sweep was stopped that they are not."""
        for folder, jobs in self._out.items():
            if record.read_outcome(folder) is None:
                self._cut_off("interrupted", "the sweep ended while it ran", folder)
            self._board.prepared(folder.name, "interrupted")
            for job in jobs:
                self._ledger.note(job, folder)
                if (outcome := record.read_outcome(folder)) is not None:
                    self._board.end(job, outcome)
        self._out.clear()

    def _begin(self, command: str) -> None:
        facts = provenance.code_and_machine() | {tags.COMMAND: command, **self._supplies.said()}
        self._store.begin(
            self._experiment,
            facts | {tags.BUDGET: json.dumps(self._experiment.base["budget"])},
            {
                tags.SPACE_FILE: search_space.dump_experiment(self._experiment),
                tags.ENVIRONMENT_FILE: provenance.installed_packages(),
                tags.DIFF_FILE: provenance.uncommitted_diff(),
            },
        )

    def _fetch(self, folder: File) -> None:
        """See a record as it stands, its checkpoints left where they are."""
        self._mirror.pull(folder, *record.SMALL)

    def _cut_off(self, state: State, reason: str, folder: File) -> Outcome:
        """Record the end of a trial that could not do so itself."""
        earlier = record.read_last_outcome(folder)
        outcome = Outcome(
            state=state,
            reason=reason,
            rows=record.read_curve(folder),
            began=time.time(),
            seconds=earlier.seconds if earlier else 0.0,
            busy=earlier.busy if earlier else 0.0,
            tries=record.count_tries(folder),
        )
        record.write_outcome(folder, outcome)
        for name in ("outcome.json", "state"):
            self._mirror.push(folder / name)
        return outcome
