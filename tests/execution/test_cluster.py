"""Trials of several workers, and sweeps on an existing Ray cluster of two nodes, one CPU each."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pandas as pd
import pytest
from project import ROOT
from sweeps import (
    LIMIT,
    LOOPBACK,
    METRIC,
    find_processes,
    listening,
    start_sweep,
    wait_for_exit,
)

from lab.config.experiment import Resources
from lab.config.results import MetricRow, State
from lab.storage import record
from lab.tracking import frames
from lab.trials.assignment import NodeResources, count_slots

LONG = {"base__budget__amount": "3e10", "base__evaluations": 4}  # can be observed while it runs
MLM = "{kind: mlm, budget: {kind: flops, amount: 4e9}, lr: 1e-3}"
# Encoder and generator of equal shapes, so that one preparatory run provides both with weights.
WIDE = {"base__objective__generator__width": 1}
STARTS = WIDE | {"compare": f"{{init_from: [{MLM}, {{kind: scratch}}]}}"}
TWO_WORKERS = {
    "resources__slots": 0,
    "resources__workers": 2,
    "compare": "{objective.disc_weight: [50, 49]}",  # the first value is that of `one_worker`
}
CLUSTER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else Ray listens on all addresses
}
OPEN = {"CREATED", "PENDING", "RESCHEDULING", "PREPARED"}  # states of placement groups in use


@pytest.mark.parametrize(
    ("resources", "nodes", "slots"),
    [
        (Resources(), [NodeResources(2, 0)], 2),
        (Resources(cpus_per_worker=2), [NodeResources(3, 0)], 1),
        (
            Resources(cpus_per_worker=2),
            [NodeResources(3, 0), NodeResources(3, 0)],
            2,
        ),  # the spare CPUs of two nodes serve no worker
        (Resources(workers=2, cpus_per_worker=2), [NodeResources(2, 0), NodeResources(2, 0)], 1),
        (Resources(workers=3), [NodeResources(2, 0), NodeResources(2, 0)], 1),
        (Resources(workers=2), [NodeResources(1, 0)], 0),
        (Resources(workers=9), [NodeResources(1, 0), NodeResources(1, 0)], 0),
        (Resources(gpus_per_worker=1), [NodeResources(16, 2), NodeResources(16, 0)], 2),
        (Resources(gpus_per_worker=0.5), [NodeResources(16, 1)], 2),
        (
            Resources(gpus_per_worker=0.4),
            [NodeResources(16, 2)],
            4,
        ),  # a fraction belongs to one GPU
        (Resources(gpus_per_worker=0.5), [NodeResources(3, 4)], 3),
        (
            Resources(workers=4, gpus_per_worker=1),
            [NodeResources(16, 2), NodeResources(16, 2), NodeResources(16, 1)],
            1,
        ),
        (Resources(slots=3), [NodeResources(8, 0)], 3),
        (Resources(slots=8), [NodeResources(3, 0)], 3),
        (Resources(slots=1, gpus_per_worker=1), [NodeResources(8, 0)], 0),
        (Resources(), [], 0),
    ],
)
def test_slots_count_the_trials_that_fit_with_each_worker_on_one_node(
    resources: Resources, nodes: list[NodeResources], slots: int
) -> None:
    assert count_slots(resources, nodes) == slots


class Cluster:
    """The Ray cluster of `two_nodes.py`, and the URI of its MLflow server."""

    def __init__(self, process: "subprocess.Popen[str]", uri: str) -> None:
        self._process, self.uri = process, uri
        assert process.stdout is not None
        self.address = process.stdout.readline().strip()
        assert self.address, "no cluster"

    def inspect(self) -> dict[str, Any]:
        """Return the state of the cluster that `two_nodes.py` prints."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        state: dict[str, Any] = json.loads(self._process.stdout.readline())
        return state

    def wait_until_idle(self) -> dict[str, Any]:
        """Return the state once all CPUs are free, or after 30 seconds."""
        until = time.monotonic() + 30
        while (state := self.inspect())["cpus"] < 2 and time.monotonic() < until:
            time.sleep(1)
        return state


class Sweep(NamedTuple):
    """Results of a sweep.

    Attributes:
        storage: folder of its records.
        trials: its trials, loaded from MLflow.
        most_running: largest observed number of running trials.
        after: state of the cluster after the sweep.
    """

    storage: Path
    trials: pd.DataFrame
    most_running: int
    after: dict[str, Any]


