"""Databases that somebody else holds, and an MLflow server that goes away."""

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
from contextlib import closing, contextmanager
from pathlib import Path

from tests.drills.harness import LIMIT, Drill, Place, Result, SkippedError, Sweep

_HELD = 20.0  # seconds that another process holds a database
_DOWN = 60.0  # seconds that the server is away


def mlflow_held(place: Place) -> Result:
    """another process holds mlflow.db for 20 s in the middle"""
    with place.sweep() as sweep:
        sweep.until("two trials in the middle", place.in_the_middle)
        with _held(place.storage / "mlflow.db"):  # each scored point is written to it
            sweep.ends(_HELD)
        sweep.wait()
        _one_line_or_well(place, sweep)
    return place.finish(sweep)


def optuna_held(place: Place) -> Result:
    """another process holds optuna.db for 20 s from a trial's end on"""
    with place.sweep() as sweep:
        sweep.until("two trials in the middle", place.in_the_middle)
        with _held(place.storage / "optuna.db"):  # nothing is written to it before the end
            sweep.until("the end of a trial", lambda: bool(place.states()))
            sweep.ends(_HELD)
        sweep.wait()
        _one_line_or_well(place, sweep)
        place.check(sweep.told in {"0: 6 finished", f"2: {sweep.err.strip()}"}, "a trial is lost")
    return place.finish(sweep)


def mlflow_held_at_start(place: Place) -> Result:
    """the second start finds mlflow.db held by another process for up to a minute"""
    return _held_at_start(place, "mlflow.db")


def optuna_held_at_start(place: Place) -> Result:
    """the second start finds optuna.db held by another process for up to a minute"""
    return _held_at_start(place, "optuna.db")


def server_away(place: Place) -> Result:
    """`kill -9` of the MLflow server, which is back after 60 s"""
    port = _free_port()
    place.uri = f"http://127.0.0.1:{port}"
    server = _served(place.folder, port)
    try:
        with place.sweep() as sweep:
            sweep.until("two trials in the middle", place.in_the_middle)
            _kill(server)
            died = sweep.ends(_DOWN)
            server = _served(place.folder, port)
            sweep.wait()
            _one_line_or_well(place, sweep)
        result = place.finish(sweep)
    finally:
        _kill(server)
    what = "died" if died else "lived through it"
    return result._replace(first=f"{what}; {result.first}")


def server_away_at_start(place: Place) -> Result:
    """the MLflow server is not there yet when the sweep starts"""
    port = _free_port()
    place.uri = f"http://127.0.0.1:{port}"
    with place.sweep() as sweep:
        sweep.wait()
        place.check(sweep.status == 2, f"status {sweep.status}")
        _one_line_or_well(place, sweep)
    server = _served(place.folder, port)
    try:
        return place.finish(sweep)
    finally:
        _kill(server)


def _held_at_start(place: Place, name: str) -> Result:
    """Interrupt a sweep, so that there is a database, and start it again while it is held."""
    with place.sweep() as sweep:
        sweep.until("two trials in the middle", place.in_the_middle)
        os.kill(sweep.pid, signal.SIGINT)
        sweep.wait()
    with place.sweep() as sweep:
        with _held(place.storage / name):
            sweep.ends(60)
        sweep.wait()
        _one_line_or_well(place, sweep)
    return place.finish(sweep)


def _one_line_or_well(place: Place, sweep: Sweep) -> None:
    """See that a sweep went through, or gave up with one line."""
    place.check(sweep.status in {0, 1, 2}, f"status {sweep.status}")
    lines = len(sweep.err.splitlines())
    place.check(sweep.status == 0 or lines == 1, f"it says {lines} lines where one would do")


@contextmanager
def _held(database: Path) -> Iterator[None]:
    """Hold a database as another process that writes to it does."""
    with closing(sqlite3.connect(database, timeout=LIMIT, isolation_level=None)) as held:
        held.execute("BEGIN EXCLUSIVE")
        yield
        held.execute("ROLLBACK")


def _free_port() -> int:
    """Return a port below those that the system and Ray hand out, so that it stays free."""
    for port in range(21_000, 30_000):
        with socket.socket() as opened:
            if opened.connect_ex(("127.0.0.1", port)):
                return port
    raise SkippedError("no port is free")


def _served(folder: Path, port: int) -> "subprocess.Popen[bytes]":
    """Start a server on its database in `folder`, and return once it answers."""
    arguments = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    arguments += ["--backend-store-uri", f"sqlite:///{folder}/server.db"]
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
        assert server.poll() is None, "the MLflow server ended; server.log says why"
        assert time.monotonic() < end, "the MLflow server does not answer"
        time.sleep(0.5)
    return server


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _kill(server: "subprocess.Popen[bytes]") -> None:
    """End a server and its workers at once."""
    try:
        os.killpg(server.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    server.wait()


DRILLS: dict[str, Drill] = {
    "mlflow-held": mlflow_held,
    "optuna-held": optuna_held,
    "mlflow-held-at-start": mlflow_held_at_start,
    "optuna-held-at-start": optuna_held_at_start,
    "server-away": server_away,
    "server-away-at-start": server_away_at_start,
}
