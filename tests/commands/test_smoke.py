"""End-to-end test of an installed wheel: text, trials, MLflow and report."""

import importlib.util
import io
import json
import re
import shutil
import subprocess
import sys
import time
import tomllib
import zipfile
from contextlib import redirect_stdout
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
from few_rows import remove_rows
from project import ROOT
from sweeps import (
    LIMIT,
    LOOPBACK,
    METRIC,
    listening,
    read_output,
    records,
    start_sweep,
    sweep_arguments,
    wait_for_exit,
)

from lab.storage import record
from lab.sweep import main
from lab.tracking import frames
from lab.tracking.client import default_uri

pytestmark = pytest.mark.slow

TRIALS = 2
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


class Sweep(NamedTuple):
    storage: Path
    out: str
    listening: set[str]


@pytest.fixture(scope="module")
def cwd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("smoke")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a wheel, built from a copy because a build writes folders beside the sources."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    shutil.copytree(ROOT / "lab", source / "lab", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", PROJECT["readme"], *PROJECT["license-files"]):
        shutil.copy(ROOT / name, source)
    # An isolated build downloads setuptools; it is used only if the installed one is too old.
    installed = importlib.util.find_spec("setuptools") is not None
    enough = installed and int(metadata.version("setuptools").partition(".")[0]) >= 77
    isolation = ["--no-build-isolation"] if enough else []
    pip("wheel", str(source), "--no-deps", *isolation, "--wheel-dir", str(built))
    (file,) = built.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    pip("install", str(wheel), "--no-deps", "--no-index", "--target", str(folder))
    return folder


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def first(cwd: Path, site: Path) -> Sweep:
    """Run the sweep from the installed package, without the code of the checkout.

    The labelled tasks of the package have few rows, so that probes take little time.
    """
    remove_rows(site / "lab")
    began, seen = time.monotonic(), set[str]()
    with start_sweep(cwd, package=site) as process:
        while process.poll() is None and time.monotonic() - began < LIMIT:
            if "] started" in read_output(cwd):
                seen |= listening(process.pid)
            time.sleep(0.5)
        wait_for_exit(process, cwd, 0)
    return Sweep(cwd / "storage", read_output(cwd), seen)


def test_wheel_holds_code_text_templates_and_licenses(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
    kept = [
        path
        for path in (ROOT / "lab").rglob("*")
        if path.suffix in {".py", ".xz", ".jinja"} or path.name == "py.typed"
    ]
    assert any(path.suffix == ".xz" for path in kept)
    assert {str(path.relative_to(ROOT)) for path in kept} <= names
    assert not [name for name in names if name.startswith(("tests", "search_spaces", "reports"))]
    assert {Path(name).name for name in names} >= {"LICENSE", "NOTICE", "py.typed"}


def test_records_and_mlflow_have_the_same_scores_of_finished_trials(first: Sweep) -> None:
    trials = frames.load_frames(default_uri(first.storage), "smoke").trials
    assert list(trials["state"]) == ["finished"] * TRIALS
    kept = {
        name: record.read_curve(first.storage / "trials" / name)[-1][METRIC]
        for name in records(first.storage)
    }
    assert dict(zip(trials["fingerprint"], trials["score"], strict=True)) == kept
    assert len(kept) == TRIALS
    for name in kept:
        outcome = json.loads((first.storage / "trials" / name / "outcome.json").read_text())
        assert outcome["state"] == "finished"


def test_plain_output_has_a_line_for_each_start_and_end_of_a_trial(first: Sweep) -> None:
    lines = first.out.splitlines()
    assert sum("] started width" in line for line in lines) == TRIALS
    assert sum("finished width" in line and METRIC in line for line in lines) == TRIALS
    assert any(line.startswith(f"[{TRIALS}/{TRIALS}] ") for line in lines)
    assert "\x1b" not in first.out


@pytest.mark.reported
def test_sweep_prints_its_expected_duration_and_the_conclusion(cwd: Path, first: Sweep) -> None:
    expected = re.compile(r"^expected: about .* on 2 slots; first score after about ", re.MULTILINE)
    assert len(expected.findall(first.out)) == 1
    assert first.out.index("expected: ") < first.out.index("] started")
    conclusion = f"All steps from text to report work: {TRIALS} of {TRIALS} trials finished."
    assert conclusion in first.out
    report = (cwd / "reports" / "smoke" / "report.md").read_text()
    assert f"**{conclusion}**" in report
    # An installed package has no commit, even inside a checkout of another project.
    assert re.search(r"(?m)^- commit: none$", report)
    assert "| valid for | encoder with 1 layer of hidden size 32, 1e+10 FLOPs per trial" in report


def repeat(cwd: Path, *options: str, **changes: object) -> str:
    """Run the command again, in this process; return its output."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as out:
        patch.chdir(cwd)
        assert main([*sweep_arguments(**changes), *options]) == 0
    return out.getvalue()


def test_dry_run_counts_finished_trials_and_changes_no_file(cwd: Path, first: Sweep) -> None:
    before = {file: file.stat().st_mtime_ns for file in first.storage.rglob("*")}
    planned = repeat(cwd, "--dry-run")
    assert "all 2 have ended before" in planned
    assert "no trial is left to run" in planned
    planned = repeat(cwd, "--dry-run", search__seeds=3)
    assert "4 trials, 2 at a time, 2 ended before" in planned
    assert "prepared before" in planned
    assert {file: file.stat().st_mtime_ns for file in first.storage.rglob("*")} == before


def test_report_is_complete(cwd: Path, first: Sweep) -> None:
    folder = cwd / "reports" / "smoke"
    page, text = ((folder / name).read_text() for name in ("report.html", "report.md"))
    for shown in (page, text):
        assert "Does the whole path run on this machine" in shown
        assert "untrained" in shown
        assert "slot share" in shown
    assert re.search(r"slot share: \d+\.\d%", text)
    assert list((folder / "figures").glob("*.svg"))
    assert len(pd.read_csv(folder / "trials.csv")) == TRIALS
    assert len(pd.read_csv(folder / "curves.csv")) == TRIALS * (1 + 2)  # untrained, evaluations: 2
    assert str(Path("reports", "smoke", "report.html")) in first.out


def test_all_sockets_listen_on_loopback_addresses(first: Sweep) -> None:
    assert first.listening, "no process of Ray was found"
    assert first.listening <= LOOPBACK


def test_repeated_command_only_writes_the_report(cwd: Path, first: Sweep) -> None:
    folder = cwd / "reports" / "smoke"
    before, table = records(first.storage), (folder / "trials.csv").read_bytes()
    written = repeat(cwd)
    assert "started" not in written
    assert "no trial is left to run" in written
    assert records(first.storage) == before
    assert (folder / "trials.csv").read_bytes() == table