@contextmanager
def terminating(process: "subprocess.Popen[str]") -> "Iterator[subprocess.Popen[str]]":
    """End a process and its children on exit, by their session."""
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(0 if process.stdin is None else 30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port: int = opened.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def tracking(begun_storage: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, uri = tmp_path_factory.mktemp("mlflow"), f"http://127.0.0.1:{free_port()}"
    shutil.copy(begun_storage / "mlflow.db", folder)
    command = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", uri.rpartition(":")[2]]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--workers", "1"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (
        (folder / "said").open("w") as out,
        terminating(
            subprocess.Popen(
                [sys.executable, *command],
                cwd=folder,
                env=os.environ | quiet,
                stdout=out,
                stderr=out,
                text=True,
                start_new_session=True,
            )
        ) as server,
    ):
        until = time.monotonic() + LIMIT
        while True:
            try:
                with urllib.request.urlopen(f"{uri}/health", timeout=5):  # noqa: S310
                    break
            except OSError:
                assert server.poll() is None, (folder / "said").read_text()
                assert time.monotonic() < until
                time.sleep(0.5)
        yield uri


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, tracking: str, few_rows_package: Path
) -> Iterator[Cluster]:
    with (
        (tmp_path_factory.mktemp("ray") / "said").open("w") as err,
        terminating(
            subprocess.Popen(
                [sys.executable, str(ROOT / "tests" / "support" / "two_nodes.py")],
                env=os.environ | CLUSTER_ENVIRONMENT | {"PYTHONPATH": str(few_rows_package)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
                start_new_session=True,
            )
        ) as process,
    ):
        yield Cluster(process, tracking)


def records_in(storage: Path, *states: State) -> list[Path]:
    """Return the folders of the records in one of the given states."""
    folders = (file.parent for file in storage.glob("trials/*/trial.json"))
    return [folder for folder in folders if record.read_state(folder) in states]


def run_sweep(cluster: Cluster, package: Path, cwd: Path, **changes: object) -> Sweep:
    """Run a sweep on the cluster."""
    storage, most_running, began = cwd / "storage", 0, time.monotonic()
    options = ("--address", cluster.address, "--tracking-uri", cluster.uri)
    with start_sweep(cwd, *options, package=package, **changes) as process:
        while process.poll() is None and time.monotonic() - began < LIMIT:
            most_running = max(most_running, len(records_in(storage, "running")))
            time.sleep(0.2)
        wait_for_exit(process, cwd, 0)
    trials = frames.load_frames(cluster.uri, "smoke").trials
    return Sweep(storage, trials, most_running, cluster.wait_until_idle())


@pytest.fixture(scope="module")
def one_worker(
    cluster: Cluster,
    begun_storage: Path,
    few_rows_package: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Sweep:
    cwd = tmp_path_factory.mktemp("one_worker")
    shutil.copytree(begun_storage / "cache", cwd / "storage" / "cache")
    return run_sweep(cluster, few_rows_package, cwd, resources__slots=0, **LONG, **STARTS)


def scores(sweep: Sweep) -> dict[str, float]:
    """Return the last score of each trial, by the name of its record; an mlm run has none."""
    folders = (file.parent for file in sweep.storage.glob("trials/*/outcome.json"))
    last = {folder.name: record.read_curve(folder)[-1] for folder in folders}
    return {name: row[METRIC] for name, row in last.items() if METRIC in row}


def only_trial(storage: Path) -> Path:
    """Return the folder of the trial without a preparatory run and with the first loss weight."""
    (folder,) = (
        folder
        for folder in records_in(storage, *get_args(State))
        if (trial := record.read_trial(folder)[0]).init_from.kind == "scratch"
        and trial.objective.kind == "electra"
        and trial.objective.disc_weight == 50
    )
    return folder


def assert_cluster_is_idle(after: dict[str, Any]) -> None:
    assert after["nodes"] == 2
    assert after["cpus"] == 2
    assert not OPEN & set(after["groups"]), Counter(after["groups"])


@pytest.mark.slow
def test_sweep_on_a_cluster_is_logged_to_its_mlflow_server(one_worker: Sweep) -> None:
    assert list(one_worker.trials["state"]) == ["finished"] * 2
    recorded = dict(zip(one_worker.trials["fingerprint"], one_worker.trials["score"], strict=True))
    assert recorded == scores(one_worker)


@pytest.mark.slow
def test_trials_run_on_both_nodes_at_the_same_time(one_worker: Sweep) -> None:
    assert one_worker.most_running == 2
    assert 2 in one_worker.after["actors"].values(), one_worker.after["actors"]


@pytest.mark.slow
def test_cluster_is_idle_after_a_sweep(one_worker: Sweep) -> None:
    assert_cluster_is_idle(one_worker.after)


def error_line(cwd: Path, *options: object, **changes: object) -> str:
    """Run a command that fails with status 2, and return its error, which is one line."""
    with start_sweep(cwd, *options, **changes) as process:
        wait_for_exit(process, cwd, 2)
    line = (cwd / "err").read_text()
    assert line.startswith("lab.sweep: error: ")
    assert line.count("\n") == 1, line
    return line


@pytest.mark.slow
def test_address_without_a_cluster_is_an_error_of_one_line(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    assert f"--address {address}: no Ray cluster answers there" in error_line(
        tmp_path, "--address", address
    )
    assert not (tmp_path / "storage").exists()


@pytest.mark.slow
def test_cluster_too_small_for_a_trial_is_an_error_of_one_line(
    cluster: Cluster, one_worker: Sweep, tmp_path: Path
) -> None:
    shutil.copytree(one_worker.storage / "cache", tmp_path / "storage" / "cache")
    line = error_line(tmp_path, "--address", cluster.address, resources__workers=9)
    assert "no room for 9 workers of 1 CPUs" in line
    assert_cluster_is_idle(cluster.wait_until_idle())


# Sweeps on this machine alone, without --address.


def curve(folder: Path) -> list[MetricRow]:
    """Return a record's evaluations without the columns that are measured in seconds."""
    rows = record.read_curve(folder)
    return [{key: value for key, value in row.items() if "second" not in key} for row in rows]


class Killed(NamedTuple):
    """Results of a sweep of which a worker was killed, and which was interrupted later.

    Attributes:
        storage: folder of its records.
        listening: addresses at which the sweep's processes listened.
        workers: number of workers when one was killed.
        rows: evaluations in the record when the worker was killed.
        most_started: largest observed number of trials that ran or waited for their workers.
    """

    storage: Path
    listening: set[str]
    workers: int
    rows: tuple[MetricRow, ...]
    most_started: int


@pytest.fixture(scope="module")
def killed(
    begun_storage: Path,
    few_rows_package: Path,
    one_worker: Sweep,
    tmp_path_factory: pytest.TempPathFactory,
) -> Killed:
    """Run a trial with two workers: kill one after a checkpoint, interrupt the next two later.

    The second trial waits and never starts.
    """
    cwd = tmp_path_factory.mktemp("killed")
    storage = cwd / "storage"
    shutil.copytree(one_worker.storage / "cache", storage / "cache")
    shutil.copy(begun_storage / "mlflow.db", storage)
    addresses, workers, most_started, began = set[str](), list[int](), 0, time.monotonic()
    rows: tuple[MetricRow, ...] = ()
    interrupted = False
    with start_sweep(cwd, package=few_rows_package, **TWO_WORKERS | LONG | WIDE) as process:
        while process.poll() is None and time.monotonic() - began < LIMIT:
            most_started = max(most_started, len(records_in(storage, "queued", "running")))
            for folder in records_in(storage, "running"):
                if not workers and list(folder.glob("checkpoints/*/state.json")):
                    rows = record.read_curve(folder)
                    addresses = listening(process.pid)
                    workers = find_processes(process.pid, b"RayTrainWorker")
                    os.kill(workers[-1], signal.SIGKILL)
                elif workers and not interrupted and len(record.read_curve(folder)) > len(rows):
                    process.send_signal(signal.SIGINT)
                    interrupted = True
            time.sleep(0.1)
        wait_for_exit(process, cwd, 130)
    return Killed(storage, addresses, len(workers), rows, most_started)


@pytest.mark.slow
def test_two_workers_have_the_losses_of_one_process(one_worker: Sweep, killed: Killed) -> None:
    folders = (only_trial(killed.storage), only_trial(one_worker.storage))
    pairs = list(zip(*map(curve, folders), strict=False))  # the killed sweep ends earlier
    assert len(pairs) > 2
    for two, one in pairs:
        assert two["spent/steps"] == one["spent/steps"]
        for each in (key for key in one if key.startswith("train/")):
            assert two[each] == pytest.approx(one[each], rel=1e-3), each


@pytest.mark.reported
@pytest.mark.slow
def test_trial_continues_from_its_checkpoint_after_a_worker_was_killed(killed: Killed) -> None:
    assert killed.workers == 2
    # Evaluations from before the kill are not repeated: they are equal, their seconds included.
    rows = record.read_curve(only_trial(killed.storage))
    assert 1 < len(killed.rows) < len(rows)
    assert rows[: len(killed.rows)] == killed.rows


@pytest.mark.slow
def test_trials_run_one_at_a_time_where_the_machine_fits_one_worker_group(killed: Killed) -> None:
    assert killed.most_started == 1


@pytest.mark.slow
def test_lost_worker_and_the_retry_are_in_the_log_of_the_sweep(killed: Killed) -> None:
    lines = (killed.storage / "logs" / "smoke.log").read_text(encoding="utf-8").splitlines()
    (at,) = (n for n, line in enumerate(lines) if "its workers ended; retry 1 of 2" in line)
    assert f" WARNING trial={only_trial(killed.storage).name} " in lines[at]
    assert any(re.match(r"rank \d: .", line) for line in lines[at + 1 : at + 3])


@pytest.mark.slow
def test_trial_of_two_workers_saves_its_state_when_it_is_interrupted(killed: Killed) -> None:
    folder = only_trial(killed.storage)
    outcome = record.read_outcome(folder)
    assert outcome is not None
    assert outcome.state == "interrupted"
    assert "its state is saved" in outcome.reason
    steps = [
        json.loads(f.read_text())["place"]["spent"]["steps"]
        for f in folder.glob("checkpoints/*/state.json")
    ]
    assert max(steps) > outcome.rows[-1]["spent/steps"]


@pytest.mark.slow
def test_workers_listen_on_the_loopback_interface_only(killed: Killed) -> None:
    assert killed.listening
    assert killed.listening <= LOOPBACK
