"""Addresses in the MLflow user interface, and its command.

python -m lab.tracking.user_interface     # addresses of all sweeps in runs/mlflow.db
"""

import shlex
import sys
from urllib.parse import quote

from lab.config.metrics import find_metric
from lab.tracking import tags
from lab.tracking.client import connect_client, database_file, default_uri
from lab.tracking.frames import SweepFrames

_LOCAL = "http://127.0.0.1:5000"  # address at which `mlflow ui` serves a database
# Without the executor of jobs, which the lab does not use, the server starts in half the time.
_VARIABLES = "MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false"


def runs_link(uri: str, experiment: str, *, maximize: bool) -> str:
    """Return the address of the table of an experiment's runs, best score first.

    Without `workflowType`, MLflow 3 opens an experiment in its mode for language models.

    Args:
        uri: URI of the tracking store.
        experiment: id of the MLflow experiment.
        maximize: whether larger scores are better.
    """
    base = _server(uri)
    column, ascending = quote(f"metrics.`{tags.SCORE}`"), str(not maximize).lower()
    return (
        f"{base}/#/experiments/{experiment}/runs?workflowType=machine_learning"
        f"&orderByKey={column}&orderByAsc={ascending}"
    )


def run_link(uri: str, experiment: str, run: str) -> str:
    """Return the address of a run.

    Args:
        uri: URI of the tracking store.
        experiment: id of the MLflow experiment.
        run: id of the run.
    """
    return f"{_server(uri)}/#/experiments/{experiment}/runs/{run}"


def _server(uri: str) -> str:
    return _LOCAL if database_file(uri) is not None else uri.rstrip("/")


def describe_interface(uri: str, frames: SweepFrames) -> list[str]:
    """Return the lines that a sweep ends with: the address of its runs, and how to serve it."""
    maximize = frames.metric.direction == "maximize"
    link = runs_link(uri, frames.experiment_id, maximize=maximize)
    if database_file(uri) is None:
        return [f"MLflow UI: {link}"]
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri]
    return [f"MLflow UI: {_VARIABLES} {shlex.join(command)}", f"           then open {link}"]


def list_links(uri: str) -> list[str]:
    """Return a line with name and address for each sweep of a tracking store."""
    client = connect_client(uri)
    lines = []
    for experiment in client.search_experiments():
        query = f"tags.`{tags.full_name(tags.KIND)}` = '{tags.KIND_SWEEP}'"
        for run in client.search_runs([experiment.experiment_id], query, max_results=1):
            metric = find_metric(run.data.tags[tags.full_name(tags.METRIC)])
            maximize = metric is None or metric.direction == "maximize"
            link = runs_link(uri, experiment.experiment_id, maximize=maximize)
            lines.append(f"{experiment.name}: {link}")
    return sorted(lines)


if __name__ == "__main__":
    print("\n".join(list_links(default_uri())))
