"""Read all values of all metrics of many runs.

MLflow's client needs a request for each metric of each run. For a SQLite database, one query reads
the values of all runs.
"""

import json
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path as File
from typing import Any, NamedTuple

from lab.tracking.client import database_file

_QUERY = """
    SELECT run_uuid, key, step, value FROM metrics
    WHERE NOT is_nan AND run_uuid IN (SELECT value FROM json_each(?))
"""


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


def read_points(client: Any, uri: str, runs: Collection[Any]) -> Iterator[Point]:
    """Yield the values of all metrics of runs; values that are not a number are left out.

    Args:
        client: MLflow client.
        uri: URI of the tracking store.
        runs: MLflow runs.
    """
    file = database_file(uri)
    if file is not None:
        try:
            yield from list(_read_database(file, [run.info.run_id for run in runs]))
        except sqlite3.OperationalError:
            pass  # another schema than that of the tested versions of MLflow
        else:
            return
    yield from _read_client(client, runs)


def _read_database(file: File, runs: Collection[str]) -> Iterator[Point]:
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as database:
        for run, name, step, value in database.execute(_QUERY, (json.dumps(list(runs)),)):
            yield Point(run, name, step, value)


def _read_client(client: Any, runs: Collection[Any]) -> Iterator[Point]:
    for run in runs:
        for name in run.data.metrics:
            for point in client.get_metric_history(run.info.run_id, name):
                if point.value == point.value:  # noqa: PLR0124 - false for NaN
                    yield Point(run.info.run_id, name, point.step, point.value)
