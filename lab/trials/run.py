"""Run one trial from start to record in this process, alone or as one of several workers."""

import logging
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path as File

import torch

from lab import disk_space
from lab.config.metrics import untrained_name
from lab.config.results import MetricRow, Outcome, State
from lab.storage import provenance, record
from lab.training.distributed import SingleProcess, Workers
from lab.trials.assignment import Assignment
from lab.trials.divergence import DivergedError
from lab.trials.progress import ProgressReporter
from lab.trials.recorder import TrialRecorder
from lab.trials.scorers import AllScores, NoScores
from lab.trials.training import StoppedError, Training

_LOG = logging.getLogger(__name__)
_SINGLE_PROCESS = SingleProcess()


def run_trial(
    work: Assignment,
    *,
    device: str = "cpu",
    report: Callable[[MetricRow], None] = lambda _: None,
    requested_state: Callable[[], State] = lambda: "running",
    workers: Workers = _SINGLE_PROCESS,
) -> Outcome:
    """Train and score a trial, write its record, and return the outcome.

    An interrupted run continues from its newest checkpoint. With the same numbers of workers and
    threads on the same type of CPU, its results are bitwise those of an uninterrupted run. Without
    a checkpoint it starts from the beginning. With several workers, the
    first one calls this function and the others call `follow_trial`.

    Args:
        work: trial with its files and resources.
        device: device of the computation.
        report: function called with each scored point.
        requested_state: function that returns the requested state of the trial, called after each
            step; `interrupted` ends the run once its state is saved.
        workers: process group that trains the trial.

    Returns:
        The outcome. An exception inside the trial is recorded as an outcome too, so that a trial
        that fails does not end the sweep.
    """
    recorder = TrialRecorder(work)
    state: State = "finished"
    reason, trace = "", ""
    try:
        _train_and_fine_tune(work, recorder, device, report, requested_state, workers)
        if origin := record.read_origin(work.folder).name:
            reason = f"continued from {origin}"
    except DivergedError as error:
        state, reason = "diverged", str(error)
    except StoppedError as error:
        state, reason = error.state, str(error)
    except Exception as error:  # recorded as the outcome, so that the sweep continues
        if disk_space.is_disk_full(error):  # no fault of the trial, which continues later
            state, reason = "interrupted", _describe_full_disk(error, work)
        else:
            state, reason = "failed", f"{type(error).__name__}: {error}".splitlines()[0]
            trace = traceback.format_exc().strip()
    return recorder.write_outcome(state, reason, trace, _device_name(device))


def _train_and_fine_tune(
    work: Assignment,
    recorder: TrialRecorder,
    device: str,
    report: Callable[[MetricRow], None],
    requested_state: Callable[[], State],
    workers: Workers,
) -> None:
    """Train, score and fine-tune a trial, and record and report its scored points.

    The arguments are those of `run_trial`.

    Raises:
        DivergedError: the training has diverged.
        StoppedError: `requested_state` returned another state than `running`; the state is saved.
    """
    work.check_code()
    provenance.add_provenance(
        work.folder, replace(provenance.current_provenance(), threads=torch.get_num_threads())
    )
    tell = ProgressReporter(work.folder, work.mirror)
    scorer = AllScores(work, device)
    training = Training(work, scorer, workers, tell)
    recorder.resume(training.rows)
    _LOG.info("runs on %s from evaluation %d", _device_name(device), training.rows)
    untrained = record.read_untrained_blocks(work.folder)
    for row in training.train(requested_state):
        if not recorder.rows:
            untrained = {untrained_name(name): values for name, values in scorer.blocks.items()}
        record.write_blocks(work.folder, scorer.blocks | untrained)
        recorder.append(row)
        report(row)
        recorder.measure_busy()
    for entries in training.fine_tune(requested_state):
        # A finished run that is fine-tuned later has the other blocks in its record alone.
        record.write_blocks(work.folder, record.read_blocks(work.folder) | scorer.blocks)
        recorder.amend_last(entries)
        if workers.count == 1:  # all workers must report together, and the others have ended
            report(recorder.rows[-1])
        recorder.measure_busy()


def follow_trial(
    work: Assignment, *, device: str, workers: Workers, report: Callable[[MetricRow], None]
) -> None:
    """Take part in the training of a trial that the first worker scores and records.

    Args:
        work: trial with its files and resources.
        device: device of the computation.
        workers: process group that trains the trial.
        report: function called at each scored point with this worker's values, without scores.
    """
    work.check_code()
    try:
        for row in Training(work, NoScores(work, device), workers).train(lambda: "running"):
            report(row)
    except (DivergedError, StoppedError):
        return  # the first worker records the outcome


def _describe_full_disk(error: Exception, work: Assignment) -> str:
    if isinstance(error, disk_space.DiskFullError):
        return str(error)
    folders = (work.folder, File(tempfile.gettempdir()))
    return disk_space.describe_full(next(iter(disk_space.find_full(folders)), work.folder))


def _device_name(device: str) -> str:
    return device if device == "cpu" else torch.cuda.get_device_name(device)
