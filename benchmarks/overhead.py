"""Measure the overhead of a sweep: `python -m benchmarks.overhead`, from the repository's root.

The benchmark runs a sweep of trials that only write a record, with the real driver, Ray, Optuna and
MLflow on SQLite. It prints the time until the first trial, the time per trial, the driver's memory,
and the time of a second call of the same command, which finds all trials finished.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ray import tune

from lab.config.results import MetricRow, Outcome
from lab.display import live
from lab.display.board import Board
from lab.execution import runner
from lab.execution.driver import Driver
from lab.execution.site import Site
from lab.loading import search_space
from lab.storage import record
from lab.storage.mirror import LocalOnly
from lab.tracking.client import default_uri
from lab.tracking.store import MlflowStore
from lab.trials.assignment import Assignment

ROOT = Path(__file__).parent.parent
EVERY = 100  # trials between two measurements of the memory


def main() -> None:
    """Run the sweep and then resume it, each in its own process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument(
        "--trials", type=int, default=500, help="number of trials (default: %(default)s)"
    )
    parser.add_argument("--storage", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.storage is not None:
        run_sweep(options.trials, options.storage)
        return
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        for title in ("first call", "second call, all trials finished"):
            print(f"## {title}", flush=True)
            began = time.monotonic()
            command = [sys.executable, "-m", "benchmarks.overhead", "--trials", str(options.trials)]
            subprocess.run([*command, "--storage", folder], check=True, cwd=ROOT)
            print(f"whole process: {time.monotonic() - began:.1f} s", flush=True)


def run_sweep(trials: int, storage: Path) -> None:
    """Run the sweep in this process and print its times and memory."""
    began = time.monotonic()
    runner.run_in_actor = write_finished_record
    overrides = (f"search.seeds={trials}", "compare.objective.generator.width=[0.25]")
    experiment = search_space.load_experiment(ROOT / "search_spaces" / "smoke.yaml", overrides)
    storage.mkdir(parents=True, exist_ok=True)
    site = Site(storage=storage, mirror=LocalOnly(), ray=str(storage / "ray"))
    store = MlflowStore(default_uri(storage), storage / "artifacts")
    with live.open_view(Board(experiment.metric)) as view:
        driver = MeasuredDriver(experiment, site, store, view)
        driver.run("overhead")
    if driver.at:
        first, last = driver.at[0], driver.at[-1]
        print(f"start until the first trial: {first - began:.1f} s")
        print(f"per trial: {(last - first) / (len(driver.at) - 1):.3f} s")
    for count, megabytes in driver.memory.items():
        print(f"driver's memory after {count} trials: {megabytes:.0f} MB")


class MeasuredDriver(Driver):
    """A driver that records the start times of trials, and its own memory at their ends.

    Attributes:
        at: start times of the trials, in seconds.
        memory: resident memory in MB, by the number of ended trials.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.at: list[float] = []
        self.memory: dict[int, float] = {}
        self._count = 0

    def on_start(self, work: Assignment) -> None:
        """Record the time."""
        self.at.append(time.monotonic())
        super().on_start(work)

    def on_end(self, work: Assignment, error: str | None) -> None:
        """Record the memory."""
        super().on_end(work, error)
        self._count += 1
        if self._count % EVERY == 0 or self._count == 1:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.memory[self._count] = pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def write_finished_record(config: dict[str, Any]) -> None:
    """Write the record of a finished trial without training."""
    work: Assignment = config["work"]
    record.begin_record(work.folder, work.trial)
    rows = [evaluation_row(step, work.metric.name) for step in (0, 1)]
    for row in rows:
        record.append_row(work.folder, row)
    tune.report({"step": 1})
    outcome = Outcome(
        state="finished", reason="", rows=tuple(rows), started_at=time.time(), seconds=0.0, busy=0.0
    )
    record.write_outcome(work.folder, outcome)


def evaluation_row(step: int, metric: str) -> MetricRow:
    """Return the row of an evaluation."""
    names = ("tokens", "flops", "paper_flops", "six_n", "seconds")
    return {"spent/steps": step, metric: 0.5} | {f"spent/{name}": float(step) for name in names}


if __name__ == "__main__":
    main()
