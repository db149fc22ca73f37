"""Faults of the stores: locked databases, and an MLflow server that is not available."""

import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from tests.drills.harness import LIMIT, Drill, Result, SkippedError, Sweep, Workspace, rows

_AWAY = 60.0  # seconds for which MLflow's database is locked, or its server not available
_LOCKED = 20.0  # seconds for which Optuna's database is locked


def mlflow_locked(workspace: Workspace) -> Result:
    """another process locks mlflow.db for 60 s during training"""
    with workspace.sweep() as sweep:
        sweep.until("two trials in training", workspace.two_trials_in_training)
        with _locked(workspace.storage / "mlflow.db"):  # each evaluation is written to it
            sweep.ends(_AWAY)
        sweep.wait()
        workspace.check(sweep.status == 0, f"the sweep ended with {sweep.summary}")
    return workspace.finish(sweep)


def optuna_locked(workspace: Workspace) -> Result:
    """another process locks optuna.db from before the end of a trial until 20 s after it"""
    with workspace.sweep() as sweep:
        sweep.until("two trials in training", workspace.two_trials_in_training)
        with _locked(workspace.storage / "optuna.db"):  # it is written only at the end of trials
            sweep.until("the end of a trial", lambda: bool(workspace.states()))
            sweep.ends(_LOCKED)
        sweep.wait()
        _check_error(workspace, sweep)
        workspace.check(
            sweep.summary in {"0: 6 finished", f"2: {sweep.err.strip()}"}, "a trial was lost"
        )
    return workspace.finish(sweep)


def mlflow_locked_at_start(workspace: Workspace) -> Result:
    """at the second start another process locks mlflow.db for up to a minute"""
    return _locked_at_start(workspace, "mlflow.db")


def optuna_locked_at_start(workspace: Workspace) -> Result:
    """at the second start another process locks optuna.db for up to a minute"""
    return _locked_at_start(workspace, "optuna.db")


def terminated_while_waiting(workspace: Workspace) -> Result:
    """SIGTERM while the driver waits for MLflow, whose database another process has locked"""
    with workspace.sweep() as sweep:
        sweep.until("two trials in training", workspace.two_trials_in_training)
        with _locked(workspace.storage / "mlflow.db"):
            sweep.until("the wait for MLflow", lambda: "waiting up to" in sweep.out)
            os.kill(sweep.pid, signal.SIGTERM)
            sweep.wait()
        workspace.check(sweep.status == 130, f"status {sweep.status}, not 130")
        workspace.check("interrupted; " in sweep.err, f"the error is {sweep.err!r}")
    return workspace.finish(sweep)


def page_open(workspace: Workspace) -> Result:
    """MLflow's page is open during the sweep: its server reads the database all the time"""
    port = _free_port()
    with workspace.sweep() as sweep:
        database = workspace.storage / "mlflow.db"
        sweep.until("the database", database.exists)
        server = _start_server(workspace.folder, port, f"sqlite:///{database}")
        try:
            with suppress(AssertionError):  # the end of the sweep
                sweep.until("the end", lambda: not _search_runs(port), limit=10 * LIMIT)
            sweep.wait()
        finally:
            _kill(server)
        workspace.check(sweep.status == 0, f"the sweep ended with {sweep.summary}")
    return workspace.finish(sweep)


def two_spaces(workspace: Workspace) -> Result:
    """a sweep of another search space, with its own storage, writes to the same database"""
    other = Workspace(workspace.folder / "other", workspace.reference)
    other.folder.mkdir()
    other.space = other.folder / "other.yaml"
    other.space.write_text(workspace.space.read_text().replace("0.25, 0.5", "0.5, 1.0"))
    workspace.uri = other.uri = f"sqlite:///{workspace.folder}/both.db"
    with workspace.sweep() as sweep:
        sweep.until("two trials in training", workspace.two_trials_in_training)
        with other.sweep() as second:
            second.wait()
        workspace.check(second.status == 0, f"the other sweep ended with {second.summary}")
        sweep.wait()
        workspace.check(sweep.status == 0, f"the sweep ended with {sweep.summary}")
    trials = len(rows(other.reports / "trials.csv"))
    workspace.check(trials == 6, f"{trials} trials in the other report")
    return workspace.finish(sweep)


