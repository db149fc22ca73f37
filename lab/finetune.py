"""`python -m lab.finetune RUN TASK`: fine-tune an encoder that the lab has trained.

    python -m lab.finetune 3fa1 sentiment
    python -m lab.finetune runs/trials/3fa1c09be211 my_task.yaml --seeds 5
    python -m lab.finetune 3fa1 mrpc --folder GLUE

Finished seeds are stored in the trial's record and are not run again.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path as File
from statistics import median
from typing import TYPE_CHECKING

from lab import cli
from lab.control_characters import make_visible
from lab.errors import UserError
from lab.loading.task_table import TASKS, load_task

if TYPE_CHECKING:
    from lab.finetuning.finetuner import FinetuneRun
    from lab.tasks.examples import Examples

_REMAINING = "finished seeds are kept"
_MOST_SEEDS = 1_000
_LEAST_LR = 1e-8  # a smaller rate changes no weight of 32 bits
_DEVICES = ("cpu", "cuda")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status, as `cli.run`."""
    options = _build_parser().parse_args(arguments)
    return cli.run("lab.finetune", _REMAINING, _main, options)


def _build_parser() -> argparse.ArgumentParser:
    parser = cli.build_parser(
        "finetune",
        "Fine-tune an encoder that the lab has trained, and print its scores.",
        "python -m lab.finetune smoke sentiment   "
        "# after: python -m lab.sweep search_spaces/smoke.yaml",
    )
    cli.add_run(parser)
    parser.add_argument("task", metavar="TASK", help=f"{', '.join(TASKS)}, or a YAML file")
    parser.add_argument(
        "--seeds",
        type=int,
        default=10,
        metavar="N",
        help="number of runs, each with its own seed (default: %(default)s, as in the paper)",
    )
    parser.add_argument(
        "--lr",
        type=float,
        metavar="RATE",
        help="peak learning rate (default: 0.001 for encoders narrower than 256, else the paper's)",
    )
    parser.add_argument(
        "--folder",
        type=File,
        help="local copies of GLUE's tasks, as FOLDER/TASK/train.tsv (default: the Hugging Face "
        "hub)",
    )
    cli.add_storage(parser)
    cli.add_tracking_uri(parser)
    parser.add_argument(
        "--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: %(default)s)"
    )
    return parser


def _main(options: argparse.Namespace) -> None:
    from lab.formatting import format_duration
    from lab.interop import find_trial
    from lab.storage import open_storage, record

    _check(options)
    task = load_task(options.task, options.folder)
    root, remote = open_storage.open_mirror(options.storage)
    folder, reason = find_trial.resolve_run(options.run, root, options.tracking_uri, remote)
    remote.pull(root / "cache" / str(record.read_facts(folder).get("text")))

    chosen = f" ({reason})" if reason else ""
    print(make_visible(f"{folder.name}: fine-tuning on {task.name}{chosen}"), flush=True)
    from lab.finetuning import finetuner  # torch takes seconds to import
    from lab.finetuning import pretrained as encoders
    from lab.finetuning.results import FinetuneResults
    from lab.tasks import examples as task_examples

    pretrained = encoders.load_from_record(folder, root / "cache")
    examples = task_examples.read_examples(task)
    protocol = finetuner.default_protocol(pretrained.shape.hidden, options.lr)
    results = FinetuneResults(folder, examples, protocol, pretrained.steps)
    print(
        f"{task.name}: {len(examples.train)} training examples, {len(examples.evaluation)} "
        f"evaluation examples, {task.config.epochs} epochs at a peak rate of {protocol.lr:g}"
    )
    if examples.repeated:
        print(f"evaluation examples with the text of a training example: {examples.repeated}")
    if examples.unseen:
        unseen = make_visible(", ".join(examples.unseen))
        print(f"tags without a training example, counted as errors: {unseen}")

    def build_finetuner() -> finetuner.Finetuner:
        tuner = finetuner.Finetuner(pretrained, examples, protocol, options.device)
        print(f"longer than a window of {pretrained.encoder.length}: {tuner.truncated_share:.1%}")
        return tuner

    for run in results.complete(options.seeds, build_finetuner):
        remote.push(results.file)
        score, duration = run.scores[task.config.metric], format_duration(run.seconds)
        undefined = f" ({run.undefined})" if run.undefined else ""
        print(
            f"seed {run.seed}: {task.config.metric} {score:.4f} in {duration}{undefined}",
            flush=True,
        )
    finished = results.runs()
    _print_scores(examples, [finished[seed] for seed in range(options.seeds)])
    print(f"stored in {results.file}")


def _check(options: argparse.Namespace) -> None:
    if not 1 <= options.seeds <= _MOST_SEEDS:
        raise UserError(f"--seeds {options.seeds}: must be from 1 to {_MOST_SEEDS:,}")
    if options.lr is not None and not _LEAST_LR <= options.lr < 1:
        raise UserError(f"--lr {options.lr:g}: must be at least {_LEAST_LR:g} and below 1")
    if options.device != "cpu":
        import torch

        try:
            if torch.empty(0, device=options.device).device.type not in _DEVICES:
                raise RuntimeError(f"must be one of {', '.join(_DEVICES)}")
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"--device {options.device}: {str(error).splitlines()[0]}") from None


def _print_scores(examples: "Examples", runs: "list[FinetuneRun]") -> None:
    """Print the scores and the cost of each seed, the medians and the majority baseline."""
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
    baseline = majority_baseline(examples)
    table.add_row("majority", *(f"{baseline[n]:.4f}" if n in baseline else "" for n in names))
    # Rich flushes the output, and exits with status 1 where it is closed. Lines that were printed
    # before must not be left to that.
    sys.stdout.flush()
    console = Console()
    with console.capture() as text:
        console.print(table)
    print(text.get(), end="")
    metric = examples.config.metric
    for reason in dict.fromkeys(run.undefined for run in runs if run.undefined):
        seeds = ", ".join(str(run.seed) for run in runs if run.undefined == reason)
        print(f"warning: seed {seeds}: {reason}")
    print(
        f"finetune/{examples.name}: {metric} {medians[metric]:.4f} (median of {len(runs)}); "
        f"majority baseline {baseline[metric]:.4f}"
    )
    print(f"fine-tuning cost, beside pre-training: {total:.3g} FLOP, {format_duration(seconds)}")


if __name__ == "__main__":
    cli.execute(main)
