"""A tracking store in memory, in place of MLflow, for simulations of many sweeps."""

import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

URI = "http://memory"  # the form of a server's address, so that no database file is looked for


@dataclass
class _Info:
    run_id: str
    experiment_id: str
    start_time: int = 0


@dataclass
class _Data:
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)

    def copy(self) -> "_Data":
        return _Data(dict(self.tags), dict(self.params), dict(self.metrics))


@dataclass
class _Run:
    info: _Info
    data: _Data


@dataclass
class _Experiment:
    experiment_id: str
    name: str
    lifecycle_stage: str = "active"


class _Page(list[_Run]):
    token = None


class MemoryClient:
    """The methods of `mlflow.MlflowClient` that `lab.tracking` calls, without a database."""

    def __init__(self) -> None:
        self._experiments: dict[str, _Experiment] = {}
        self._runs: dict[str, _Run] = {}
        self._histories: dict[str, dict[str, list[Any]]] = {}

    def get_experiment_by_name(self, name: str) -> _Experiment | None:
        """Return the experiment of that name; None if there is none."""
        return self._experiments.get(name)

    def create_experiment(self, name: str, artifact_location: str | None = None) -> str:
        """Create an experiment and return its id."""
        del artifact_location
        self._experiments[name] = _Experiment(str(len(self._experiments)), name)
        return self._experiments[name].experiment_id

    def create_run(
        self, experiment_id: str, run_name: str = "", tags: dict[str, str] | None = None
    ) -> _Run:
        """Create a run; the store has the runs of one experiment only."""
        del run_name
        run = _Run(_Info(uuid.uuid4().hex, experiment_id), _Data(tags=dict(tags or {})))
        self._runs[run.info.run_id] = run
        self._histories[run.info.run_id] = {}
        return run

    def update_run(self, run_id: str, status: str) -> None:
        """Do nothing: the lab reads the state from a tag."""

    set_terminated = update_run

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        """Do nothing: no artifact is read."""

    def list_artifacts(self, run_id: str, path: str | None = None) -> list[Any]:
        """Return no artifact."""
        del run_id, path
        return []

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Any] = (),
        params: Sequence[Any] = (),
        tags: Sequence[Any] = (),
    ) -> None:
        """Store values; a metric has the value that was logged last."""
        data, histories = self._runs[run_id].data, self._histories[run_id]
        data.params |= {param.key: param.value for param in params}
        data.tags |= {tag.key: tag.value for tag in tags}
        for metric in metrics:
            histories.setdefault(metric.key, []).append(metric)
            data.metrics[metric.key] = metric.value  # the lab logs the steps in order

    def search_runs(
        self, experiment_ids: list[str], filter_string: str, **options: object
    ) -> _Page:
        """Return copies of the runs with all tags of a filter `tags.a = 'x' and tags.b = 'y'`."""
        del experiment_ids, options
        wanted = re.findall(r"tags\.`?([\w.]+)`? = '([^']*)'", filter_string)
        found = [
            run
            for run in self._runs.values()
            if all(run.data.tags.get(name) == value for name, value in wanted)
        ]
        return _Page(_Run(run.info, run.data.copy()) for run in found)

    def get_metric_history(self, run_id: str, key: str) -> list[Any]:
        """Return all points of a metric."""
        return self._histories[run_id][key]


@contextmanager
def tracking_in_memory() -> Iterator[str]:
    """Let `lab.tracking` connect to a new `MemoryClient`; yield the URI to connect to."""
    client = MemoryClient()

    def connect(*_: object) -> MemoryClient:
        return client

    with (
        mock.patch("lab.tracking.store.connect_writer", connect),
        mock.patch("lab.tracking.frames.connect_client", connect),
    ):
        yield URI
