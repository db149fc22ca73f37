"""Runs trials with Ray Tune: one trial per slot, in an actor that is reused for the next trial.

The `AssignmentSource` (the driver) chooses the trials and their records. This module passes each
assignment to an actor and reports its end to the source. Only this module, `ray_cluster` and
`worker_group` import Ray.
"""

import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from lab.config.experiment import Resources
from lab.execution import ray_cluster
from lab.execution.cluster_watch import ClusterLostError
from lab.trials.assignment import RESTARTS, Assignment, AssignmentSource, StopSignal

_LOG = logging.getLogger(__name__)
_CHECK_INTERVAL = 5.0  # seconds between two checks that the cluster is alive
_GROUP_DRIVER = {"memory": 2**29}  # bytes; resources of an actor that only starts its workers
WORKERS_ENDED = "workers_ended"  # entry of a report to Tune: the errors that ended a worker group


def run_trials(
    source: AssignmentSource,
    resources: Resources,
    cluster: ray_cluster.RayCluster,
    storage: str,
    trainable: Callable[[dict[str, Any]], None],
) -> None:
    """Run all trials of a source.

    Args:
        source: source of the assignments (the driver).
        resources: resources of each trial.
        cluster: Ray cluster that runs the trials.
        storage: folder or URI for the files that Ray itself writes.
        trainable: function that runs one trial in an actor: `run_in_actor`, or
            `worker_group.run_in_worker_group` for trials of several workers.

    Raises:
        ClusterLostError: all nodes of the cluster have stopped.
    """
    bundle = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    with _Session(source, {"scratch": cluster.scratch, "storage": storage}).open() as token:
        tune.Tuner(
            tune.with_resources(trainable, bundle if resources.workers == 1 else _GROUP_DRIVER),
            tune_config=tune.TuneConfig(
                search_alg=_AssignmentSearcher(token),
                num_samples=-1,
                max_concurrent_trials=cluster.slots,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=storage,
                failure_config=tune.FailureConfig(max_failures=RESTARTS),
                callbacks=[_SourceCallback(token)],
                verbose=0,
            ),
        ).fit()


def run_in_actor(config: dict[str, Any]) -> None:
    """Run one trial in a Tune actor, which Tune reuses for other trials.

    Args:
        config: `work`, the assignment, and `stop_file`, the file that requests the sweep's end.
    """
    import torch

    from lab.trials import process_log
    from lab.trials import run as trial

    assignment: Assignment = config["work"]
    work = assignment.localize(f"alone-{os.getpid()}")
    torch.set_num_threads(work.resources.cpus_per_worker)
    try:
        with process_log.log_to_record(work.folder):
            trial.run_trial(
                work,
                device="cuda" if work.resources.gpus_per_worker else "cpu",
                report=lambda row: tune.report({"step": row["spent/steps"]}),
                requested_state=StopSignal(assignment, work, config["stop_file"]),
            )
    finally:
        work.mirror.delete_local(work.folder)


@dataclass
class _Session:
    """State shared by Tune's searcher and callback; it is never pickled.

    Tune pickles its searcher and callbacks when it starts, for `Tuner.restore`. The lab does not
    use `Tuner.restore`, since a sweep continues from its records. The source holds a display,
    databases and locks, which cannot be pickled. Searcher and callback therefore hold only a token,
    the session's key in `_SESSIONS`.

    Attributes:
        source: source of the assignments (the driver).
        settings: entries of every trial's configuration besides its assignment.
        works: running assignments, by Tune's trial id.
        fault: first exception raised by the source, which Tune would wrap or suppress.
    """

    source: AssignmentSource
    settings: dict[str, Any]
    works: dict[str, Assignment] = field(default_factory=dict)
    fault: Exception | None = None

    @contextmanager
    def open(self) -> Iterator[str]:
        """Yield the token of this session; on exit, raise the first exception of the source."""
        token = uuid.uuid4().hex
        _SESSIONS[token] = self
        try:
            yield token
        finally:
            del _SESSIONS[token]
            self.raise_fault()

    @contextmanager
    def record_fault(self) -> Iterator[None]:
        """Store the first exception that is raised in the context, and let it propagate."""
        try:
            yield
        except Exception as error:
            self.fault = self.fault or error
            raise

    def raise_fault(self) -> None:
        """Raise the stored exception, if any."""
        if self.fault is not None:
            raise self.fault


_SESSIONS: dict[str, _Session] = {}


class _AssignmentSearcher(Searcher):
    """Suggests the source's assignments to Tune, and reports their ends to the source.

    Args:
        token: token of an open session.
    """

    def __init__(self, token: str) -> None:
        super().__init__()
        self._token = token

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial of the driver, in the form that Ray Tune expects."""
        session = _SESSIONS[self._token]
        with session.record_fault():
            work = session.source.next()
            if work is None:
                finished: str = Searcher.FINISHED
                return finished if session.source.done() else None
        session.works[trial_id] = work
        return session.settings | {"work": work, "stop_file": session.source.stop_file}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        del result  # the record holds the result
        session = _SESSIONS[self._token]
        if trial_id in session.works:
            reason = "its process ended before it recorded an outcome" if error else None
            with session.record_fault():
                session.source.on_end(session.works.pop(trial_id), reason)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the search continues from its own records."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing, as in `save`."""


class _SourceCallback(tune.Callback):
    """Reports starts and evaluations of trials to the source, logs retries, checks the cluster.

    Args:
        token: token of an open session.
    """

    def __init__(self, token: str) -> None:
        self._token = token
        self._checked_at = time.monotonic()

    def on_step_begin(self, iteration: int, trials: list[Any], **_: Any) -> None:
        """Raise an error of the driver, and let it check the running trials."""
        del iteration, trials
        session = _SESSIONS[self._token]
        session.raise_fault()
        with session.record_fault():
            session.source.poll()
        if time.monotonic() - self._checked_at < _CHECK_INTERVAL:
            return
        self._checked_at = time.monotonic()
        with session.record_fault():
            if not ray_cluster.any_node_alive():
                raise ClusterLostError("all nodes of the Ray cluster have stopped")

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        del iteration, trials
        session = _SESSIONS[self._token]
        if trial.trial_id in session.works:
            with session.record_fault():
                session.source.on_start(session.works[trial.trial_id])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        del iteration, trials
        if WORKERS_ENDED in result:
            _LOG.warning("%s", result[WORKERS_ENDED], extra=_trial_field(trial))
        session = _SESSIONS[self._token]
        if trial.trial_id in session.works:
            with session.record_fault():
                session.source.on_evaluation(session.works[trial.trial_id])

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        del iteration, trials
        _log_error(trial, f"its process ended; retry {trial.num_failures} of {RESTARTS}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        del iteration, trials
        _log_error(trial, "its process ended, and is not started again")


def _log_error(trial: Any, event: str) -> None:
    """Log an event with the errors of a trial's processes, which Tune writes to a file."""
    error = ""
    if trial.error_file is not None:
        with suppress(OSError):
            error = f"\n{File(trial.error_file).read_text(encoding='utf-8').strip()}"
    _LOG.warning("%s%s", event, error, extra=_trial_field(trial))


def _trial_field(trial: Any) -> dict[str, str]:
    """Return the field `trial` of a log record: the name of the trial's record."""
    return {"trial": trial.config["work"].folder.name}
