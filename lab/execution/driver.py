"""Driver of a sweep: takes jobs from the search, assigns trials to the runner, updates MLflow.

The driver is the only writer of the tracking store and of the search's Optuna studies. Each trial
writes its record where it runs, and the driver copies the record to MLflow. A crash of the driver,
of a trial or of MLflow therefore loses no trial that has ended.
"""

import logging
import time
import uuid
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path as File

from lab import cli, disk_space
from lab.config.experiment import Experiment, Job
from lab.config.metrics import finetuned
from lab.config.results import Outcome, State
from lab.display.live import View
from lab.execution import processes
from lab.execution.assignment_builder import AssignmentBuilder
from lab.execution.events import TrialEvents, trial_field
from lab.execution.interrupts import handle_interrupts
from lab.execution.mlflow_run import begin_run
from lab.execution.preparatory_queue import FailedRun, PreparatoryQueue
from lab.execution.prerequisites import Prerequisites
from lab.execution.site import Site
from lab.execution.trial_records import CONCLUSIVE_STATES, TrialRecords
from lab.search import dashboard_notes
from lab.search.designs import find_branch_points
from lab.search.search import Search
from lab.storage import record
from lab.storage.mirror import MirrorError
from lab.tracking.client import StoreError
from lab.tracking.store import MlflowStore
from lab.tracking.sync import MlflowSync
from lab.trials import progress
from lab.trials.assignment import Assignment

_LOG = logging.getLogger(__name__)


