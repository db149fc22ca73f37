"""Tune is handed nothing that belongs to the driver's process alone."""

import pickletools
import signal
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
from lab.storage.mirror import LocalOnly, Mirror, Remote
from lab.trials.assignment import Assignment

SMALL = 8_192  # bytes
# Modules of a display, a lock, a connection, and of what holds one.
OWN = {"_io", "_thread", "rich", "socket", "sqlite3", "threading"} | {
    f"lab.{name}" for name in ("board", "driver", "ledger", "live", "search", "store", "supplies")
}


def work(folder: Path, mirror: Mirror) -> Assignment:
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
        metric=METRICS["detect/bigram/auroc"],
        mirror=mirror,
    )


class Source:
    """Holds what the driver does, and hands out one trial."""

    def __init__(self, folder: Path, mirror: Mirror) -> None:
        self.stop_file = folder / "stop"
        self._work = work(folder, mirror)
        self._held = threading.RLock(), Live(), sqlite3.connect(":memory:")

    def close(self) -> None:
        self._held[2].close()

    def next(self) -> Assignment | None:
        return self._work

    def done(self) -> bool:
        return False

    def began(self, work: Assignment) -> None: ...

    def looked(self) -> None: ...

    def scored(self, work: Assignment) -> None: ...

    def ended(self, work: Assignment, error: str | None) -> None: ...


class Tuner:
    """Takes what `ray.tune.Tuner` is handed, and asks the searcher for one trial."""

    handed: tuple[Any, ...]

    def __init__(self, *trainable: Any, tune_config: Any, run_config: Any) -> None:
        trials = tune_config.search_alg.suggest("0")
        type(self).handed = (*trainable, tune_config, run_config, trials)

    def fit(self) -> None: ...


@pytest.fixture(params=["folder", "address"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Source]:
    mirror = LocalOnly() if request.param == "folder" else Remote(tmp_path, "s3://bucket/lab")
    opened = Source(tmp_path, mirror)
    yield opened
    opened.close()


@pytest.mark.parametrize("carry_out", [runner.run_in_actor, worker_group.run_in_worker_group])
def test_what_tune_pickles_is_small_and_holds_nothing_of_the_drivers_process(
    source: Source, carry_out: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TypeError, match="pickle"):
        cloudpickle.dumps(source)
    monkeypatch.setattr(runner.tune, "Tuner", Tuner)
    before = signal.getsignal(signal.SIGTERM)
    try:
        runner.run_trials(source, Resources(), RayCluster(slots=1, scratch=None), "ray", carry_out)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(Tuner.handed) == 4
    for each in Tuner.handed:
        pickled = cloudpickle.dumps(each)
        assert len(pickled) < SMALL
        said = {
            argument for _, argument, _ in pickletools.genops(pickled) if isinstance(argument, str)
        }
        assert not OWN & {part for name in said for part in (name, name.partition(".")[0])}
