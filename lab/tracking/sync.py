"""Copy the records of trials to MLflow while a sweep runs.

The records are the primary results; the tracking store is a copy of them. While MLflow is not
available, trials continue, and their records are copied later. Records of trials that ended in an
earlier run of the sweep are copied after all others, a few at a time, so that a sweep with many of
them and an empty database starts to train at once.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path as File

from lab import disk_space
from lab.config.experiment import Job
from lab.config.results import Outcome
from lab.storage import provenance, record
from lab.tracking.client import StoreError
from lab.tracking.store import MlflowStore

_LOG = logging.getLogger(__name__)
_RETRY_INTERVAL = 10.0  # seconds
_TIMEOUT = 180.0  # seconds that `flush` waits for the store
_SLICE = 0.5  # seconds of one call of `copy_pending` for deferred records


@dataclass
class _Entry:
    job: Job
    folder: File
    fresh: bool  # whether the run in the store must be deleted first
    outcome: Outcome | None  # of a trial without a record
    copied: Callable[[], None] = lambda: None  # called after the record was copied


class MlflowSync:
    """Copier of trial records to the tracking store.

    Args:
        store: tracking store with the sweep's run open (`MlflowStore.begin`).
        notify: function that prints a line; called when the store becomes unavailable and when it
            is available again.
        judge: function that returns the outcome that a recorded outcome is in the sweep.
    """

    def __init__(
        self,
        store: MlflowStore,
        notify: Callable[[str], None],
        judge: Callable[[Job, Outcome], Outcome],
    ) -> None:
        self._store, self._notify, self._judge = store, notify, judge
        self._pending: dict[int, _Entry] = {}
        self._deferred: dict[int, _Entry] = {}
        self._error: str | None = None  # of the last attempt
        self._is_full = False  # whether the last attempt failed because a disk is full
        self._failed_at = 0.0

    def submit(
        self, job: Job, folder: File, *, fresh: bool = False, outcome: Outcome | None = None
    ) -> None:
        """Copy a job's record now, or later if the store is not available.

        Args:
            job: job to store.
            folder: record of the job's trial; there is none of a trial that must not be trained.
            fresh: whether to delete the run that the store has of this job and create a new one.
            outcome: outcome of a trial that must not be trained; None for that of the record.
        """
        pending = self._pending.get(job.number)
        fresh = fresh or bool(pending and pending.fresh)
        self._pending[job.number] = _Entry(job, folder, fresh, outcome)
        self.copy_pending()

    def defer(self, job: Job, folder: File, *, copied: Callable[[], None] = lambda: None) -> None:
        """Copy a record that does not change any more by later calls, after all that are submitted.

        Args:
            job: job to store.
            folder: record of the job's trial.
            copied: function that is called after the record was copied.
        """
        self._deferred[job.number] = _Entry(job, folder, False, None, copied)

    def run_address(self, job: Job, folder: File) -> str:
        """Return the address of a job's run in the MLflow UI; empty if it is not stored yet."""
        return self._store.run_address(job, folder.name)

    def copy_pending(self) -> None:
        """Copy all submitted records, and deferred ones for up to `_SLICE` seconds.

        Nothing is copied if an attempt failed less than `_RETRY_INTERVAL` ago.
        """
        self._copy_until(time.monotonic() + _SLICE)

    def _copy_until(self, deadline: float) -> None:
        """Copy all submitted records, and deferred ones until a time of the monotonic clock."""
        if self._error is not None and time.monotonic() - self._failed_at < _RETRY_INTERVAL:
            return
        try:
            for entries, end in ((self._pending, math.inf), (self._deferred, deadline)):
                while entries and time.monotonic() < end:
                    number = next(iter(entries))
                    self._copy(entries[number])
                    entries.pop(number).copied()
        except StoreError as error:
            if self._error is None:
                _LOG.warning("MLflow is not available: %s", error)
                self._notify(
                    f"MLflow is not available; trials continue and are copied to it later: {error}"
                )
            self._error, self._failed_at = str(error), time.monotonic()
            self._is_full = disk_space.is_disk_full(error)
            return
        if self._error is not None:
            _LOG.info("MLflow is available again")
            self._notify("MLflow is available again")
        self._error, self._is_full = None, False

    def flush(self, progress: Callable[[float], None] = lambda _: None) -> None:
        """Copy all records; wait for the store if it is not available.

        Args:
            progress: called with the share of the records that are copied, from 0 to 1.

        Raises:
            StoreError: the store is still not available after `_TIMEOUT`, or its disk is full.
        """
        deadline = time.monotonic() + _TIMEOUT
        self._failed_at = 0.0
        waiting = len(self._deferred)
        while self._deferred and self._error is None:
            progress(1 - len(self._deferred) / waiting)
            self.copy_pending()
        self._copy_until(math.inf)
        if left := len(self._pending) + len(self._deferred):
            self._notify(
                f"all trials have ended; waiting up to {_TIMEOUT:.0f} s for MLflow, to copy "
                f"{left} of them to it; an interrupt loses nothing"
            )
        while self._pending or self._deferred:
            if time.monotonic() > deadline or self._is_full:
                raise StoreError(
                    f"{self._error}; the records are complete; run the same command again to copy "
                    "them to MLflow"
                )
            time.sleep(1)
            self._copy_until(math.inf)

    def _copy(self, entry: _Entry) -> None:
        job, folder = entry.job, entry.folder
        if entry.fresh:
            self._store.delete_run(job, folder.name)
            entry.fresh = False
        if entry.outcome is not None:  # a record would be that of another sweep
            self._store.sync(job, folder.name, entry.outcome.state, outcome=entry.outcome)
            return
        state = record.read_state(folder) or "queued"
        if (recorded := record.read_outcome(folder)) is not None:
            outcome = self._judge(job, recorded)
            entries = provenance.read_provenance(folder)
            blocks = record.read_blocks(folder)
            self._store.sync(
                job, folder.name, outcome.state, outcome.rows, outcome, entries, blocks
            )
        elif record.is_running(state):
            # In any other state the record is incomplete, until the trial is run again.
            rows, entries = record.read_curve(folder), provenance.read_provenance(folder)
            self._store.sync(job, folder.name, state, rows, provenance=entries)
