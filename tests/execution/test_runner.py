"""Objects passed to Ray Tune can be pickled and hold no resources of the driver's process."""

import pickletools
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray import cloudpickle
from rich.live import Live

from lab.config.experiment import Resources
from lab.config.metrics import METRICS
from lab.execution import runner, worker_group
from lab.execution.ray_cluster import RayCluster
from lab.loading.search_space import build_trial
from lab.storage.mirror import LocalOnly, Mirror
from lab.storage.remote import Remote
from lab.trials.assignment import Assignment

MAX_BYTES = 8_192
# Modules of displays, locks and connections, and of the lab's classes that hold one.
PROCESS_LOCAL = {"_io", "_thread", "rich", "socket", "sqlite3", "threading"} | {
    "lab.display.board",
    "lab.display.live",
    "lab.execution.assignment_builder",
    "lab.execution.driver",
    "lab.execution.prerequisites",
    "lab.search.search",
    "lab.tracking.store",
    "lab.tracking.sync",
}


def build_assignment(folder: Path, mirror: Mirror) -> Assignment:
    return Assignment(
        trial=build_trial(
            {
                "encoder": {"size": "tiny"},
                "objective": {"kind": "electra"},
                "budget": {"kind": "flops", "amount": 1e12},
            },
            {},
        ),
        folder=folder / "trials" / "0123",
        text=folder / "text",
        held_out=folder / "held-out.npz",
        pairs=None,
        metric=METRICS["detect/bigram/auroc"],
        mirror=mirror,
    )


class Source:
    """Assignment source that holds a lock, a display and a connection, as the driver does."""

    def __init__(self, folder: Path, mirror: Mirror) -> None:
        self.stop_file = folder / "stop"
        self._assignment = build_assignment(folder, mirror)
        self._resources = threading.RLock(), Live(), sqlite3.connect(":memory:")

    def close(self) -> None:
        self._resources[2].close()

    def next(self) -> Assignment | None:
        return self._assignment

    def done(self) -> bool:
        return False

    def on_start(self, work: Assignment) -> None: ...

    def poll(self) -> None: ...

    def on_evaluation(self, work: Assignment) -> None: ...

    def on_end(self, work: Assignment, error: str | None) -> None: ...


class Tuner:
    """Replacement of `ray.tune.Tuner` that stores its arguments and one suggested trial."""

    arguments: tuple[Any, ...]

    def __init__(self, *trainable: Any, tune_config: Any, run_config: Any) -> None:
        suggested = tune_config.search_alg.suggest("0")
        type(self).arguments = (*trainable, tune_config, run_config, suggested)

    def fit(self) -> None: ...


@pytest.fixture(params=["folder", "address"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Source]:
    mirror = LocalOnly() if request.param == "folder" else Remote(tmp_path, "s3://bucket/lab")
    opened = Source(tmp_path, mirror)
    yield opened
    opened.close()


@pytest.mark.reported
@pytest.mark.parametrize("trainable", [runner.run_in_actor, worker_group.run_in_worker_group])
def test_pickled_arguments_of_tune_are_small_and_hold_no_resources_of_the_driver(
    source: Source, trainable: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TypeError, match="pickle"):
        cloudpickle.dumps(source)
    monkeypatch.setattr(runner.tune, "Tuner", Tuner)
    runner.run_trials(source, Resources(), RayCluster(slots=1, scratch=None), "ray", trainable)
    assert len(Tuner.arguments) == 4
    for each in Tuner.arguments:
        pickled = cloudpickle.dumps(each)
        assert len(pickled) < MAX_BYTES
        names = {
            argument for _, argument, _ in pickletools.genops(pickled) if isinstance(argument, str)
        }
        modules = names | {name.partition(".")[0] for name in names}
        assert not PROCESS_LOCAL & modules
