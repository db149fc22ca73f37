"""Ray Tune carries work out: one trial a slot, in an actor that lives from trial to trial.

The only room that imports ray. What to run, where it is recorded and who watches is the
`Source`'s business; here is only how work reaches actors and its end comes back.
"""

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path as File
from typing import Any

os.environ.update(  # before the import, which reads them
    RAY_USAGE_STATS_ENABLED="0",  # no telemetry
    RAY_AIR_NEW_OUTPUT="0",  # the sweep has a table of its own
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
    TUNE_DISABLE_SIGINT_HANDLER="1",  # the driver's asks trials to save their state first
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    # Nothing listens beyond loopback: without this Ray turns the address below into the host's,
    # and serves on all of them.
    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",
)

import ray
from ray import tune
from ray.tune.search import Searcher

from lab.spec import Resources
from lab.work import Source, Work, slots

_OBJECT_STORE = 150 * 2**20  # bytes; trials pass files, not objects


def run(source: Source, resources: Resources, storage: File) -> None:
    """Start Ray here, run everything that `source` has, and stop Ray.

    Args:
        source: the driver.
        resources: of each trial, and how many run at once.
        storage: folder for what Tune itself writes.
    """
    count = slots(resources)
    # A socket's path is at most 107 bytes, and Ray puts 60 of its own behind this.
    scratch = tempfile.mkdtemp(prefix="lab-", dir="/tmp")
    ray.init(
        address="local",
        num_cpus=count * resources.cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=_OBJECT_STORE,
        _node_ip_address="127.0.0.1",
        _temp_dir=scratch,
    )
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))  # Ray has put its own there
    works: dict[str, Work] = {}
    try:
        tune.Tuner(
            tune.with_resources(_in_actor, {"CPU": resources.cpus, "GPU": resources.gpus}),
            tune_config=tune.TuneConfig(
                search_alg=_Asker(source, resources, works),
                num_samples=-1,
                max_concurrent_trials=count,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(storage.resolve()),
                callbacks=[_Watcher(source, works)],
                verbose=0,
            ),
        ).fit()
    finally:
        ray.shutdown()
        shutil.rmtree(scratch, ignore_errors=True)


class _Asker(Searcher):
    """Hands out the source's work, and returns its ends."""

    def __init__(self, source: Source, resources: Resources, works: dict[str, Work]) -> None:
        super().__init__()
        self._source, self._resources, self._works = source, resources, works

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        work = self._source.next()
        if work is None:
            finished: str = Searcher.FINISHED
            return finished if self._source.done() else None
        self._works[trial_id] = work
        return {
            "work": work,
            "resources": self._resources,
            "stop_file": self._source.stop_file,
        }

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        del result  # the record has it
        if trial_id in self._works:
            reason = "its process died before it could say why" if error else None
            self._source.ended(self._works.pop(trial_id), reason)

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing: the search resumes from its own records."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing is kept."""


class _Watcher(tune.Callback):
    """Passes on that a trial has reported."""

    def __init__(self, source: Source, works: dict[str, Work]) -> None:
        self._source, self._works = source, works

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        del iteration, trials
        if trial.trial_id in self._works:
            self._source.scored(self._works[trial.trial_id])


def _in_actor(config: dict[str, Any]) -> None:
    """Run one trial in a Tune actor, which was used before and will be again."""
    import torch

    from lab import trial

    resources, stop_file = config["resources"], config["stop_file"]
    torch.set_num_threads(resources.cpus)
    trial.run(
        config["work"],
        device="cuda" if resources.gpus else "cpu",
        report=lambda row: tune.report({"step": row["spent/steps"]}),
        stop=_Poll(stop_file),
    )


class _Poll:
    """Whether a file exists, asked of the disk at most once a second."""

    def __init__(self, file: File) -> None:
        self._file, self._asked = file, time.monotonic()

    def __call__(self) -> bool:
        if time.monotonic() - self._asked < 1:
            return False
        self._asked = time.monotonic()
        return self._file.exists()
