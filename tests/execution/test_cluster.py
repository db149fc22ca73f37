"""Several workers a trial, and a cluster that was there before: two nodes, one CPU each."""

import json
import os
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
from typing import Any, NamedTuple

import pandas as pd
import pytest
from project import ROOT
from sweeps import LIMIT, LOOPBACK, METRIC, ended, family, listening, said, started

from lab.config.experiment import Resources
from lab.config.results import MetricRow, State
from lab.storage import record
from lab.tracking import frames
from lab.trials.assignment import NodeResources, count_slots

LONG = {"base__budget__amount": "8e10"}  # long enough to be met in the middle
MLM = "{kind: mlm, budget: {kind: flops, amount: 1e10}, lr: 1e-3}"
STARTS = {  # the second trial has a run before it
    "base__objective__generator__width": 1,  # of one shape, so that one run starts both networks
    "compare": f"{{init_from: [{{kind: scratch}}, {MLM}]}}",
}
AS_STARTED_BY_HAND = {
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # or Ray serves on all addresses
}
OPEN = {"CREATED", "PENDING", "RESCHEDULING", "PREPARED"}  # of placement groups


@pytest.mark.parametrize(
    ("resources", "nodes", "served"),
    [
        (Resources(), [NodeResources(2, 0)], 2),
        (Resources(cpus_per_worker=2), [NodeResources(3, 0)], 1),
        (
            Resources(cpus_per_worker=2),
            [NodeResources(3, 0), NodeResources(3, 0)],
            2,
        ),  # halves do not add up
        (Resources(workers=2, cpus_per_worker=2), [NodeResources(2, 0), NodeResources(2, 0)], 1),
        (Resources(workers=3), [NodeResources(2, 0), NodeResources(2, 0)], 1),
        (Resources(workers=2), [NodeResources(1, 0)], 0),
        (Resources(workers=9), [NodeResources(1, 0), NodeResources(1, 0)], 0),
        (Resources(gpus_per_worker=1), [NodeResources(16, 2), NodeResources(16, 0)], 2),
        (Resources(gpus_per_worker=0.5), [NodeResources(16, 1)], 2),
        (Resources(gpus_per_worker=0.4), [NodeResources(16, 2)], 4),  # a fraction is of one GPU
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
def test_slots_are_trials_of_which_each_worker_fits_on_a_node(
    resources: Resources, nodes: list[NodeResources], served: int
) -> None:
    assert count_slots(resources, nodes) == served


class Cluster:
    """The cluster of `two_nodes`, and its MLflow."""

    def __init__(self, process: "subprocess.Popen[str]", uri: str) -> None:
        self._process, self.uri = process, uri
        assert process.stdout is not None
        self.address = process.stdout.readline().strip()
        assert self.address, "no cluster"

    def look(self) -> dict[str, Any]:
        """Return what `two_nodes` sees."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        seen: dict[str, Any] = json.loads(self._process.stdout.readline())
        return seen

    def at_rest(self) -> dict[str, Any]:
        """Return it once all CPUs are free, or after a while."""
        until = time.monotonic() + 30
        while (seen := self.look())["cpus"] < 2 and time.monotonic() < until:
            time.sleep(1)
        return seen


class Sweep(NamedTuple):
    """What became of a sweep.

    Attributes:
        storage: of its records.
        trials: as MLflow has them.
        at_once: trials that were seen to run, at most.
        out: trials that were seen to run or to wait for their workers, at most.
        after: the cluster, then.
    """

    storage: Path
    trials: pd.DataFrame
    at_once: int
    out: int
    after: dict[str, Any]


@contextmanager
def ends(process: "subprocess.Popen[str]") -> "Iterator[subprocess.Popen[str]]":
    """End a process, and what it started, by its session."""
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
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, uri = tmp_path_factory.mktemp("mlflow"), f"http://127.0.0.1:{free_port()}"
    command = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", uri.rpartition(":")[2]]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--workers", "1"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (
        (folder / "said").open("w") as out,
        ends(
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
def cluster(tmp_path_factory: pytest.TempPathFactory, tracking: str) -> Iterator[Cluster]:
    with (
        (tmp_path_factory.mktemp("ray") / "said").open("w") as err,
        ends(
            subprocess.Popen(
                [sys.executable, str(ROOT / "tests" / "support" / "two_nodes.py")],
                env=os.environ | AS_STARTED_BY_HAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
                start_new_session=True,
            )
        ) as process,
    ):
        yield Cluster(process, tracking)


def standing(storage: Path, *states: State) -> list[Path]:
    """Return the records that are in one of some states."""
    folders = (file.parent for file in storage.glob("trials/*/trial.json"))
    return [folder for folder in folders if record.read_state(folder) in states]


def swept(cluster: Cluster, cwd: Path, *, stop_first: bool = False, **changes: object) -> Sweep:
    """Run a sweep on the cluster; ask the first trial to stop once it has a point."""
    storage, at_once, out, began = cwd / "storage", 0, 0, time.monotonic()
    options = ("--address", cluster.address, "--tracking-uri", cluster.uri)
    with started(cwd, *options, **changes) as process:
        while process.poll() is None and time.monotonic() - began < LIMIT:
            out = max(out, len(standing(storage, "queued", "running")))
            now = standing(storage, "running")
            at_once = max(at_once, len(now))
            if stop_first and now and record.read_curve(now[0]):
                record.stop_file(now[0]).touch()
                stop_first = False
            time.sleep(0.2)
        ended(process, cwd, 0)
    trials = frames.load_frames(cluster.uri, "smoke").trials
    return Sweep(storage, trials, at_once, out, cluster.at_rest())


@pytest.fixture(scope="module")
def alone(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    cwd = tmp_path_factory.mktemp("alone")
    return swept(cluster, cwd, resources__slots=0, **LONG, **STARTS)


@pytest.fixture(scope="module")
def together(cluster: Cluster, alone: Sweep, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    cwd = tmp_path_factory.mktemp("together")
    shutil.copytree(alone.storage / "cache", cwd / "storage" / "cache")
    changes = {"resources__slots": 0, "resources__workers": 2} | LONG | STARTS
    return swept(cluster, cwd, stop_first=True, **changes)


def scores(sweep: Sweep) -> dict[str, float]:
    """Return the last score of each record; an mlm run has none."""
    folders = (file.parent for file in sweep.storage.glob("trials/*/outcome.json"))
    last = {folder.name: record.read_curve(folder)[-1] for folder in folders}
    return {name: row[METRIC] for name, row in last.items() if METRIC in row}


def preparatory(storage: Path) -> list[Path]:
    """Return the records of mlm runs."""
    folders = (file.parent for file in storage.glob("trials/*/outcome.json"))
    return [f for f in folders if record.read_trial(f)[0].objective.kind == "mlm"]


def assert_left_as_found(after: dict[str, Any]) -> None:
    assert after["nodes"] == 2
    assert after["cpus"] == 2
    assert not OPEN & set(after["groups"]), Counter(after["groups"])


@pytest.mark.slow
def test_sweep_on_a_cluster_is_recorded_by_its_mlflow(alone: Sweep) -> None:
    assert list(alone.trials["state"]) == ["finished"] * 2
    recorded = dict(zip(alone.trials["fingerprint"], alone.trials["score"], strict=True))
    assert recorded == scores(alone)


@pytest.mark.slow
def test_trials_run_on_both_nodes_at_once(alone: Sweep) -> None:
    assert alone.at_once == 2
    assert 2 in alone.after["actors"].values(), alone.after["actors"]


@pytest.mark.slow
def test_cluster_is_left_as_it_was_found(alone: Sweep) -> None:
    assert_left_as_found(alone.after)


@pytest.mark.slow
def test_one_worker_a_node_trains_what_one_process_does(alone: Sweep, together: Sweep) -> None:
    assert together.after["actors"]["RayTrainWorker"] == 2
    assert_left_as_found(together.after)
    assert sorted(together.trials["state"]) == ["finished", "stopped"]
    # The weights that a trial starts from are part of its name, and rounding is part of these.
    names = [
        sweep.trials.loc[sweep.trials["init_from.kind"] == "mlm", "fingerprint"].item()
        for sweep in (alone, together)
    ]
    assert record.read_state(together.storage / "trials" / names[1]) == "finished"
    curves = [curve(sweep.storage, n) for sweep, n in zip((alone, together), names, strict=True)]
    for one, other in zip(*curves, strict=True):
        assert other["spent/steps"] == one["spent/steps"]
        for each in (key for key in one if key.startswith("train/")):
            assert other[each] == pytest.approx(one[each], rel=1e-3), each


@pytest.mark.slow
def test_trial_of_two_workers_that_is_asked_to_stop_saves_its_state(together: Sweep) -> None:
    (name,) = together.trials.loc[together.trials["state"] == "stopped", "fingerprint"]
    folder = together.storage / "trials" / name
    outcome = record.read_outcome(folder)
    assert outcome is not None
    assert outcome.state == "stopped"
    assert "its state is saved" in outcome.reason
    assert list(folder.glob("checkpoints/*/state.safetensors"))


@pytest.mark.slow
def test_workers_train_the_run_that_a_trial_starts_from(alone: Sweep, together: Sweep) -> None:
    names = {folder.name for folder in preparatory(together.storage)}
    assert len(names) == 1
    assert names == {folder.name for folder in preparatory(alone.storage)}
    for name in names:
        one, other = curve(alone.storage, name), curve(together.storage, name)
        for a, b in zip(one, other, strict=True):
            for each in (key for key in a if key.startswith("train/")):
                assert b[each] == pytest.approx(a[each], rel=1e-3), each


@pytest.mark.slow
def test_one_trial_at_a_time_where_there_is_room_for_one_group(together: Sweep) -> None:
    assert together.at_once == together.out == 1


def refused(cwd: Path, *options: object, **changes: object) -> str:
    """Return the one line that refuses a command."""
    with started(cwd, *options, **changes) as process:
        ended(process, cwd, 2)
    line = (cwd / "err").read_text()
    assert line.startswith("lab.sweep: error: ")
    assert line.count("\n") == 1, line
    return line


@pytest.mark.slow
def test_address_where_no_cluster_answers_is_one_line(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    assert f"--address {address}: no Ray cluster answers there" in refused(
        tmp_path, "--address", address
    )
    assert not (tmp_path / "storage").exists()


@pytest.mark.slow
def test_cluster_too_small_for_a_trial_is_one_line(
    cluster: Cluster, alone: Sweep, tmp_path: Path
) -> None:
    shutil.copytree(alone.storage / "cache", tmp_path / "storage" / "cache")
    line = refused(tmp_path, "--address", cluster.address, resources__workers=9)
    assert "no room for 9 workers of 1 CPUs" in line
    assert_left_as_found(cluster.at_rest())


# On this machine alone, without --address.
def curve(storage: Path, name: str) -> list[MetricRow]:
    """Return a record's points but for what time gave."""
    rows = record.read_curve(storage / "trials" / name)
    return [{key: value for key, value in row.items() if "second" not in key} for row in rows]


def train_workers(pid: int) -> list[int]:
    """Return Ray Train's workers among what a process started."""
    found = []
    for member in sorted(family(pid)):
        try:
            title = Path(f"/proc/{member}/cmdline").read_bytes()
        except OSError:
            continue  # gone meanwhile
        if b"RayTrainWorker" in title:
            found.append(member)
    return found


class Killed(NamedTuple):
    storage: Path
    said: str
    listening: set[str]
    workers: int
    rows: tuple[MetricRow, ...]  # on record when the worker was killed


@pytest.fixture(scope="module")
def killed(together: Sweep, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """Run a trial by two workers; kill one of them once there is a checkpoint."""
    cwd = tmp_path_factory.mktemp("killed")
    shutil.copytree(together.storage / "cache", cwd / "storage" / "cache")
    for folder in preparatory(together.storage):  # of the trial, which is not trained again
        shutil.copytree(folder, cwd / "storage" / "trials" / folder.name)
    seen, workers, began = set[str](), list[int](), time.monotonic()
    rows: tuple[MetricRow, ...] = ()
    changes = {"resources__slots": 0, "resources__workers": 2} | LONG | STARTS
    changes["compare"] = f"{{init_from: [{MLM}]}}"
    with started(cwd, **changes) as process:
        while process.poll() is None and time.monotonic() - began < LIMIT:
            saved = [
                folder
                for folder in standing(cwd / "storage", "running")
                if list(folder.glob("checkpoints/*/state.json"))
            ]
            if not workers and saved:
                rows = record.read_curve(saved[0])
                seen = listening(process.pid)
                workers = train_workers(process.pid)
                os.kill(workers[-1], signal.SIGKILL)
            time.sleep(0.1)
        ended(process, cwd, 0)
    return Killed(cwd / "storage", said(cwd), seen, len(workers), rows)


@pytest.mark.slow
def test_trial_goes_on_where_a_worker_was_killed(together: Sweep, killed: Killed) -> None:
    assert killed.workers == 2
    done = preparatory(killed.storage)
    (folder,) = (f for f in (killed.storage / "trials").iterdir() if f not in done)
    outcome = record.read_outcome(folder)
    assert outcome is not None
    assert outcome.state == "finished", outcome.reason
    # It went on from there: what was measured before, seconds too, was not measured again.
    assert 1 < len(killed.rows) < len(outcome.rows)
    assert outcome.rows[: len(killed.rows)] == killed.rows
    undisturbed = curve(together.storage, folder.name)
    assert undisturbed
    assert record.read_state(together.storage / "trials" / folder.name) == "finished"
    assert curve(killed.storage, folder.name) == undisturbed


@pytest.mark.slow
def test_workers_listen_on_this_machine_alone(killed: Killed) -> None:
    assert killed.listening
    assert killed.listening <= LOOPBACK