class Driver:
    """Runs an experiment, and is the runner's `AssignmentSource`.

    Args:
        experiment: experiment to run.
        site: storage and Ray cluster.
        store: tracking store, opened on the tracking URI.
        view: open display of the sweep's state.

    Attributes:
        stop_file: file that requests the end of the sweep; while it exists, running trials save
            their state and end.
    """

    def __init__(self, experiment: Experiment, site: Site, store: MlflowStore, view: View) -> None:
        self._experiment, self._site, self._store = experiment, site, store
        self._board, self._view, self._events = view.board, view, TrialEvents(view)
        self._storage, self._mirror = site.storage, site.mirror
        self._mirror.pull(self._storage / "searches")
        self._search = Search(
            experiment,
            f"sqlite:///{self._storage}/optuna.db",
            self._storage / "searches",
            fresh=site.fresh,
        )
        self._board.jobs = self._search.jobs
        self._mlflow_sync = MlflowSync(store, self._view.print_line, self._search.judge)
        self._prerequisites = Prerequisites(self._storage, self._mirror, view.set_phase)
        self._running: dict[File, list[Job]] = {}  # no jobs for a preparatory run
        self._records = TrialRecords(site)
        self._builder = AssignmentBuilder(experiment, site, self._prerequisites)
        self._branch_points = find_branch_points(experiment)
        self._preparatory = PreparatoryQueue(
            self._builder.build_preparatory_run,
            self._records.read_preparatory_outcome,
            self._running,
            self._branch_points,
            self._has_ended,
        )
        self._next_assignment: Assignment | None = None
        self._progress_read_at = 0.0
        self._full_disk: str | None = None  # description of a disk that is full
        self.stop_file = self._storage / f"stop-{uuid.uuid4().hex}"

    def run(self, command: str) -> None:
        """Run every job without a conclusive record in the storage, and log all jobs to MLflow.

        Args:
            command: command line that repeats the sweep; recorded with the results.
        """
        began = time.monotonic()
        self._prerequisites.prepare(self._experiment)
        self._board.tasks = [
            progress.finetuning_phase(each.name) for each in self._prerequisites.tasks.values()
        ]
        self._view.set_phase("opening the sweep's run in MLflow")
        texts, inputs = self._prerequisites.describe_texts(), self._prerequisites.describe_inputs()
        begin_run(self._store, self._experiment, self._site, command, texts, inputs)
        state: State = "interrupted"
        measures: dict[str, float] = {}
        try:
            self._next_assignment = self.next()
            if self._next_assignment is not None:
                measures = self._carry_out(began)
                if self._full_disk is not None:
                    missing = self._records.describe_missing_room(self._board.slots)
                    raise disk_space.DiskFullError(missing or self._full_disk)
                if self.stop_file.exists():
                    raise KeyboardInterrupt
            copying = partial(self._view.set_phase, "copying the last records to MLflow")
            copying(0.0)
            self._mlflow_sync.flush(copying)
            measures |= self._preparatory.measures()
            for folder in self._records.not_replaced():
                self._view.print_line(
                    f"--fresh {folder.name}: no trial of this sweep, and not run again"
                )
            state = "finished"
        finally:
            self._record_interrupted()
            self.stop_file.unlink(missing_ok=True)
            self._mirror.push(self.stop_file)
            _LOG.info("sweep %s: %s", state, self._board.headline())
            # The exception that ended the sweep must not be replaced by a `StoreError`; the next
            # run of the sweep updates the store.
            with suppress(StoreError) if state == "interrupted" else nullcontext():
                self._store.close(state, measures)

    def _carry_out(self, began: float) -> dict[str, float]:
        """Run all jobs on Ray, and return the sweep's own measurements."""
        self._view.set_phase("starting Ray" if self._site.address is None else "joining Ray")
        # Imported here because importing ray takes seconds.
        from lab.execution import cluster_watch, ray_cluster, ray_logs, runner, worker_group

        resources = self._experiment.resources
        with ray_cluster.open_cluster(resources, self._site.address) as cluster:
            self._board.slots = cluster.slots
            ready = time.monotonic()
            self._view.set_phase("")
            with (
                ray_logs.keep_logs(cluster.scratch, self._storage / "logs"),
                handle_interrupts(self.stop_file, self._mirror, self._view.print_line),
                cluster_watch.watch_control_process(
                    ray_cluster.control_address(), partial(self._give_up, cluster.scratch)
                ),
            ):
                runner.run_trials(
                    self,
                    resources,
                    cluster,
                    self._site.ray,
                    runner.run_in_actor
                    if resources.workers == 1
                    else worker_group.run_in_worker_group,
                )
            wall = time.monotonic() - ready
            self._view.set_phase("stopping Ray")
        return {
            "slots": cluster.slots,
            "setup_seconds": ready - began,
            "wall_seconds": wall,
            "slot_share": self._records.busy_seconds / (cluster.slots * wall),
        }

    def next(self) -> Assignment | None:
        """Return the next trial or preparatory run to start; None where none can start now.

        Jobs with a conclusive record are logged without running them.
        """
        if self._next_assignment is not None:
            assignment, self._next_assignment = self._next_assignment, None
            return assignment
        if self._is_stopping():
            return None
        while (run := self._preparatory.next_run()) is None:
            job = self._next_job()
            if job is None:
                return None
            if job.infeasible:
                self._end_infeasible_job(job)
                continue
            if self._preparatory.hold_if_unready(job):
                continue
            if (ready := self._start_job(job)) is not None:
                return ready
        self._open_record(run)
        self._running[run.folder] = []
        self._events.started_preparatory(run)
        return run

    def _next_job(self) -> Job | None:
        """Return a job that can start, or else a new one; None if there is neither.

        With trunks, new jobs come first: their trunks take longer than the branches that can start.
        """
        if any(self._branch_points.values()):
            return self._ask_search() or self._preparatory.pop_ready()
        return self._preparatory.pop_ready() or self._ask_search()

    def _ask_search(self) -> Job | None:
        """Return a new job; None while as many jobs as slots wait for preparatory runs.

        Of the jobs that share a trunk, only one at a time can have a part of it in a slot.
        """
        most = self._board.slots * max(1, *map(len, self._branch_points.values()))
        return self._search.ask() if self._preparatory.waiting < most else None

    def _has_ended(self, job: Job) -> bool:
        """Return whether the trial of a job, which branches from a trunk, has ended before."""
        if job.trial.trunk is None:
            return False  # its name contains a hash of the weights of its preparatory runs
        folder = self._builder.build_trial(job).folder
        outcome = self._records.read_valid_outcome(folder)
        return outcome is not None and self._is_settled(job, folder, outcome)

    def _start_job(self, job: Job) -> Assignment | None:
        """Return the assignment of a job, after its preparatory runs have ended.

        Returns:
            None where the job has ended, where it cannot start because a preparatory run did not
            finish, or where its trial is already running.
        """
        if (failed := self._preparatory.failed_run(job)) is not None:
            self._end_unstarted_job(job, failed)
            return None
        assignment = self._builder.build_trial(job)
        outcome = self._records.read_valid_outcome(assignment.folder)
        if outcome is not None and self._is_settled(job, assignment.folder, outcome):
            self._repair(assignment)
            self._settle_job(job, assignment.folder, outcome)
        elif assignment.folder in self._running:  # another job has the same trial, which runs once
            jobs = self._running[assignment.folder]
            if not jobs:  # until now the trial was only a preparatory run
                self._events.turned_into_trial(job, assignment.folder)
            jobs.append(job)
        else:
            self._start_trial(job, assignment)
            return assignment
        return None

    def _repair(self, assignment: Assignment) -> None:
        """Report damaged files of a trial that has ended with its scores undamaged."""
        folder = assignment.folder
        for damaged in self._records.find_damage(folder):
            if damaged.startswith("trial.json"):
                self._records.restore_facts(assignment)
                reaction = "it was written again"
            else:
                reaction = f"its scores are kept; --fresh {folder.name} computes the rest again"
            self._events.found_damage(folder, [damaged], reaction)

    def _end_unstarted_job(self, job: Job, failed: FailedRun) -> None:
        """Record that a job cannot start because one of its preparatory runs did not finish."""
        inputs = self._prerequisites.inputs_without_start(job.trial)
        folder, outcome = self._records.write_unstarted(job.trial, inputs, failed)
        self._mlflow_sync.submit(job, folder, fresh=self._site.replaces(folder))
        self._end_job(job, folder, outcome)

    def _end_infeasible_job(self, job: Job) -> None:
        """Record that a job's trial violates a constraint of the sweep, and is not trained."""
        inputs = self._prerequisites.inputs_without_start(job.trial)
        folder = self._storage / "trials" / job.trial.fingerprint(inputs.identity)
        outcome = Outcome(
            state="infeasible",
            reason=job.infeasible,
            rows=(),
            started_at=time.time(),
            seconds=0.0,
            busy=0.0,
        )
        self._end_job(job, folder, outcome)

    def _is_settled(self, job: Job, folder: File, outcome: Outcome) -> bool:
        """Return whether an outcome is conclusive for a job, so that its trial does not run."""
        if outcome.state == "finished" and job.rung is None:
            return not self._prerequisites.lacks(job.trial, folder, outcome)
        return outcome.state in CONCLUSIVE_STATES

    def _start_trial(self, job: Job, assignment: Assignment) -> None:
        self._search.start(job)
        earlier = record.read_last_outcome(assignment.folder)
        self._open_record(assignment)
        self._board.preparatory_flops = self._preparatory.flops
        self._running[assignment.folder] = [job]
        # A finished trial that runs again, to be fine-tuned, is rewritten in the store.
        was_finished = earlier is not None and earlier.state == "finished"
        is_new = self._site.replaces(assignment.folder) or was_finished
        self._mlflow_sync.submit(job, assignment.folder, fresh=is_new)
        self._annotate(job, assignment.folder)
        self._events.started(job, assignment.folder)

    def _open_record(self, assignment: Assignment) -> None:
        """Open the record of a trial, or of a preparatory run, for a run."""
        if damaged := self._records.find_damage(assignment.folder):
            reaction = "the trial runs again, from its newest undamaged checkpoint"
            self._events.found_damage(assignment.folder, damaged, reaction)
        self._records.delete_if_fresh(assignment.folder)
        self._mirror.push(self._storage / "searches")
        tasks = self._prerequisites.tasks.values()
        rescored = [finetuned(task.name).name for task in tasks]
        self._records.open(assignment, rescored)

    def done(self) -> bool:
        """Return whether every job has ended, or the sweep is stopping and no trial is running."""
        self._mlflow_sync.copy_pending()
        return self._search.done or (self._is_stopping() and not self._running)

    def _is_stopping(self) -> bool:
        """Return whether no further trial may start: after an interrupt, and if a disk is full."""
        return self._full_disk is not None or self.stop_file.exists()

    def _stop_for_room(self, reason: str) -> None:
        """Start no further trial, and let the running ones save their state if they can."""
        if self._full_disk is None:
            self._full_disk = reason
            self._view.print_line(f"{reason}: no further trial starts")
            _LOG.error("%s: no further trial starts", reason)
            with suppress(OSError, MirrorError):
                self.stop_file.touch()
                self._mirror.push(self.stop_file)

    def on_start(self, work: Assignment) -> None:
        """Log that a trial has started in its slot."""
        self._pull_running(work.folder)
        for job in self._running[work.folder]:
            self._mlflow_sync.submit(job, work.folder)

    def poll(self) -> None:
        """Copy waiting records to MLflow, and read the progress of the running trials.

        The progress is read at most once in `Mirror.pause` seconds.
        """
        self._mlflow_sync.copy_pending()
        now = time.monotonic()
        if now - self._progress_read_at < self._mirror.pause:
            return
        self._progress_read_at = now
        for folder, jobs in self._running.items():
            with suppress(MirrorError):  # the progress is only displayed
                self._mirror.pull(folder, progress.NAME)
            if (phase_progress := progress.read_progress(folder)) is None:
                continue
            self._events.progressed(jobs, folder, phase_progress)

    def on_evaluation(self, work: Assignment) -> None:
        """Log a running trial's new evaluations."""
        self._pull_running(work.folder)
        rows = record.read_curve(work.folder)
        if not rows:
            return
        for job in self._running[work.folder]:
            self._mlflow_sync.submit(job, work.folder)
        for job in self._running[work.folder][:1]:  # a preparatory run has no job
            self._events.scored(job, work.folder, rows[-1])

    def on_end(self, work: Assignment, error: str | None) -> None:
        """Record the end of a trial, or of a preparatory run.

        Args:
            work: assignment that has ended.
            error: reason, where its process ended without writing an outcome.
        """
        self._pull_running(work.folder)
        outcome = self._records.close(work.folder, error)
        if outcome.state == "interrupted" and outcome.reason.startswith(disk_space.NO_SPACE):
            self._stop_for_room(outcome.reason)
        jobs = self._running.pop(work.folder)
        for job in jobs:
            self._end_job(job, work.folder, outcome)
        if not jobs:
            self._events.ended_preparatory(work.folder, outcome)

    def _end_job(self, job: Job, folder: File, outcome: Outcome) -> None:
        outcome = self._search.judge(job, outcome)
        self._mlflow_sync.submit(job, folder, outcome=outcome if job.infeasible else None)
        if outcome.state != "interrupted":  # the next run of the sweep continues it
            self._tell_search(job, folder, outcome)
            self._annotate(job, folder)
        self._display_end(job, folder, outcome)

    def _settle_job(self, job: Job, folder: File, outcome: Outcome) -> None:
        """End the job of a trial that an earlier run has ended, and queue its record for MLflow."""
        outcome = self._search.judge(job, outcome)
        self._tell_search(job, folder, outcome)
        annotate = partial(self._annotate, job, folder)
        self._mlflow_sync.defer(job, folder, copied=annotate)
        self._display_end(job, folder, outcome)

    def _tell_search(self, job: Job, folder: File, outcome: Outcome) -> None:
        self._search.tell(job, outcome)
        with suppress(OSError):  # of a trial without a curve; the artifact is only displayed
            self._search.attach(job, folder / record.CURVE)
        # Which settings continue past a rung, or are repeated, depends on ended trials.
        self._board.jobs = self._search.jobs

    def _display_end(self, job: Job, folder: File, outcome: Outcome) -> None:
        self._board.preparatory_flops = self._preparatory.flops
        awaits_retry = self._search.awaits_retry(job, outcome)
        self._events.ended(job, folder, outcome, awaits_retry=awaits_retry)

    def _annotate(self, job: Job, folder: File) -> None:
        """Write the note of a search trial that optuna-dashboard shows."""
        run = self._mlflow_sync.run_address(job, folder)
        self._search.annotate(job, dashboard_notes.describe_job(job, folder.name, run))

    def _record_interrupted(self) -> None:
        """Record the trials that were still running when the sweep ended as interrupted."""
        for folder, jobs in self._running.items():
            if record.read_outcome(folder) is None:
                self._records.write_outcome(
                    "interrupted", "the sweep ended while the trial was running", folder
                )
            for job in jobs:
                self._mlflow_sync.submit(job, folder)
            self._events.interrupted(jobs, folder, record.read_outcome(folder))
        self._running.clear()

    def _give_up(self, scratch: str | None, reason: str) -> None:
        """Record the running trials as interrupted, and end this process, which Ray blocks."""
        from lab.execution import ray_logs

        processes.kill(processes.find_descendants())
        ray_logs.copy_logs(scratch, self._storage / "logs")
        for folder in list(self._running):
            with suppress(OSError, MirrorError):
                if record.read_outcome(folder) is None:
                    self._records.write_outcome("interrupted", reason, folder)
        cli.fail_at_once(f"lab.sweep: failed: {reason}; run the same command again to resume")

    def _pull_running(self, folder: File) -> None:
        """Download a running trial's record, and copy the log of its process."""
        self._records.pull_running(folder, trial_field(folder, self._running[folder]))
