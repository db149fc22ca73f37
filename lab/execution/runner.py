"""Ray Tune carries work out: one trial a slot, in an actor that lives from trial to trial.

The `AssignmentSource` decides what to run and where to record it. This module hands work to actors and
reports its end. ray is imported here, in `cluster` and in `group`.
"""

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from lab.config.experiment import Resources
from lab.execution import ray_cluster
from lab.trials.assignment import RESTARTS, Assignment, AssignmentSource, StopSignal

_LOOK = 5.0  # seconds between two looks at the cluster
_DRIVES = {"memory": 2**29}  # bytes; what an actor that only drives its workers asks for


class ClusterLostError(RuntimeError):
    """There is no machine left to run anything."""


def run_trials(
    source: AssignmentSource,
    resources: Resources,
    joined: ray_cluster.RayCluster,
    storage: str,
    carry_out: Callable[[dict[str, Any]], None],
) -> None:
    """Run everything that `source` has.

    Args:
        source: the driver.
        resources: of each trial.
        joined: the cluster that carries it out.
        storage: folder, or address of one, for what Ray itself writes.
        carry_out: runs one trial in an actor: `run_in_actor`, or `group.carry_out`.
    """
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))  # Ray has put its own there
    bundle = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    with _Session(source, {"scratch": joined.scratch, "storage": storage}).open() as token:
        tune.Tuner(
            tune.with_resources(carry_out, bundle if resources.workers == 1 else _DRIVES),
            tune_config=tune.TuneConfig(
                search_alg=_Asker(token),
                num_samples=-1,
                max_concurrent_trials=joined.slots,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=storage,
                failure_config=tune.FailureConfig(max_failures=RESTARTS),
                callbacks=[_Watcher(token)],
                verbose=0,
            ),
        ).fit()


def run_in_actor(config: dict[str, Any]) -> None:
    """Run one trial in a Tune actor, which was used before and will be again."""
    import torch

    from lab.trials import run as trial

    asked: Assignment = config["work"]
    work = asked.brought(f"alone-{os.getpid()}")
    torch.set_num_threads(work.resources.cpus_per_worker)
    try:
        trial.run_trial(
            work,
            device="cuda" if work.resources.gpus_per_worker else "cpu",
            report=lambda row: tune.report({"step": row["spent/steps"]}),
            wish=StopSignal(asked, work, config["stop_file"]),
        )
    finally:
        work.mirror.drop(work.folder)


@dataclass
class _Session:
    """What Tune's searcher and callback work on; it never leaves this process.

    Tune pickles both when it starts, for a `Tuner.restore` that the lab has no use for, since
    the records hold all that a sweep goes on from. So both hold a token instead of the source,
    which has a display, databases and locks.

    Attributes:
        source: the driver.
        settings: what every trial's configuration has beside its work.
        works: handed out and not ended, by Tune's name of the trial.
        fault: the first error of the source, which Tune would wrap or swallow.
    """

    source: AssignmentSource
    settings: dict[str, Any]
    works: dict[str, Assignment] = field(default_factory=dict)
    fault: Exception | None = None

    @contextmanager
    def open(self) -> Iterator[str]:
        """Yield the token of this session; raise the source's first error in the end."""
        token = uuid.uuid4().hex
        _SESSIONS[token] = self
        try:
            yield token
        finally:
            del _SESSIONS[token]
            self.raise_fault()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep what goes wrong inside."""
        try:
            yield
        except Exception as error:
            self.fault = self.fault or error
            raise

    def raise_fault(self) -> None:
        """Raise what was kept."""
        if self.fault is not None:
            raise self.fault


_SESSIONS: dict[str, _Session] = {}


class _Asker(Searcher):
    """Hands out the source's work, and returns its ends.

    Args:
        token: of an open session.
    """

    def __init__(self, token: str) -> None:
        super().__init__()
        self._token = token

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        session = _SESSIONS[self._token]
        with session.kept():
            work = session.source.next()
            if work is None:
                finished: str = Searcher.FINISHED
                return finished if session.source.done() else None
        session.works[trial_id] = work
        return session.settings | {"work": work, "stop_file": session.source.stop_file}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        del result  # the record has it
        session = _SESSIONS[self._token]
        if trial_id in session.works:
            reason = "its process died before it could say why" if error else None
            with session.kept():
                session.source.ended(session.works.pop(trial_id), reason)

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing: the search resumes from its own records."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing is kept."""


class _Watcher(tune.Callback):
    """Passes on that a trial has begun or reported.

    Args:
        token: of an open session.
    """

    def __init__(self, token: str) -> None:
        self._token = token
        self._looked = time.monotonic()

    def on_step_begin(self, iteration: int, trials: list[Any], **_: Any) -> None:
        del iteration, trials
        session = _SESSIONS[self._token]
        session.raise_fault()
        with session.kept():
            session.source.looked()
        if time.monotonic() - self._looked < _LOOK:
            return
        self._looked = time.monotonic()
        with session.kept():
            if not ray_cluster.any_node_alive():
                raise ClusterLostError("Ray's last machine is gone")

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        del iteration, trials
        session = _SESSIONS[self._token]
        if trial.trial_id in session.works:
            with session.kept():
                session.source.began(session.works[trial.trial_id])

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        del iteration, trials
        session = _SESSIONS[self._token]
        if trial.trial_id in session.works:
            with session.kept():
                session.source.scored(session.works[trial.trial_id])
