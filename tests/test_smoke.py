"""The whole path, as a person starts it: text, trials in Ray, MLflow, report; twice; cut off."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

from lab import frames, record
from lab.tracking import default_uri

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
METRIC = "detect/unigram/auroc"
SMALL = {
    "base.data": "{share: 0.01, vocab: 400, length: 32}",
    "base.batch": 32,
    "base.budget.amount": "3e10",
    "base.curve": 2,
    "search.seeds": 1,
    "resources.slots": 2,
}
TRIALS = 2
LIMIT = 540  # seconds; most of it where other work holds the cores


class Sweep(NamedTuple):
    storage: Path
    out: str
    seconds: float
    listening: set[str]


@contextmanager
def started(cwd: Path, **changes: object) -> "Iterator[subprocess.Popen[str]]":
    """Run the command in a session of its own; whatever is left of it is killed at the end."""
    settings = SMALL | {path.replace("__", "."): value for path, value in changes.items()}
    overrides = [part for item in settings.items() for part in ("--set", "{}={}".format(*item))]
    command = [sys.executable, "-m", "lab.sweep", str(ROOT / "search_spaces" / "smoke.yaml")]
    with (cwd / "out").open("w") as out, (cwd / "err").open("w") as err:
        process = subprocess.Popen(
            [*command, *overrides, "--storage", "storage", "--reports", "reports"],
            stdout=out,
            stderr=err,
            text=True,
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def said(cwd: Path) -> str:
    return (cwd / "out").read_text()


def ended(process: "subprocess.Popen[str]", cwd: Path, status: int) -> None:
    process.wait(LIMIT)
    assert process.returncode == status, said(cwd) + (cwd / "err").read_text()


def family(pid: int) -> set[int]:
    """Return a process and all that it started, and they."""
    found = {pid}
    for children in Path("/proc").glob(f"{pid}/task/*/children"):
        for child in children.read_text().split():
            found |= family(int(child))
    return found


def listening(pid: int) -> set[str]:
    """Return the addresses, as /proc writes them, at which a family of processes listens."""
    sockets = set()
    for member in family(pid):
        for descriptor in Path(f"/proc/{member}/fd").glob("*"):
            try:
                sockets |= set(re.findall(r"socket:\[(\d+)\]", str(descriptor.readlink())))
            except OSError:
                continue  # closed meanwhile
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path("/proc/net", table).read_text().splitlines()[1:]
    ]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in sockets}


LOOPBACK = {
    "0100007F",  # 127.0.0.1, least significant byte first
    "00000000000000000000000001000000",  # ::1
    "0000000000000000FFFF00000100007F",  # ::ffff:127.0.0.1
}


@pytest.fixture(scope="module")
def cwd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("smoke")


@pytest.fixture(scope="module")
def first(cwd: Path) -> Sweep:
    began, seen = time.monotonic(), set[str]()
    with started(cwd) as process:
        while process.poll() is None and time.monotonic() - began < LIMIT:
            if "] started" in said(cwd):
                seen |= listening(process.pid)
            time.sleep(0.5)
        ended(process, cwd, 0)
    return Sweep(cwd / "storage", said(cwd), time.monotonic() - began, seen)


def records(storage: Path) -> dict[str, int]:
    """Return when each finished trial's record was completed, by fingerprint."""
    outcomes = storage.glob("trials/*/outcome.json")
    return {
        outcome.parent.name: outcome.stat().st_mtime_ns
        for outcome in outcomes
        if json.loads(outcome.read_text())["state"] == "finished"
    }


def ended_as(storage: Path) -> Counter[str]:
    """Return how many records there are in each state."""
    outcomes = storage.glob("trials/*/outcome.json")
    return Counter(json.loads(outcome.read_text())["state"] for outcome in outcomes)


def test_trials_finish_with_the_same_scores_in_records_and_in_mlflow(first: Sweep) -> None:
    trials = frames.load(default_uri(first.storage), "smoke").trials
    assert list(trials["state"]) == ["finished"] * TRIALS
    kept = {
        name: record.curve(first.storage / "trials" / name)[-1][METRIC]
        for name in records(first.storage)
    }
    assert dict(zip(trials["fingerprint"], trials["score"], strict=True)) == kept
    assert len(kept) == TRIALS
    for name in kept:
        outcome = json.loads((first.storage / "trials" / name / "outcome.json").read_text())
        assert outcome["state"] == "finished"


def test_plain_lines_say_what_starts_and_ends(first: Sweep) -> None:
    lines = first.out.splitlines()
    assert sum("] started width" in line for line in lines) == TRIALS
    assert sum("finished width" in line and METRIC in line for line in lines) == TRIALS
    assert any(line.startswith(f"[{TRIALS}/{TRIALS}] ") for line in lines)
    assert "\x1b" not in first.out


def test_report_is_whole(cwd: Path, first: Sweep) -> None:
    folder = cwd / "reports" / "smoke"
    page, text = ((folder / name).read_text() for name in ("report.html", "report.md"))
    for shown in (page, text):
        assert "Does the whole path run on this machine" in shown
        assert "untrained" in shown
        assert "slot share" in shown
    assert re.search(r"slot share: \d+\.\d%", text)
    assert list((folder / "figures").glob("*.svg"))
    assert len(pd.read_csv(folder / "trials.csv")) == TRIALS
    assert len(pd.read_csv(folder / "curves.csv")) == TRIALS * (1 + 2)  # untrained, curve: 2
    assert str(Path("reports", "smoke", "report.html")) in first.out


def test_nothing_listens_beyond_this_machine(first: Sweep) -> None:
    assert first.listening, "Ray's processes were not found"
    assert first.listening <= LOOPBACK


def test_same_command_again_only_writes_the_report(cwd: Path, first: Sweep) -> None:
    folder = cwd / "reports" / "smoke"
    before, table = records(first.storage), (folder / "trials.csv").read_bytes()
    began = time.monotonic()
    with started(cwd) as process:
        ended(process, cwd, 0)
    assert time.monotonic() - began < first.seconds / 2
    assert "started" not in said(cwd)
    assert records(first.storage) == before
    assert (folder / "trials.csv").read_bytes() == table


def test_interrupted_sweep_is_finished_by_the_same_command(first: Sweep, tmp_path: Path) -> None:
    shutil.copytree(first.storage / "cache", tmp_path / "storage" / "cache")
    with started(tmp_path, resources__slots=1) as process:
        began = time.monotonic()
        while "finished width" not in said(tmp_path) and process.poll() is None:
            assert time.monotonic() - began < LIMIT
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        ended(process, tmp_path, 130)
    assert "the same command goes on" in (tmp_path / "err").read_text()
    kept = records(tmp_path / "storage")
    assert len(kept) == 1
    assert ended_as(tmp_path / "storage") == {"finished": 1, "interrupted": 1}
    (held,) = (
        outcome.parent
        for outcome in (tmp_path / "storage").glob("trials/*/outcome.json")
        if outcome.parent.name not in kept
    )
    assert list(held.glob("checkpoints/*/state.safetensors"))
    with started(tmp_path, resources__slots=1) as process:
        ended(process, tmp_path, 0)
    finished = records(tmp_path / "storage")
    assert len(finished) == TRIALS
    assert finished.items() >= kept.items(), "a trial was trained twice"
    assert said(tmp_path).count("] started") == TRIALS - 1
    trials = frames.load(default_uri(tmp_path / "storage"), "smoke").trials
    assert list(trials["state"]) == ["finished"] * TRIALS
    assert set(finished) == set(records(first.storage)), "the same trials have the same names"
