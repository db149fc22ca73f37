"""`python -m lab.finetune RUN TASK`: fine-tune an encoder that the lab has trained.

    python -m lab.finetune 3fa1 sentiment
    python -m lab.finetune runs/trials/3fa1c09be211 my_task.yaml --seeds 5
    python -m lab.finetune 3fa1 mrpc --folder GLUE

What has ended is kept in the record, and is not run again.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path as File
from statistics import median
from typing import TYPE_CHECKING

from lab import cli
from lab.errors import UserError
from lab.loading.task_table import TASKS, load_task

if TYPE_CHECKING:
    from lab.finetuning.finetuner import FinetuneRun
    from lab.tasks.examples import Examples

_KEPT = "seeds that had ended are kept"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status, as `command.run`."""
    given = _parser().parse_args(arguments)
    return cli.run("lab.finetune", _KEPT, partial(_main, given))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lab.finetune",
        description="Fine-tune an encoder that the lab has trained, and score it.",
    )
    parser.add_argument(
        "run", help="a trial's name or its beginning, a record, or a sweep (its best)"
    )
    parser.add_argument("task", help=f"{', '.join(TASKS)}, or a YAML file")
    parser.add_argument("--seeds", type=int, default=10, help="runs (default: 10, the paper's)")
    parser.add_argument(
        "--lr",
        type=float,
        help="peak learning rate (default: 0.001 below a width of 256, else the paper's)",
    )
    parser.add_argument("--folder", type=File, help="local rows of GLUE's tasks: <task>/train.tsv")
    parser.add_argument("--storage", default="runs", metavar="FOLDER|URI", help="of the sweep")
    parser.add_argument("--tracking-uri", help="MLflow store (default: SQLite in --storage)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    return parser


def _main(given: argparse.Namespace) -> None:
    from lab.formatting import format_duration
    from lab.interop import find_trial
    from lab.storage import mirror, record
    from lab.tracking.client import default_uri

    _check(given)
    task = load_task(given.task, given.folder)
    root, kept = mirror.open_mirror(given.storage)
    folder = find_trial.resolve_run(given.run, root, given.tracking_uri or default_uri(root), kept)
    kept.pull(root / "cache" / str(record.read_facts(folder).get("text")))

    print(f"{folder.name}: fine-tuning on {task.name}", flush=True)
    from lab.finetuning import finetuner  # torch takes seconds to import
    from lab.finetuning import pretrained as encoders
    from lab.finetuning.results import FinetuneResults
    from lab.tasks import examples

    pretrained = encoders.load_from_record(folder, root / "cache")
    made = examples.read_examples(task)
    protocol = finetuner.default_protocol(pretrained.shape.hidden, given.lr)
    ledger = FinetuneResults(folder, made, protocol, pretrained.steps)
    print(
        f"{task.name}: {len(made.train)} to learn from, {len(made.evaluation)} to be scored on, "
        f"{task.form.epochs} epochs at {protocol.lr:g}"
    )
    if made.unseen:
        print(f"labels that nobody can learn, counted as errors: {', '.join(made.unseen)}")

    def tuner() -> finetuner.Finetuner:
        ready = finetuner.Finetuner(pretrained, made, protocol, given.device)
        print(f"longer than a window of {pretrained.encoder.length}: {ready.cut:.1%}")
        return ready

    for run in ledger.complete(given.seeds, tuner):
        kept.push(ledger.file)
        score, took = run.scores[task.form.metric], format_duration(run.seconds)
        print(f"seed {run.seed}: {task.form.metric} {score:.4f} in {took}", flush=True)
    done = ledger.runs()
    _show(made, [done[seed] for seed in range(given.seeds)])
    print(f"kept in {ledger.file}")


def _check(given: argparse.Namespace) -> None:
    if given.seeds < 1:
        raise UserError(f"--seeds {given.seeds}: at least 1")
    if given.lr is not None and not 0 < given.lr < 1:
        raise UserError(f"--lr {given.lr:g}: must be above 0 and below 1")
    if given.device != "cpu":
        import torch

        try:
            torch.empty(0, device=given.device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"--device {given.device}: {str(error).splitlines()[0]}") from None


def _show(made: "Examples", runs: "list[FinetuneRun]") -> None:
    """Print every seed's scores, their medians, what it cost, and what knowing nothing gives."""
    from rich.console import Console
    from rich.table import Table

    from lab.finetuning.metrics import majority_baseline
    from lab.formatting import format_duration

    names = list(runs[0].scores)
    table = Table("seed", *names, "FLOP", "seconds")
    for run in runs:
        scores = (f"{run.scores[name]:.4f}" for name in names)
        table.add_row(str(run.seed), *scores, f"{run.flops:.3g}", f"{run.seconds:.1f}")
    table.add_section()
    total, seconds = sum(run.flops for run in runs), sum(run.seconds for run in runs)
    medians = {name: median(run.scores[name] for run in runs) for name in names}
    table.add_row("median", *(f"{medians[name]:.4f}" for name in names))
    baseline = majority_baseline(made)
    table.add_row("majority", *(f"{baseline[n]:.4f}" if n in baseline else "" for n in names))
    Console().print(table)
    metric = made.form.metric
    print(
        f"finetune/{made.name}: {metric} {medians[metric]:.4f} (median of {len(runs)}); "
        f"{baseline[metric]:.4f} for always saying what is most frequent"
    )
    print(f"charged, beside pre-training: {total:.3g} FLOP, {format_duration(seconds)}")


if __name__ == "__main__":
    cli.execute(main)
