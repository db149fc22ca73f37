"""Optuna's dashboard displays the lab's studies, and listens on the loopback interface only."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.config.experiment import Experiment, Range, Resources, SearchConfig
from lab.config.metrics import METRICS
from lab.config.results import MetricRow, Outcome, State
from lab.search.search import Search
from lab.storage import record

pytest.importorskip("optuna_dashboard")
pytestmark = pytest.mark.slow
COMMAND = Path(sys.executable).with_name("optuna-dashboard")
WIDTH = "objective.generator.width"
EXPERIMENT = Experiment(
    name="shown",
    question="Does it?",
    metric=METRICS["probe/pos/accuracy"],
    base={
        "encoder": {"size": "tiny"},
        "objective": {"kind": "electra"},
        "budget": {"kind": "flops", "amount": 1e12},
    },
    compare={WIDTH: (0.25, 0.5)},
    tune={"optim.lr": Range(low=1e-4, high=1e-2, log=True)},
    search=SearchConfig(trials=3),
    resources=Resources(),
)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URL of a database with two studies of three trials; one trial has diverged."""
    folder = tmp_path_factory.mktemp("dashboard")
    storage = f"sqlite:///{folder}/optuna.db"
    search = Search(EXPERIMENT, storage, folder / "searches")
    while (job := search.ask()) is not None:
        rows: tuple[MetricRow, ...] = tuple(
            {"spent/steps": 1.0 * n, EXPERIMENT.metric.name: 0.5 + job.number / 100 + n / 10}
            for n in range(4)
        )
        state: State = "diverged" if job.number == 1 else "finished"
        search.tell(
            job, Outcome(state=state, reason="", rows=rows, started_at=0.0, seconds=1.0, busy=1.0)
        )
        record_folder = folder / "trials" / f"f{job.number}"
        record_folder.mkdir(parents=True)
        record.write_rows(record_folder, rows)
        for _ in range(2):  # the same content is attached once
            search.attach(job, record_folder / record.CURVE)
    return storage


@pytest.fixture(scope="module")
def port(storage: str) -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    artifacts = str(Path(storage.removeprefix("sqlite:///")).parent / "study_artifacts")
    command = [
        str(COMMAND),
        storage,
        "--artifact-dir",
        artifacts,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--quiet",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            wait_until_ready(process, port)
            yield port
        finally:
            process.terminate()


def wait_until_ready(process: "subprocess.Popen[bytes]", port: int) -> None:
    until = time.monotonic() + 90
    while True:
        try:
            get(port, "/api/meta")
        except urllib.error.URLError:
            assert process.poll() is None, process.communicate()[1].decode()
            assert time.monotonic() < until, "the dashboard does not answer"
            time.sleep(0.2)
        else:
            return


def get(port: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return json.load(answer)


def test_dashboard_displays_one_study_per_cell_with_its_trials(port: int) -> None:
    studies = get(port, "/api/studies")["study_summaries"]
    assert len(studies) == 2
    assert all(study["study_name"].startswith("shown ") for study in studies)
    states = []
    for study in studies:
        details = get(port, f"/api/studies/{study['study_id']}?after=0")
        assert details["directions"] == ["maximize"]
        assert {trial["params"][0]["name"] for trial in details["trials"]} == {"optim.lr"}
        states += [
            (trial["state"].lower(), len(trial["intermediate_values"]))
            for trial in details["trials"]
            if any(attribute["key"] == "state" for attribute in trial["user_attrs"])
        ]
    assert sorted(states) == [("complete", 0)] * 5 + [
        ("pruned", 0)
    ]  # a diverged trial has no score


def test_dashboard_displays_the_curve_of_each_trial(port: int) -> None:
    contents = []
    for study in get(port, "/api/studies")["study_summaries"]:
        number = study["study_id"]
        for trial in get(port, f"/api/studies/{number}?after=0")["trials"]:
            for artifact in trial["artifacts"]:
                assert artifact["filename"] == "curve.jsonl"
                place = f"/artifacts/{number}/{trial['trial_id']}/{artifact['artifact_id']}"
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{place}", timeout=10) as file:
                    contents.append(file.read().decode().splitlines())
    assert len(contents) == 6
    assert {len(lines) for lines in contents} == {4}
    assert len({lines[0] for lines in contents}) == 6


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="requires /proc/net/tcp of Linux")
def test_dashboard_listens_on_the_loopback_interface_only(port: int) -> None:
    listening = set()
    for file in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        lines = file.read_text().splitlines()[1:] if file.exists() else []
        for local, _, state in (line.split()[1:4] for line in lines):
            address, _, at = local.partition(":")
            if int(at, 16) == port and state == "0A":  # LISTEN
                listening.add(address)
    assert listening == {"0100007F"}  # 127.0.0.1, as the kernel writes it
