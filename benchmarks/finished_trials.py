"""Measure a storage of many finished trials: `python -m benchmarks.finished_trials`, from the root.

The benchmark writes synthetic records of finished trials, with as many metrics, evaluations and
blocks of the test set as real ones, and no checkpoints. It then measures processor and wall-clock
time of four commands:

- `lab.sweep` without MLflow's and Optuna's databases and without the record of the last trial:
  until that trial starts, and in all. The other records are copied to MLflow while it is trained;
- `lab.sweep` without these databases, which are made again from the records;
- `lab.sweep` once more, which finds everything done and only writes the report;
- `lab.report`.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna

from lab.config.experiment import Experiment
from lab.config.results import MetricRow, Outcome
from lab.execution.assignment_builder import AssignmentBuilder
from lab.execution.prerequisites import Prerequisites
from lab.execution.site import Site
from lab.loading import search_space
from lab.search.search import Search
from lab.storage import provenance, record
from lab.storage.mirror import LocalOnly

ROOT = Path(__file__).parent.parent
RATES = 5  # learning rates; each is trained on all seeds
BLOCKS = 100
SPENT = ("tokens", "flops", "paper_flops", "six_n", "seconds", "marginal_flops", "standalone_flops")
TRAINED = (
    "train/loss",
    "train/generator_loss",
    "train/discriminator_loss",
    "health/generator_accuracy",
    "health/replacement_rate",
    "health/majority_loss",
    "health/recall_replaced",
    "health/grad_norm_discriminator",
    "health/grad_norm_generator",
    "health/tokens_per_second",
    "health/flops_per_second",
    "health/micro_batch",
)
SCORES = (
    *(f"detect/{each}/auroc" for each in ("unigram", "bigram", "mlm")),
    *(f"detect/{each}/calibrated_loss" for each in ("unigram", "bigram", "mlm")),
    "probe/pos/accuracy",
    "probe/pos/nats",
    "probe/sentiment/accuracy",
    "probe/sentiment/nats",
    "mlm/nats_per_character",
    "pairs/accuracy",
    *(f"pairs/{each}/accuracy" for each in ("determiner", "agreement", "pronoun", "order")),
)
BASELINES = (
    *(f"baseline/{table}/{score}" for table in ("unigram", "bigram") for score in SCORES[:3]),
    "baseline/word/probe/pos/accuracy",
    "baseline/majority/probe/sentiment/accuracy",
    *(f"baseline/{table}/{score}" for table in ("unigram", "bigram") for score in SCORES[11:]),
)


def main() -> None:
    """Write the records, and run each command in its own process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finished_trials")
    parser.add_argument(
        "--trials", type=int, default=1_000, help="number of trials (default: %(default)s)"
    )
    parser.add_argument(
        "--profile", type=Path, help="folder for profiles of the commands (default: none)"
    )
    options = parser.parse_args()
    overrides = (
        f"search={{sampler: grid, trials: {RATES}, seeds: {options.trials // (2 * RATES)}, "
        "repeated: every_setting}",
        "tune={optim.lr: {low: 1e-3, high: 1e-2, log: true}}",
        "answer=ranking",
        "metric=detect/bigram/auroc",
        "base.evaluations=4",
    )
    space = ROOT / "search_spaces" / "smoke.yaml"
    experiment = search_space.load_experiment(space, overrides)
    with tempfile.TemporaryDirectory(prefix="finished-trials-") as folder:
        storage = Path(folder, "storage")
        *others, last = write_records(experiment, storage)
        print(f"{len(others) + 1} records of finished trials; {len(os.sched_getaffinity(0))} cores")
        places = ["--storage", str(storage), "--reports", str(Path(folder, "reports"))]
        sweep = ["sweep", str(space), *(part for each in overrides for part in ("--set", each))]
        uri = f"sqlite:///{storage}/mlflow.db"
        shutil.rmtree(last)
        measure("sweep, a trial left to train", [*sweep, *places], options.profile)
        for database in storage.glob("*.db"):
            database.unlink()
        for title, arguments in (
            ("sweep, databases made again", [*sweep, *places]),
            ("sweep, nothing left to do", [*sweep, *places]),
            ("report", ["report", experiment.name, "--tracking-uri", uri, *places[2:]]),
        ):
            measure(title, arguments, options.profile)


def measure(title: str, arguments: list[str], profiles: Path | None) -> None:
    """Run a command; print its processor time (user and system), wall-clock time, first start."""
    program = [sys.executable]
    if profiles is not None:
        profiles.mkdir(parents=True, exist_ok=True)
        program += ["-m", "cProfile", "-o", str(profiles / f"{title.replace(' ', '_')}.prof")]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [*program, "-m", f"lab.{arguments[0]}", *arguments[1:]]
    lines = []
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            lines.append(line)
            if "] started " in line:
                print(f"{title}: the first trial starts after {time.monotonic() - began:.1f} s")
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - began
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{title}: {busy:.1f} s of processor time, {wall:.1f} s in all", flush=True)
    if process.returncode:
        sys.exit(f"status {process.returncode}: {''.join(lines)}")


def write_records(experiment: Experiment, storage: Path) -> list[Path]:
    """Write a record for each job of an experiment, and return their folders.

    The jobs must not depend on scores.
    """
    storage.mkdir(parents=True)
    site = Site(storage=storage, mirror=LocalOnly(), ray="")
    prerequisites = Prerequisites(storage, site.mirror)
    prerequisites.prepare(experiment)
    builder = AssignmentBuilder(experiment, site, prerequisites)
    search = Search(experiment, optuna.storages.InMemoryStorage(), storage / "searches")
    process = provenance.current_provenance()
    chance = np.random.default_rng(1)
    vars(os)["fsync"] = lambda _: None  # the records may be lost with the power
    folders = []
    while (job := search.ask()) is not None:
        work = builder.build_trial(job)
        rows = tuple(curve(chance, work.trial.evaluations))
        record.write_queued(work.folder, work.trial, work.lineage, work.text.name)
        provenance.add_provenance(work.folder, process)
        record.write_rows(work.folder, rows)
        blocks = {name: chance.normal(0, 1e-3, BLOCKS).round(6).tolist() for name in SCORES[:10]}
        record.write_blocks(work.folder, blocks)
        outcome = Outcome(
            state="finished", reason="", rows=rows, started_at=1e9, seconds=70.0, busy=60.0
        )
        record.write_outcome(work.folder, outcome)
        folders.append(work.folder)
    return folders


def curve(chance: np.random.Generator, evaluations: int) -> Iterator[MetricRow]:
    """Yield the rows of a trial; the last one has all metrics."""
    for evaluation in range(evaluations + 1):
        share = evaluation / evaluations
        row = {"spent/steps": float(evaluation * 100)}
        row |= {f"spent/{name}": 2e10 * share for name in SPENT}
        names = [*SCORES, *(TRAINED if evaluation else ())]
        baselines = dict.fromkeys(BASELINES if evaluation == evaluations else (), 0.55)
        yield (
            row
            | baselines
            | {name: 0.5 + 0.1 * share + float(chance.normal(0, 0.01)) for name in names}
        )


if __name__ == "__main__":
    main()
