"""Ray Tune carries jobs out: one worker a slot, in an actor that lives from trial to trial.

The only room that imports ray. What to run, where it is recorded and who watches is the
`Source`'s business; here is only how work reaches actors and its end comes back.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any, Protocol

from lab.spec import Resources, Trial

os.environ.update(
    RAY_USAGE_STATS_ENABLED="0",  # no telemetry
    RAY_AIR_NEW_OUTPUT="0",  # the sweep has a table of its own
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
)

_OBJECT_STORE = 150 * 2**20  # bytes; trials pass files, not objects


@dataclass(frozen=True, kw_only=True)
class Work:
    """A trial, ready to run: everything is in place on storage that all machines see.

    Attributes:
        trial: what to run.
        folder: of its record.
        text: folder of the prepared text.
        held_out: file of the frozen corruptions.
    """

    trial: Trial
    folder: File
    text: File
    held_out: File


class Source(Protocol):
    """Where work comes from and where its ends are told, all in the driver's one thread."""

    def next(self) -> Work | None:
        """Return work for a free slot; None where there is none now."""

    def done(self) -> bool:
        """Return whether no work is left and none is out."""

    def scored(self, work: Work) -> None:
        """Hear that a new point stands in the work's record."""

    def ended(self, work: Work, error: str | None) -> None:
        """Hear that work has ended; `error` where its process died before it could record it."""


def slots(resources: Resources) -> int:
    """Return how many trials run at once on this machine."""
    if resources.slots:
        return resources.slots
    return max(1, len(os.sched_getaffinity(0)) // resources.cpus)


def run(source: Source, resources: Resources, storage: File) -> None:
    """Start Ray here, run everything that `source` has, and stop Ray.

    Raises:
        KeyboardInterrupt: the user stopped it; what ended is recorded.
    """
    import ray
    from ray import tune

    count = slots(resources)
    ray.init(
        address="local",
        num_cpus=count * resources.cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=_OBJECT_STORE,
        _node_ip_address="127.0.0.1",  # nothing listens beyond loopback
        _temp_dir=tempfile.mkdtemp(prefix="lab-", dir="/tmp"),  # noqa: S108 - sockets need it short
    )
    try:
        _tune(tune, source, resources, count, storage)
    finally:
        ray.shutdown()


def _tune(tune: Any, source: Source, resources: Resources, count: int, storage: File) -> None:
    from ray.tune.search import Searcher

    works: dict[str, Work] = {}

    class Asker(Searcher):  # type: ignore[misc]
        """Hands out the source's work, and returns its ends."""

        def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
            work = source.next()
            if work is None:
                return Searcher.FINISHED if source.done() else None
            works[trial_id] = work
            return {"work": work, "resources": resources}

        def on_trial_complete(
            self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
        ) -> None:
            del result  # the record has it
            if trial_id in works:
                reason = "its process died before it could say why" if error else None
                source.ended(works.pop(trial_id), reason)

        def save(self, checkpoint_path: str) -> None:
            """Keep nothing: the search resumes from its own records."""

        def restore(self, checkpoint_path: str) -> None:
            """Nothing is kept."""

    class Watcher(tune.Callback):  # type: ignore[misc, name-defined]
        """Passes on that a trial has reported."""

        def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            del iteration, trials
            if trial.trial_id in works:
                source.scored(works[trial.trial_id])

    tuner = tune.Tuner(
        tune.with_resources(_in_actor, {"CPU": resources.cpus, "GPU": resources.gpus}),
        tune_config=tune.TuneConfig(
            search_alg=Asker(),
            num_samples=-1,
            max_concurrent_trials=count,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(storage.resolve()),
            callbacks=[Watcher()],
            verbose=0,
        ),
    )
    tuner.fit()


def _in_actor(config: dict[str, Any]) -> None:
    """Run one trial in a Tune actor, which was used before and will be again."""
    import torch
    from ray import tune

    from lab import trial

    work, resources = config["work"], config["resources"]
    torch.set_num_threads(resources.cpus)
    trial.run(
        work.trial,
        work.folder,
        text=work.text,
        held_out=work.held_out,
        device="cuda" if resources.gpus else "cpu",
        report=lambda row: tune.report({"step": row["spent/steps"]}),
    )
