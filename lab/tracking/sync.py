"""Keeps MLflow up with the records of trials, as far as MLflow answers.

The records are what lasts; the store is a copy of them. Where it is away for a while, trials go
on, and what it has missed is written once it is back.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path as File

from lab.config.experiment import Job
from lab.storage import record
from lab.tracking.client import StoreError
from lab.tracking.store import MlflowStore

_AGAIN = 10.0  # seconds between two tries
_PATIENCE = 180.0  # seconds that a sweep waits for it in the end


@dataclass
class _Entry:
    job: Job
    folder: File
    fresh: bool


class MlflowSync:
    """Copies records to the store.

    Args:
        store: opened; it has answered once.
        says: told a line when the store falls silent, and when it is back.
    """

    def __init__(self, store: MlflowStore, says: Callable[[str], None]) -> None:
        self._store, self._says = store, says
        self._behind: dict[int, _Entry] = {}
        self._silent: str | None = None
        self._tried = 0.0

    def note(self, job: Job, folder: File, *, fresh: bool = False) -> None:
        """Copy a job's record, now or once the store answers.

        Args:
            job: what was asked for.
            folder: of its trial's record.
            fresh: whether what the store has of it is out of date as a whole.
        """
        waiting = self._behind.get(job.number)
        self._behind[job.number] = _Entry(job, folder, fresh or bool(waiting and waiting.fresh))
        self.keep_up()

    def keep_up(self) -> None:
        """Copy what is behind, unless the store has only just not answered."""
        if self._silent is not None and time.monotonic() - self._tried < _AGAIN:
            return
        try:
            while self._behind:
                number = next(iter(self._behind))
                self._copy(self._behind[number])
                del self._behind[number]
        except StoreError as error:
            if self._silent is None:
                self._says(f"trials go on, and are copied to MLflow when it is back: {error}")
            self._silent, self._tried = str(error), time.monotonic()
            return
        if self._silent is not None:
            self._says("MLflow is back")
        self._silent = None

    def settle(self) -> None:
        """Copy all that is behind, and wait for the store if need be.

        Raises:
            StoreError: it does not come back.
        """
        until = time.monotonic() + _PATIENCE
        self._tried = 0.0
        self.keep_up()
        while self._behind:
            if time.monotonic() > until:
                raise StoreError(
                    f"{self._silent}; the records are complete, and the same command copies them"
                )
            time.sleep(1)
            self.keep_up()

    def _copy(self, entry: _Entry) -> None:
        job, folder = entry.job, entry.folder
        if entry.fresh:
            self._store.forget(job, folder.name)
            entry.fresh = False
        state = record.read_state(folder) or "queued"
        if (outcome := record.read_outcome(folder)) is not None:
            self._store.sync(job, folder.name, outcome.state, outcome.rows, outcome)
        elif record.is_running(
            state
        ):  # else it is not whole, and whoever runs it again will say so
            self._store.sync(job, folder.name, state, record.read_curve(folder))
