"""What a sweep costs beside its trials: `python -m benchmarks.overhead`, from the repository's root.

Runs a sweep whose trials do nothing but leave a record, through the real driver, Ray, Optuna and
MLflow on SQLite, and prints how long it takes to the first trial, what a trial costs, how the
driver's memory grows, and how long the same command takes to find that all has ended.
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
from lab.execution.driver import Driver, Site
from lab.loading import search_space
from lab.storage import record
from lab.storage.mirror import LocalOnly
from lab.tracking.client import default_uri
from lab.tracking.store import MlflowStore
from lab.trials.assignment import Assignment

ROOT = Path(__file__).parent.parent
EVERY = 100  # trials between two looks at the memory


def main() -> None:
    """Run the sweep and then resume it, each in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--storage", type=Path)
    given = parser.parse_args()
    if given.storage is not None:
        carry_out(given.trials, given.storage)
        return
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        for says in ("first call", "the same again, all trials finished"):
            print(f"## {says}", flush=True)
            began = time.monotonic()
            command = [sys.executable, "-m", "benchmarks.overhead", "--trials", str(given.trials)]
            subprocess.run([*command, "--storage", folder], check=True, cwd=ROOT)
            print(f"whole process: {time.monotonic() - began:.1f} s", flush=True)


def carry_out(trials: int, storage: Path) -> None:
    """Run the sweep in this process and say what it cost."""
    began = time.monotonic()
    runner.run_in_actor = nothing
    overrides = (f"search.seeds={trials}", "compare.objective.generator.width=[0.25]")
    experiment = search_space.load_experiment(ROOT / "search_spaces" / "smoke.yaml", overrides)
    storage.mkdir(parents=True, exist_ok=True)
    site = Site(storage=storage, mirror=LocalOnly(), ray=str(storage / "ray"))
    store = MlflowStore(default_uri(storage), storage / "artifacts")
    with live.open_view(Board(experiment.metric)) as view:
        driver = Watched(experiment, site, store, view)
        driver.run("overhead")
    if driver.at:
        first, last = driver.at[0], driver.at[-1]
        print(f"start to the first trial: {first - began:.1f} s")
        print(f"a trial: {(last - first) / (len(driver.at) - 1):.3f} s")
    for count, megabytes in driver.memory.items():
        print(f"driver's memory after {count} trials: {megabytes:.0f} MB")


class Watched(Driver):
    """A driver that notes when trials begin, and its own memory as they end."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.at: list[float] = []
        self.memory: dict[int, float] = {}
        self._count = 0

    def began(self, work: Assignment) -> None:
        """Note the time."""
        self.at.append(time.monotonic())
        super().began(work)

    def ended(self, work: Assignment, error: str | None) -> None:
        """Note the memory."""
        super().ended(work, error)
        self._count += 1
        if self._count % EVERY == 0 or self._count == 1:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.memory[self._count] = pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def nothing(config: dict[str, Any]) -> None:
    """Leave the record of a trial that finished at once."""
    work: Assignment = config["work"]
    record.begin_record(work.folder, work.trial)
    rows = [row(step, work.metric.name) for step in (0, 1)]
    for each in rows:
        record.append_row(work.folder, each)
    tune.report({"step": 1})
    outcome = Outcome(
        state="finished", reason="", rows=tuple(rows), began=time.time(), seconds=0.0, busy=0.0
    )
    record.write_outcome(work.folder, outcome)


def row(step: int, metric: str) -> MetricRow:
    """Return a scored point."""
    names = ("tokens", "flops", "paper_flops", "six_n", "seconds")
    return {"spent/steps": step, metric: 0.5} | {f"spent/{name}": float(step) for name in names}


if __name__ == "__main__":
    main()