def server_away(workspace: Workspace) -> Result:
    """`kill -9` of the MLflow server, which is restarted after 60 s"""
    port = _free_port()
    workspace.uri = f"http://127.0.0.1:{port}"
    server = _start_server(workspace.folder, port)
    try:
        with workspace.sweep() as sweep:
            sweep.until("two trials in training", workspace.two_trials_in_training)
            _kill(server)
            ended = sweep.ends(_AWAY)
            server = _start_server(workspace.folder, port)
            sweep.wait()
            _check_error(workspace, sweep)
        result = workspace.finish(sweep)
    finally:
        _kill(server)
    effect = "ended" if ended else "continued"
    return result._replace(first=f"{effect}; {result.first}")


def server_away_at_start(workspace: Workspace) -> Result:
    """the MLflow server is started only after the sweep"""
    port = _free_port()
    workspace.uri = f"http://127.0.0.1:{port}"
    with workspace.sweep() as sweep:
        sweep.wait()
        workspace.check(sweep.status == 2, f"status {sweep.status}")
        _check_error(workspace, sweep)
    server = _start_server(workspace.folder, port)
    try:
        return workspace.finish(sweep)
    finally:
        _kill(server)


def _locked_at_start(workspace: Workspace, name: str) -> Result:
    """Interrupt a sweep, and start it again while its database is locked."""
    with workspace.sweep() as sweep:
        sweep.until("two trials in training", workspace.two_trials_in_training)
        os.kill(sweep.pid, signal.SIGINT)
        sweep.wait()
    with workspace.sweep() as sweep:
        with _locked(workspace.storage / name):
            sweep.ends(60)
        sweep.wait()
        _check_error(workspace, sweep)
    return workspace.finish(sweep)


def _check_error(workspace: Workspace, sweep: Sweep) -> None:
    """Check that a sweep succeeded, or failed with one line."""
    workspace.check(sweep.status in {0, 1, 2}, f"status {sweep.status}")
    lines = len(sweep.err.splitlines())
    workspace.check(sweep.status == 0 or lines == 1, f"{lines} lines of error, not one")


@contextmanager
def _locked(database: Path) -> Iterator[None]:
    """Lock a database, as another process does that writes to it."""
    with closing(sqlite3.connect(database, timeout=LIMIT, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


def _free_port() -> int:
    """Return a free port below the ranges from which the system and Ray choose ports."""
    for port in range(21_000, 30_000):
        with socket.socket() as opened:
            if opened.connect_ex(("127.0.0.1", port)):
                return port
    raise SkippedError("no port is free")


def _search_runs(port: int) -> bool:
    """Search runs as MLflow's page does; return whether the server answers."""
    query = json.dumps({"experiment_ids": ["0", "1"], "max_results": 1000})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with closing(connection):
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/api/2.0/mlflow/runs/search", query, headers)
        return connection.getresponse().status == http.HTTPStatus.OK


def _start_server(folder: Path, port: int, uri: str | None = None) -> "subprocess.Popen[bytes]":
    """Start an MLflow server, by default with a database in `folder`; return when it answers."""
    arguments = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    arguments += ["--backend-store-uri", uri or f"sqlite:///{folder}/server.db"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *arguments],
            stdout=log,
            stderr=log,
            cwd=folder,
            env={**os.environ, **quiet},
            start_new_session=True,
        )
    end = time.monotonic() + 120
    while not _answers(port):
        assert server.poll() is None, "the MLflow server ended; see server.log"
        assert time.monotonic() < end, "the MLflow server does not answer"
        time.sleep(0.5)
    return server


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _kill(server: "subprocess.Popen[bytes]") -> None:
    """Kill a server and its workers."""
    try:
        os.killpg(server.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    server.wait()


DRILLS: dict[str, Drill] = {
    "mlflow-held": mlflow_locked,
    "optuna-held": optuna_locked,
    "mlflow-held-at-start": mlflow_locked_at_start,
    "optuna-held-at-start": optuna_locked_at_start,
    "sigterm-while-waiting": terminated_while_waiting,
    "page-open": page_open,
    "two-spaces": two_spaces,
    "server-away": server_away,
    "server-away-at-start": server_away_at_start,
}
