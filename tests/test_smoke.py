"""The whole path, as a person starts it: text, trials in Ray, MLflow, report; twice; cut off."""

import json
import re
import shutil
import signal
import time
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
from sweeps import LIMIT, LOOPBACK, METRIC, ended, ended_as, listening, records, said, started

from lab import frames, record
from lab.tracking import default_uri

pytestmark = pytest.mark.slow

TRIALS = 2


class Sweep(NamedTuple):
    storage: Path
    out: str
    seconds: float
    listening: set[str]


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


def test_sweep_says_what_to_expect_and_that_the_path_works(cwd: Path, first: Sweep) -> None:
    expected = re.compile(r"^expected: about .* on 2 slots; first score after about ", re.MULTILINE)
    assert len(expected.findall(first.out)) == 1
    assert first.out.index("expected: ") < first.out.index("] started")
    says = f"The whole path works: {TRIALS} of {TRIALS} trials finished, from text to report."
    assert says in first.out
    report = (cwd / "reports" / "smoke" / "report.md").read_text()
    assert f"**{says}**" in report
    assert "| valid for | encoder 64 wide × 2 layers, 3e+10 FLOPs a run" in report


def test_dry_run_counts_what_has_ended_and_changes_nothing(cwd: Path, first: Sweep) -> None:
    before = {file: file.stat().st_mtime_ns for file in first.storage.rglob("*")}
    with started(cwd, "--dry-run") as process:
        ended(process, cwd, 0)
    assert "all 2 have ended before" in said(cwd)
    assert "no trial is left to run" in said(cwd)
    with started(cwd, "--dry-run", search__seeds=3) as process:
        ended(process, cwd, 0)
    assert "4 trials, 2 at a time, 2 ended before" in said(cwd)
    assert "prepared before" in said(cwd)
    assert {file: file.stat().st_mtime_ns for file in first.storage.rglob("*")} == before


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
    assert "no trial is left to run" in said(cwd)
    assert records(first.storage) == before
    assert (folder / "trials.csv").read_bytes() == table


def test_interrupted_sweep_is_finished_by_the_same_command(first: Sweep, tmp_path: Path) -> None:
    shutil.copytree(first.storage / "cache", tmp_path / "storage" / "cache")
    with started(tmp_path, resources__slots=1) as process:
        began = time.monotonic()
        # The second has its slot: before that, an interrupt leaves nothing of it.
        while said(tmp_path).count("] started") < TRIALS and process.poll() is None:
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
    assert said(tmp_path).count("] started") == TRIALS - len(kept)
    trials = frames.load(default_uri(tmp_path / "storage"), "smoke").trials
    assert list(trials["state"]) == ["finished"] * TRIALS
    assert set(finished) == set(records(first.storage)), "the same trials have the same names"
