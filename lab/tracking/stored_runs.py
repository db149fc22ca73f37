"""Read the runs of a sweep's trials, and all values of their metrics.

MLflow's client builds an object for each tag, parameter and metric of a run, and needs a request
for each metric of each run to read all of its values. Of a SQLite database, four queries read the
runs of a sweep, and one query reads the values of all of them.
"""

import json
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import Any, NamedTuple, TypeVar

from lab.tracking import tags
from lab.tracking.client import database_file
from lab.tracking.search import search_runs

_T = TypeVar("_T")
_CHILDREN = """
    SELECT run_uuid, start_time FROM runs
    WHERE experiment_id = ? AND lifecycle_stage = 'active'
    AND run_uuid IN (SELECT run_uuid FROM tags WHERE key = ? AND value = ?)
"""
_OF_RUNS = "WHERE run_uuid IN (SELECT value FROM json_each(?))"
_TAGS = f"SELECT run_uuid, key, value FROM tags {_OF_RUNS}"  # noqa: S608 - constants
_PARAMS = f"SELECT run_uuid, key, value FROM params {_OF_RUNS}"  # noqa: S608
_LAST = f"SELECT run_uuid, key, value FROM latest_metrics {_OF_RUNS} AND NOT is_nan"  # noqa: S608
_POINTS = (
    f"SELECT run_uuid, key, step, value FROM metrics {_OF_RUNS} AND NOT is_nan "  # noqa: S608
    f"AND key NOT GLOB '{tags.COPY_PREFIX}*'"
)


class Point(NamedTuple):
    """A value of a metric.

    Attributes:
        run: identity of the run.
        name: name of the metric.
        step: step of the value.
        value: the value.
    """

    run: str
    name: str
    step: int
    value: float


class StoredInfo(NamedTuple):
    """Identity and start of a run (Unix time in milliseconds), as in MLflow's `RunInfo`."""

    run_id: str
    start_time: int


@dataclass(frozen=True, kw_only=True)
class StoredData:
    """Tags, parameters and last values of the metrics of a run, as in MLflow's `RunData`."""

    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


class StoredRun(NamedTuple):
    """A run with the attributes of MLflow's `Run` that the lab uses."""

    info: StoredInfo
    data: StoredData


def read_children(client: Any, uri: str, experiment: str, parent: str) -> list[Any]:
    """Return the runs of a sweep's trials, as `StoredRun` or as MLflow's `Run`.

    Args:
        client: MLflow client.
        uri: URI of the tracking store.
        experiment: identity of the experiment.
        parent: identity of the sweep's run.
    """
    runs = _query(uri, lambda database: _read_children(database, experiment, parent))
    if runs is not None:
        return runs
    return search_runs(client, experiment, f"tags.{tags.PARENT_RUN} = '{parent}'")


def read_points(client: Any, uri: str, runs: Collection[Any]) -> Iterator[Point]:
    """Yield the values of the metrics of runs.

    Values that are not a number, and the copies of metrics for other axes, are left out.

    Args:
        client: MLflow client.
        uri: URI of the tracking store.
        runs: runs, as `read_children` returns them.
    """
    names = json.dumps([run.info.run_id for run in runs])
    points = _query(uri, lambda database: database.execute(_POINTS, (names,)).fetchall())
    yield from _read_points(client, runs) if points is None else map(Point._make, points)


def _query(uri: str, read: Callable[[sqlite3.Connection], _T]) -> _T | None:
    """Return what a function reads from a database; None if the store is a server.

    The same for a schema that differs from that of the tested versions of MLflow.
    """
    file = database_file(uri)
    if file is None:
        return None
    try:
        with closing(_open_read_only(file)) as database:
            return read(database)
    except sqlite3.OperationalError:
        return None


def _open_read_only(file: File) -> sqlite3.Connection:
    database = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=20)
    # Not UTF-8 only where another program has written it; `checked_tags` refuses what matters.
    database.text_factory = lambda content: content.decode(errors="replace")
    return database


def _read_children(database: sqlite3.Connection, experiment: str, parent: str) -> list[Any]:
    found = database.execute(_CHILDREN, (int(experiment), tags.PARENT_RUN, parent))
    runs = {run: StoredRun(StoredInfo(run, start), StoredData()) for run, start in found}
    names = json.dumps(list(runs))
    data = {run: stored.data for run, stored in runs.items()}
    _fill(database, _TAGS, names, {run: each.tags for run, each in data.items()})
    _fill(database, _PARAMS, names, {run: each.params for run, each in data.items()})
    _fill(database, _LAST, names, {run: each.metrics for run, each in data.items()})
    return list(runs.values())


def _fill(
    database: sqlite3.Connection, query: str, names: str, by_run: Mapping[str, dict[str, Any]]
) -> None:
    for run, key, value in database.execute(query, (names,)):
        by_run[run][key] = value


def _read_points(client: Any, runs: Collection[Any]) -> Iterator[Point]:
    for run in runs:
        for name in run.data.metrics:
            if name.startswith(tags.COPY_PREFIX):
                continue
            for point in client.get_metric_history(run.info.run_id, name):
                if point.value == point.value:  # false for NaN
                    yield Point(run.info.run_id, name, point.step, point.value)
