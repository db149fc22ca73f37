"""Ray Tune carries work out: one trial a slot, in an actor that lives from trial to trial.

What to run, where it is recorded and who watches is the `Source`'s business; here is only how
work reaches actors and its end comes back. ray is imported here, in `cluster` and in `group`.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from lab import cluster
from lab.spec import Resources
from lab.work import RESTARTS, Source, Wishes, Work

_LOOK = 5.0  # seconds between two looks at the cluster
_DRIVES = {"memory": 2**29}  # bytes; what an actor that only drives its workers asks for


class LostError(RuntimeError):
    """There is no machine left to run anything."""


def run(
    source: Source,
    resources: Resources,
    joined: cluster.Cluster,
    storage: str,
    carry_out: Callable[[dict[str, Any]], None],
) -> None:
    """Run everything that `source` has.

    Args:
        source: the driver.
        resources: of each trial.
        joined: the cluster that carries it out.
        storage: folder, or address of one, for what Ray itself writes.
        carry_out: runs one trial in an actor: `alone`, or `group.carry_out`.
    """
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))  # Ray has put its own there
    works: dict[str, Work] = {}
    faults = _Faults()
    settings = {"scratch": joined.scratch, "storage": storage}
    bundle = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    tuner = tune.Tuner(
        tune.with_resources(carry_out, bundle if resources.workers == 1 else _DRIVES),
        tune_config=tune.TuneConfig(
            search_alg=_Asker(source, settings, works, faults),
            num_samples=-1,
            max_concurrent_trials=joined.slots,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=storage,
            failure_config=tune.FailureConfig(max_failures=RESTARTS),
            callbacks=[_Watcher(source, works, faults)],
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    finally:
        faults.raise_first()


def alone(config: dict[str, Any]) -> None:
    """Run one trial in a Tune actor, which was used before and will be again."""
    import torch

    from lab import trial

    asked: Work = config["work"]
    work = asked.brought(f"alone-{os.getpid()}")
    torch.set_num_threads(work.resources.cpus_per_worker)
    try:
        trial.run(
            work,
            device="cuda" if work.resources.gpus_per_worker else "cpu",
            report=lambda row: tune.report({"step": row["spent/steps"]}),
            wish=Wishes(asked, work, config["stop_file"]),
        )
    finally:
        work.mirror.drop(work.folder)


class _Faults:
    """Keeps the first error of the source, which Tune would wrap or swallow."""

    def __init__(self) -> None:
        self._first: Exception | None = None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep what goes wrong inside."""
        try:
            yield
        except Exception as error:
            self._first = self._first or error
            raise

    def raise_first(self) -> None:
        """Raise what was kept."""
        if self._first is not None:
            raise self._first


class _Asker(Searcher):
    """Hands out the source's work, and returns its ends."""

    def __init__(
        self, source: Source, settings: dict[str, Any], works: dict[str, Work], faults: _Faults
    ) -> None:
        super().__init__()
        self._source, self._settings, self._works = source, settings, works
        self._faults = faults

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        with self._faults.kept():
            work = self._source.next()
            if work is None:
                finished: str = Searcher.FINISHED
                return finished if self._source.done() else None
        self._works[trial_id] = work
        return self._settings | {"work": work, "stop_file": self._source.stop_file}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        del result  # the record has it
        if trial_id in self._works:
            reason = "its process died before it could say why" if error else None
            with self._faults.kept():
                self._source.ended(self._works.pop(trial_id), reason)

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing: the search resumes from its own records."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing is kept."""


class _Watcher(tune.Callback):
    """Passes on that a trial has begun or reported."""

    def __init__(self, source: Source, works: dict[str, Work], faults: _Faults) -> None:
        self._source, self._works, self._faults = source, works, faults
        self._looked = time.monotonic()

    def on_step_begin(self, iteration: int, trials: list[Any], **_: Any) -> None:
        del iteration, trials
        self._faults.raise_first()
        if time.monotonic() - self._looked < _LOOK:
            return
        self._looked = time.monotonic()
        with self._faults.kept():
            if not cluster.alive():
                raise LostError("Ray's last machine is gone")

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        del iteration, trials
        if trial.trial_id in self._works:
            with self._faults.kept():
                self._source.began(self._works[trial.trial_id])

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        del iteration, trials
        if trial.trial_id in self._works:
            with self._faults.kept():
                self._source.scored(self._works[trial.trial_id])
