"""Ray Tune carries work out: one trial a slot, in an actor that lives from trial to trial.

What to run, where it is recorded and who watches is the `Source`'s business; here is only how
work reaches actors and its end comes back. ray is imported here, in `cluster` and in `group`.
"""

import os
import signal
from collections.abc import Callable
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from lab.cluster import Cluster
from lab.spec import Resources
from lab.work import Source, Wishes, Work

_RESTARTS = 2  # of a trial whose process died; it goes on from its checkpoint
_DRIVES = {"memory": 2**29}  # bytes; what an actor that only drives its workers asks for


def run(
    source: Source,
    resources: Resources,
    cluster: Cluster,
    storage: str,
    carry_out: Callable[[dict[str, Any]], None],
) -> None:
    """Run everything that `source` has.

    Args:
        source: the driver.
        resources: of each trial.
        cluster: where.
        storage: folder, or address of one, for what Ray itself writes.
        carry_out: runs one trial in an actor: `alone`, or `group.carry_out`.
    """
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))  # Ray has put its own there
    works: dict[str, Work] = {}
    settings = {"scratch": cluster.scratch, "storage": storage}
    bundle = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    tune.Tuner(
        tune.with_resources(carry_out, bundle if resources.workers == 1 else _DRIVES),
        tune_config=tune.TuneConfig(
            search_alg=_Asker(source, settings, works),
            num_samples=-1,
            max_concurrent_trials=cluster.slots,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=storage,
            failure_config=tune.FailureConfig(max_failures=_RESTARTS),
            callbacks=[_Watcher(source, works)],
            verbose=0,
        ),
    ).fit()


def alone(config: dict[str, Any]) -> None:
    """Run one trial in a Tune actor, which was used before and will be again."""
    import torch

    from lab import trial

    asked: Work = config["work"]
    work = asked.brought(f"alone-{os.getpid()}")
    torch.set_num_threads(work.resources.cpus_per_worker)
    trial.run(
        work,
        device="cuda" if work.resources.gpus_per_worker else "cpu",
        report=lambda row: tune.report({"step": row["spent/steps"]}),
        wish=Wishes(asked, work, config["stop_file"]),
    )


class _Asker(Searcher):
    """Hands out the source's work, and returns its ends."""

    def __init__(self, source: Source, settings: dict[str, Any], works: dict[str, Work]) -> None:
        super().__init__()
        self._source, self._settings, self._works = source, settings, works

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
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
            self._source.ended(self._works.pop(trial_id), reason)

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing: the search resumes from its own records."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing is kept."""


class _Watcher(tune.Callback):
    """Passes on that a trial has begun or reported."""

    def __init__(self, source: Source, works: dict[str, Work]) -> None:
        self._source, self._works = source, works

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        del iteration, trials
        if trial.trial_id in self._works:
            self._source.began(self._works[trial.trial_id])

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        del iteration, trials
        if trial.trial_id in self._works:
            self._source.scored(self._works[trial.trial_id])
