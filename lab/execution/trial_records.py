"""Records of a sweep's trials, as the driver opens, reads and closes them."""

import time
from collections.abc import Iterable
from pathlib import Path as File

from lab import disk_space
from lab.config.preparatory_runs import unstarted_identity
from lab.config.results import Outcome, State
from lab.config.trial import Trial
from lab.execution.preparatory_queue import FailedRun
from lab.execution.prerequisites import TrialInputs
from lab.execution.site import Site
from lab.storage import record, record_damage
from lab.trials import extend, process_log, progress
from lab.trials.assignment import Assignment

_CHECKPOINTS = 4  # of a running trial: the two newest, the best, and the one being written
# States caused by the settings. A failure may have been caused by the machine: it is retried.
CONCLUSIVE_STATES: tuple[State, ...] = ("finished", "diverged")


class TrialRecords:
    """Opens, reads and closes the records of trials and of preparatory runs.

    Args:
        site: storage of the records, and whether records of ended trials are replaced.

    Attributes:
        busy_seconds: time in seconds for which the trials that have ended occupied their slots.
    """

    def __init__(self, site: Site) -> None:
        self._site, self._storage, self._mirror = site, site.storage, site.mirror
        self._log_copied: dict[File, int] = {}  # bytes of the log of each running trial
        self._earlier_busy: dict[File, float] = {}
        self._ended_here: set[File] = set()
        self.busy_seconds = 0.0

    def pull(self, folder: File) -> None:
        """Download a trial's record, without its checkpoints."""
        self._mirror.pull(folder, *record.CORE_FILES)

    def pull_running(self, folder: File, trial: dict[str, str]) -> None:
        """Download a running trial's record, and copy the log of its process.

        Args:
            folder: folder of the record.
            trial: field `trial` of the log's records (`events.trial_field`).
        """
        self.pull(folder)
        copied = self._log_copied.get(folder, 0)
        self._log_copied[folder] = process_log.copy_new_records(folder, copied, trial)

    def read_valid_outcome(self, folder: File) -> Outcome | None:
        """Download a record and return its outcome.

        Returns:
            None where the trial has not ended, or where the sweep runs ended trials again and this
            trial has not ended since the start of the sweep.
        """
        self.pull(folder)
        if self._site.replaces(folder) and folder not in self._ended_here:
            return None
        return record.read_outcome(folder)

    def read_preparatory_outcome(self, folder: File) -> Outcome | None:
        """Return the outcome of a preparatory run; None where it has to run, or to run again."""
        outcome = self.read_valid_outcome(folder)
        if outcome is None or folder in self._ended_here:
            return outcome
        return outcome if outcome.state in CONCLUSIVE_STATES else None

    def not_replaced(self) -> list[File]:
        """Return the records that were to be replaced and belong to no trial of the sweep."""
        return sorted(self._site.again - self._ended_here)

    def delete_if_fresh(self, folder: File) -> None:
        """Delete the record of an earlier run, if the sweep runs ended trials again."""
        if self._site.replaces(folder) and folder not in self._ended_here:
            record.delete_record(folder)
            self._mirror.push(folder)

    def find_damage(self, folder: File) -> list[str]:
        """Return the damaged files of a record that is not replaced (`record_damage`)."""
        return [] if self._site.replaces(folder) else record_damage.find_damage(folder)

    def restore_facts(self, assignment: Assignment) -> None:
        """Write `trial.json` of a trial that has ended, which the sweep knows."""
        text = assignment.text.name
        record.write_facts(assignment.folder, assignment.trial, assignment.lineage, text)
        self._mirror.push(assignment.folder / "trial.json")

    def open(self, assignment: Assignment, rescored: Iterable[str]) -> None:
        """Open a trial's record for a run, which continues from a shorter run if there is one.

        Args:
            assignment: the trial.
            rescored: names of the scores that the run computes again; their earlier values are
                deleted.
        """
        folder = assignment.folder
        earlier = record.read_last_outcome(folder)
        self._earlier_busy[folder] = earlier.busy if earlier else 0.0
        rows, names = record.read_curve(folder), tuple(rescored)
        if rows and names:
            record.write_rows(folder, rows, without=names)
        record.write_queued(folder, assignment.trial, assignment.lineage, assignment.text.name)
        extend.extend_from_shorter_run(assignment, self._may_extend)
        progress.clear_progress(folder)
        self._mirror.push(folder / progress.NAME)
        (folder / record.LOG).unlink(missing_ok=True)
        self._mirror.push(folder / record.LOG)
        self._log_copied[folder] = 0

    def _may_extend(self, folder: File) -> bool:
        """Return whether a record's run may be extended: it is not to be replaced any more."""
        return not self._site.replaces(folder) or folder in self._ended_here

    def close(self, folder: File, error: str | None) -> Outcome:
        """Return the outcome of a trial that has ended, after its record was downloaded.

        Args:
            folder: folder of the record.
            error: reason, where the trial's process ended without writing an outcome.
        """
        outcome = record.read_outcome(folder)
        if outcome is None and disk_space.find_full([folder]):
            outcome = self.write_outcome("interrupted", disk_space.describe_full(folder), folder)
        if outcome is None:
            outcome = self.write_outcome(
                "failed",
                error or "its record has no outcome; check that its machine can access --storage",
                folder,
            )
        self._ended_here.add(folder)
        self.busy_seconds += max(0.0, outcome.busy - self._earlier_busy.pop(folder))
        return outcome

    def write_unstarted(
        self, trial: Trial, inputs: TrialInputs, failed: FailedRun
    ) -> tuple[File, Outcome]:
        """Write the record of a trial that cannot start: a preparatory run did not finish.

        Args:
            trial: trial that cannot start.
            inputs: inputs of the trial without its initial weights.
            failed: preparatory run that did not finish.

        Returns:
            The folder of the record, and the outcome.
        """
        identity = inputs.identity  # that of a branch does not depend on its trunk
        if trial.trunk is None:
            identity = unstarted_identity(identity, failed.name)
        folder = self._storage / "trials" / trial.fingerprint(identity)
        self.delete_if_fresh(folder)
        record.write_queued(folder, trial, trial.lineage(identity), inputs.text.name)
        reason = f"its preparatory run {failed.name} {failed.state}: {failed.reason}"
        return folder, self.write_outcome(failed.state, reason, folder)

    def describe_missing_room(self, slots: int) -> str | None:
        """Return how much room the storage's disk lacks; None if no checkpoint shows their size.

        Args:
            slots: number of trials at the same time.
        """
        files = self._storage.glob("trials/*/checkpoints/*/state.safetensors")
        largest = max((file.stat().st_size for file in files), default=0)
        if not largest:
            return None
        content = f"{_CHECKPOINTS} checkpoints of each of {slots} trials"
        return disk_space.describe_full(self._storage, slots * _CHECKPOINTS * largest, content)

    def write_outcome(self, state: State, reason: str, folder: File) -> Outcome:
        """Write and return an outcome in place of a process that did not write one."""
        earlier = record.read_last_outcome(folder)
        outcome = Outcome(
            state=state,
            reason=reason,
            rows=record.read_curve(folder),
            started_at=time.time(),
            seconds=earlier.seconds if earlier else 0.0,
            busy=earlier.busy if earlier else 0.0,
            attempts=record.count_attempts(folder),
        )
        outcome = record.write_outcome(folder, outcome)
        for name in ("outcome.json", "state"):
            self._mirror.push(folder / name)
        return outcome
