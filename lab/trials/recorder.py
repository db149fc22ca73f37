"""Record of one run of a trial, written while the trial runs."""

import time

from lab.config.results import MetricRow, Outcome, State
from lab.finetuning.results import charge_finetuning
from lab.storage import record
from lab.trials import progress
from lab.trials.assignment import Assignment


class TrialRecorder:
    """Writes the scored points and the outcome of one run of a trial to its record.

    Creating a recorder sets the state of the record to `running`.

    Args:
        work: trial with its files.

    Attributes:
        rows: scored points so far, including those of earlier runs that the run continues.
    """

    def __init__(self, work: Assignment) -> None:
        self._work = work
        self._began, self._entered = time.time(), time.perf_counter()
        self._earlier = record.read_last_outcome(work.folder)
        self._ready, self._busy = self._entered, 0.0
        self.rows: list[MetricRow] = []
        record.begin_record(work.folder, work.trial, work.lineage, work.text.name)

    def resume(self, count: int) -> None:
        """Keep the first points of earlier runs, and start the measurement of the busy time.

        Args:
            count: number of points to keep; the run scores later points again.
        """
        self.rows += record.truncate_curve(self._work.folder, count)
        if not count:  # without a checkpoint that can be read
            record.delete_origin(self._work.folder)
        self._ready = time.perf_counter()

    def append(self, row: MetricRow) -> None:
        """Append a scored point."""
        record.append_row(self._work.folder, row)
        self._work.push_record()
        self.rows.append(row)

    def amend_last(self, entries: MetricRow) -> None:
        """Add fine-tuning scores, and the compute of fine-tuning, to the last point."""
        charges = charge_finetuning(self.rows[-1] | entries)
        self.rows[-1] = record.amend_last_row(self._work.folder, entries | charges)
        self._work.push_record()

    def measure_busy(self) -> None:
        """Set the busy time of the run to the time since `resume`."""
        self._busy = time.perf_counter() - self._ready

    def write_outcome(self, state: State, reason: str, trace: str, device: str) -> Outcome:
        """Write and return the outcome of the run; its times include those of earlier runs.

        Args:
            state: final state of the trial.
            reason: reason of the state in one line; may be empty.
            trace: traceback of a failed run, else empty.
            device: name of the device.
        """
        work, earlier = self._work, self._earlier
        outcome = Outcome(
            state=state,
            reason=reason,
            rows=tuple(self.rows),
            started_at=self._began,
            seconds=time.perf_counter() - self._entered + (earlier.seconds if earlier else 0.0),
            busy=self._busy + (earlier.busy if earlier else 0.0),
            device=device,
            shared=0 < work.resources.gpus_per_worker < 1,
            attempts=record.count_attempts(work.folder),
            traceback=trace,
        )
        progress.clear_progress(work.folder)
        outcome = record.write_outcome(work.folder, outcome)
        work.push_record()
        return outcome
