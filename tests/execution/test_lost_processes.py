"""Ray is lost during a preparatory run, and the process of a trial is lost later."""

import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from sweeps import LIMIT, find_processes, read_output, records, start_sweep, wait_for_exit

from lab.storage import record

pytestmark = pytest.mark.slow

MLM = "{kind: mlm, budget: {kind: flops, amount: 4e9}, lr: 1e-3}"
FROZEN = f"{{kind: frozen, width: 0.25, init_from: {MLM}}}"
CHANGES = {
    "base__objective": f"{{kind: electra, sharing: none, generator: {FROZEN}}}",
    "base__budget__amount": "2e10",
    "compare": "{init_from: [{kind: scratch}]}",
    "resources__slots": 1,  # for the trial and its preparatory run, one after another
}
ACTOR = b"ray::ImplicitFunc"  # with `.train` appended, except between two reports to Tune
# Ray finds a killed node with fewer and more frequent checks than the 15 seconds of its default.
# A check that is not answered fails after 10 seconds, so that a busy node is not taken for dead.
QUICK_CHECKS = {
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "2",
}


@pytest.fixture(scope="module")
def cwd(begun_storage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lost")
    shutil.copytree(begun_storage, folder / "storage")
    return folder


def running(storage: Path) -> list[Path]:
    folders = (file.parent for file in storage.glob("trials/*/state"))
    return [folder for folder in folders if record.read_state(folder) == "running"]


@pytest.fixture(scope="module")
def lost(cwd: Path, few_rows_package: Path) -> dict[str, int]:
    """Kill Ray's node during the preparatory run; return the finished records."""
    with start_sweep(cwd, package=few_rows_package, environment=QUICK_CHECKS, **CHANGES) as process:
        began = time.monotonic()
        while not running(cwd / "storage") and time.monotonic() - began < LIMIT:
            assert process.poll() is None, read_output(cwd)
            time.sleep(0.1)
        (raylet,) = find_processes(process.pid, b"/raylet/raylet")
        os.kill(raylet, signal.SIGKILL)
        wait_for_exit(process, cwd, 1)
    return records(cwd / "storage")


@pytest.fixture(scope="module")
def finished_sweep(cwd: Path, few_rows_package: Path, lost: dict[str, int]) -> dict[str, int]:
    """Run the sweep to its end, and kill the process of a trial; return the finished records."""
    (cwd / "err").rename(cwd / "first.err")
    killed, began = False, time.monotonic()
    with start_sweep(cwd, package=few_rows_package, **CHANGES) as process:
        while process.poll() is None and time.monotonic() - began < LIMIT:
            if not killed and any(map(record.read_curve, running(cwd / "storage"))):
                os.kill(find_processes(process.pid, ACTOR)[0], signal.SIGKILL)
                killed = True
            time.sleep(0.1)
        wait_for_exit(process, cwd, 0)
    finished = records(cwd / "storage")
    assert all(finished[name] == time for name, time in lost.items())
    return finished


def test_lost_ray_is_one_line_and_a_traceback_in_the_log(
    cwd: Path, finished_sweep: dict[str, int]
) -> None:
    (line,) = (cwd / "first.err").read_text().splitlines()
    assert line.startswith("lab.sweep: failed: ClusterLostError: ")
    file = cwd / "storage" / "logs" / "smoke.log"
    assert line.endswith(f"(traceback in {file})")
    log = file.read_text(encoding="utf-8")
    assert re.search(r" ERROR .*unexpected error\nTraceback \(most recent call last\)", log)
    assert "ClusterLostError: all nodes of the Ray cluster have stopped" in log


def test_lost_process_and_the_retry_of_its_trial_are_in_the_log(
    cwd: Path, finished_sweep: dict[str, int]
) -> None:
    log = (cwd / "storage" / "logs" / "smoke.log").read_text(encoding="utf-8")
    _, _, second = log.rpartition("lab.sweep starts: ")
    (name,) = re.findall(r" WARNING trial=(\w+) .*its process ended; retry 1 of 2", second)
    assert record.read_state(cwd / "storage" / "trials" / name) == "finished"


def test_sweep_that_lost_ray_in_a_preparatory_run_continues_and_trains_each_run_once(
    cwd: Path, finished_sweep: dict[str, int]
) -> None:
    kinds = [
        record.read_trial(cwd / "storage" / "trials" / name)[0].objective.kind
        for name in finished_sweep
    ]
    assert sorted(kinds) == ["electra", "mlm"]
