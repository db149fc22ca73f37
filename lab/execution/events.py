"""Report the events of a sweep's trials, on the display and in the log."""

import logging
from collections.abc import Sequence
from pathlib import Path as File

from lab.config.experiment import Job
from lab.config.preparatory_runs import describe
from lab.config.results import MetricRow, Outcome
from lab.display.board import describe_settings
from lab.display.live import View
from lab.formatting import format_duration
from lab.trials.assignment import Assignment
from lab.trials.progress import PhaseProgress

_LOG = logging.getLogger(__name__)


class TrialEvents:
    """Reports starts, evaluations and ends of trials and of preparatory runs.

    Args:
        view: open display of the sweep's state.
    """

    def __init__(self, view: View) -> None:
        self._view, self._board = view, view.board

    def started(self, job: Job, folder: File) -> None:
        """Report that a job's trial starts."""
        self._board.start(job)
        self._view.show_event(f"started {describe_settings(job)}")
        _LOG.info("started %s", describe_settings(job), extra=trial_field(folder, [job]))

    def found_damage(self, folder: File, damaged: Sequence[str], reaction: str) -> None:
        """Report damaged files of a trial's record, and the action of the sweep."""
        line = f"damaged record {folder.name}: {', '.join(damaged)}; {reaction}"
        self._view.print_line(line)
        _LOG.warning("%s", line, extra=trial_field(folder))

    def started_preparatory(self, run: Assignment) -> None:
        """Report that a preparatory run starts."""
        name, settings = run.folder.name, describe(run.trial)
        self._board.start_preparatory(name, settings)
        self._view.print_line(f"preparatory run {name}: {settings}")
        _LOG.info("started preparatory run %s", settings, extra=trial_field(run.folder))

    def turned_into_trial(self, job: Job, folder: File) -> None:
        """Report that a running preparatory run is the trial of a job as well."""
        self._board.end_preparatory(folder.name, "running")
        self._board.start(job)
        _LOG.info("the preparatory run is a trial too", extra=trial_field(folder, [job]))

    def progressed(self, jobs: Sequence[Job], folder: File, progress: PhaseProgress) -> None:
        """Display the progress of a running trial; without jobs, of a preparatory run."""
        if jobs:
            self._board.update(jobs[0], progress)
        else:
            self._board.update_preparatory(folder.name, progress)

    def scored(self, job: Job, folder: File, row: MetricRow) -> None:
        """Report the newest evaluation of a job's trial."""
        if self._board.add_evaluation(job, row):
            score = self._board.describe_score(job)
            self._view.show_event(f"scored {score}")
            _LOG.info("scored %s", score, extra=trial_field(folder, [job]))

    def ended(self, job: Job, folder: File, outcome: Outcome, *, awaits_retry: bool) -> None:
        """Report the end of a job.

        Args:
            job: job that has ended, in this run of the sweep or in an earlier one.
            folder: record of its trial.
            outcome: outcome of its trial.
            awaits_retry: whether the next run of the sweep runs the trial again.
        """
        self._board.end(job, outcome)
        name = self._board.metric.name
        score = outcome.rows[-1].get(name) if outcome.rows else None
        scored = f" {name} {score:.4f}" if score is not None else ""
        reason = _describe_reason(outcome, folder)
        if awaits_retry:
            reason += "; the same command retries it, and then runs its cell's repeats"
        event = (
            f"{outcome.state} {describe_settings(job)}{scored} in "
            f"{format_duration(outcome.seconds)}{reason}"
        )
        left = self._board.describe_time_left()
        self._view.show_event(event + (f", {left}" if left else ""))
        _log_end(event, outcome, folder, [job])

    def ended_preparatory(self, folder: File, outcome: Outcome) -> None:
        """Report the end of a preparatory run."""
        self._board.end_preparatory(folder.name, outcome.state)
        event = f"preparatory run {folder.name} {outcome.state}{_describe_reason(outcome, folder)}"
        self._view.print_line(event)
        _log_end(event, outcome, folder)

    def interrupted(self, jobs: Sequence[Job], folder: File, outcome: Outcome | None) -> None:
        """Report that the sweep ends while a trial or a preparatory run is running."""
        self._board.end_preparatory(folder.name, "interrupted")
        for job in jobs:
            if outcome is not None:
                self._board.end(job, outcome)
        _LOG.warning("interrupted: the sweep ends", extra=trial_field(folder, jobs))


def trial_field(folder: File, jobs: Sequence[Job] = ()) -> dict[str, str]:
    """Return the field `trial` of a log record: the job's number and the name of its record.

    Args:
        folder: record of the trial.
        jobs: jobs of the trial; none for a preparatory run.
    """
    return {"trial": "/".join([*(str(job.number) for job in jobs[:1]), folder.name])}


def _log_end(event: str, outcome: Outcome, folder: File, jobs: Sequence[Job] = ()) -> None:
    levels = {"failed": logging.ERROR, "diverged": logging.WARNING}
    text = f"{event}\n{outcome.traceback}" if outcome.traceback else event
    _LOG.log(levels.get(outcome.state, logging.INFO), "%s", text, extra=trial_field(folder, jobs))


def _describe_reason(outcome: Outcome, folder: File) -> str:
    """Return the reason of an outcome, and the path of its traceback where there is one."""
    if not outcome.reason:
        return ""
    trace = f"; traceback in {folder / 'traceback.txt'}" if outcome.traceback else ""
    return f": {outcome.reason}{trace}"
