"""A sweep with preparatory runs: Ray is lost, a process is lost, and a run diverges."""

import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from project import ROOT
from sweeps import (
    LIMIT,
    find_processes,
    read_output,
    records,
    start_sweep,
    wait_for_exit,
)

from lab.config.preparatory_runs import preparatory_runs
from lab.loading import search_space
from lab.storage import record
from lab.tracking import frames
from lab.tracking.client import default_uri

pytestmark = pytest.mark.slow

MLM = "{kind: mlm, budget: {kind: flops, amount: 4e9}, lr: %s}"
FROZEN = "{kind: frozen, width: 0.25, init_from: %s}" % (MLM % "1e-3")
CHANGES = {
    "base__objective": f"{{kind: electra, sharing: none, generator: {FROZEN}}}",
    "base__budget__amount": "2e10",
    "compare": f"{{init_from: [{{kind: scratch}}, {MLM % '1e-3'}, {MLM % '1e3'}]}}",
}


@pytest.fixture(scope="module")
def cwd(begun_storage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("preparatory")
    shutil.copytree(begun_storage, folder / "storage")
    return folder


def running(storage: Path) -> list[Path]:
    folders = (file.parent for file in storage.glob("trials/*/state"))
    return [folder for folder in folders if record.read_state(folder) == "running"]


@pytest.fixture(scope="module")
def lost(cwd: Path) -> dict[str, int]:
    """Kill Ray's node during the first preparatory run; return the finished records."""
    with start_sweep(cwd, **CHANGES) as process:
        began = time.monotonic()
        while not running(cwd / "storage") and time.monotonic() - began < LIMIT:
            assert process.poll() is None, read_output(cwd)
            time.sleep(0.1)
        (raylet,) = find_processes(process.pid, b"/raylet/raylet")
        os.kill(raylet, signal.SIGKILL)
        wait_for_exit(process, cwd, 1)
    return records(cwd / "storage")


def test_lost_ray_is_one_line_and_a_traceback_in_the_log(
    cwd: Path, lost: dict[str, int], finished_sweep: dict[str, int]
) -> None:
    (line,) = (cwd / "first.err").read_text().splitlines()
    assert line.startswith("lab.sweep: failed: ClusterLostError: ")
    file = cwd / "storage" / "logs" / "smoke.log"
    assert line.endswith(f"(traceback in {file})")
    log = file.read_text(encoding="utf-8")
    assert re.search(r" ERROR .*unexpected error\nTraceback \(most recent call last\)", log)
    assert "ClusterLostError: all nodes of the Ray cluster have stopped" in log


@pytest.fixture(scope="module")
def finished_sweep(cwd: Path, lost: dict[str, int]) -> dict[str, int]:
    """Run the sweep to its end, and kill the process of a trial; return the finished records."""
    (cwd / "err").rename(cwd / "first.err")
    killed, began = False, time.monotonic()
    with start_sweep(cwd, **CHANGES) as process:
        while process.poll() is None and time.monotonic() - began < LIMIT:
            if not killed and any(map(record.read_curve, running(cwd / "storage"))):
                os.kill(find_processes(process.pid, b"ray::ImplicitFunc.train")[0], signal.SIGKILL)
                killed = True
            time.sleep(0.1)
        wait_for_exit(process, cwd, 0)
    shutil.copy(cwd / "storage" / "logs" / "smoke.log", cwd / "second.log")
    finished = records(cwd / "storage")
    assert all(finished[name] == time for name, time in lost.items())
    return finished


def test_lost_process_and_the_retry_of_its_trial_are_in_the_log(
    cwd: Path, finished_sweep: dict[str, int]
) -> None:
    _, _, log = (cwd / "second.log").read_text(encoding="utf-8").rpartition("lab.sweep starts: ")
    (name,) = re.findall(r" WARNING trial=(\w+) .*its process ended; retry 1 of 2", log)
    assert record.read_state(cwd / "storage" / "trials" / name) in ("finished", "diverged")


def test_sweep_that_lost_ray_in_a_preparatory_run_continues_and_trains_each_run_once(
    cwd: Path, finished_sweep: dict[str, int]
) -> None:
    """Two trials finish; they share the generator's run, and one of them has an encoder's run."""
    kinds = [
        record.read_trial(cwd / "storage" / "trials" / name)[0].objective.kind
        for name in finished_sweep
    ]
    assert sorted(kinds) == ["electra", "electra", "mlm", "mlm"]


def test_finished_sweep_trains_nothing_and_its_report_counts_each_run_once(
    cwd: Path, finished_sweep: dict[str, int]
) -> None:
    with start_sweep(cwd, **CHANGES) as process:
        wait_for_exit(process, cwd, 0)
    assert records(cwd / "storage") == finished_sweep
    table = frames.load_frames(default_uri(cwd / "storage"), "smoke")
    assert table.measures["preparatory_runs"] == 3  # the third has diverged, but was trained
    text = (cwd / "reports" / "smoke" / "report.md").read_text()
    assert re.search(r"\| cost \| .* of training, including .* in 3 preparatory mlm runs", text)
    assert "Stand-alone compute is equal: trials of " in text
    assert "| marginal FLOP | stand-alone FLOP |" in text


def test_diverged_preparatory_run_is_the_recorded_reason_and_leaves_other_trials_alone(
    cwd: Path, finished_sweep: dict[str, int]
) -> None:
    trials = frames.load_frames(default_uri(cwd / "storage"), "smoke").trials
    assert sorted(trials["state"]) == ["diverged", "finished", "finished"]
    (reason,) = trials.loc[trials["state"] == "diverged", "reason"]
    assert re.match(r"its preparatory run [0-9a-f]{12} diverged: ", reason)


def test_budget_of_a_trial_includes_its_preparatory_runs(
    cwd: Path, finished_sweep: dict[str, int]
) -> None:
    trials = frames.load_frames(default_uri(cwd / "storage"), "smoke").trials
    done = trials[trials["state"] == "finished"]
    assert done["achieved"].between(0.9, 1.1).all()
    before = done["spent/flops"] - done["spent/marginal_flops"]
    assert before.between(3.5e9, 9e9).all()
    assert before.max() > 1.8 * before.min()  # two preparatory runs, and one


def test_shipped_search_space_frozen_has_one_run_per_shape() -> None:
    experiment = search_space.load_experiment(ROOT / "search_spaces" / "frozen.yaml")
    counts = [
        len(set(preparatory_runs(search_space.build_trial(experiment.base, cell)).values()))
        for cell in search_space.expand_cells(experiment)
    ]
    assert counts == [0, 2, 1, 2]
