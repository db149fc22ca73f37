"""`python -m lab.sweep FILE`: carry a search space out, record it and write its report.

Data goes down one way: file -> `space` -> `search` -> `runner` -> `trial` -> record -> `store`,
then `report` reads the store. What has ended is never run again: a second call of the same
command goes on where the first was stopped, or just writes the report.
"""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path as File
from typing import TYPE_CHECKING

from lab import cli

if TYPE_CHECKING:
    from lab.config.experiment import Experiment
    from lab.display.live import View
    from lab.execution.driver import Site
    from lab.search.plan import Expectation
    from lab.storage.mirror import Mirror
    from lab.tracking.frames import SweepFrames

_KEPT = "what had ended is kept, and the same command goes on"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status, as `command.run`."""
    given = _parser().parse_args(arguments)
    # Before torch is imported: a thread that waits by spinning takes a core from other
    # processes, and beside one of them the frozen model's threads mostly wait for each other.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return cli.run("lab.sweep", _KEPT, partial(_main, given))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lab.sweep",
        description="Run the trials that a search space asks for, and report what they answer.",
    )
    parser.add_argument("file", type=File, help="search space, for example gen_ratio.yaml")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        dest="overrides",
        help="override a dotted path of the file, for example base.budget.amount=1e12",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    parser.add_argument(
        "--storage",
        default="runs",
        metavar="FOLDER|URI",
        help="records and caches: a folder that all machines see, or s3://, gs://, hdfs:// ...",
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="Ray cluster to join, or auto on a node of it (default: start Ray here)",
    )
    parser.add_argument(
        "--fresh", action="store_true", help="run again what has ended, and replace its record"
    )
    parser.add_argument("--tracking-uri", help="MLflow store (default: SQLite in --storage)")
    parser.add_argument("--reports", type=File, default=File("reports"), help="folder of reports")
    return parser


def _main(given: argparse.Namespace) -> int:
    # What takes time to import is imported where it is needed: the first words are quick.
    from lab.loading import search_space, validation
    from lab.storage import checks, mirror

    experiment = search_space.load_experiment(given.file, tuple(given.overrides))
    for warning in validation.collect_warnings(experiment):
        print(f"lab.sweep: warning: {warning}", file=sys.stderr)
    if given.dry_run:
        _plan(experiment, given)
        return 0
    _check(given, experiment)
    root, kept = mirror.open_mirror(given.storage)
    checks.check_storage(root)
    checks.check_reports(given.reports, experiment.name)
    with checks.claim_storage(root, _command(given)):
        print(f"{experiment.name}: {experiment.question}", flush=True)
        from lab.display import live
        from lab.display.board import Board

        with live.open_view(Board(experiment.metric)) as view:
            lines, failed = _carry_out(given, experiment, root, kept, view)
        print("\n".join(lines))
    return 1 if failed else 0


def _plan(experiment: "Experiment", given: argparse.Namespace) -> None:
    """Print what would be run, at once, then how long it would take."""
    from lab.search import plan
    from lab.tracking.client import default_uri

    slots = _slots(experiment)
    print(plan.plan_heading(experiment, plan.plan_cells(experiment), slots), flush=True)
    root = None if "://" in given.storage else File(given.storage)
    uri = given.tracking_uri or default_uri(root or File())
    print(f"\n{plan.plan_table(_expected(experiment, root, slots, uri))}")
    if root is None:
        print(f"{given.storage} is not read here: what it holds already is counted as left to do")


def _slots(experiment: "Experiment") -> int:
    """Return the slots of this machine, one where it has too little for a trial."""
    from lab.trials import assignment

    node = assignment.local_resources(gpus=experiment.resources.gpus_per_worker > 0)
    return max(1, assignment.count_slots(experiment.resources, [node]))


def _expected(experiment: "Experiment", root: File | None, slots: int, uri: str) -> "Expectation":
    from lab.execution import expectation  # imports torch

    return expectation.estimate_sweep(experiment, root, slots, uri)


def _check(given: argparse.Namespace, experiment: "Experiment") -> None:
    """Refuse resources that are not there."""
    from lab.trials import assignment

    if given.address is None:
        assignment.check_resources(experiment.resources)
        return
    assignment.check_address(given.address)
    from lab.execution import ray_cluster

    ray_cluster.check_cluster(experiment.resources, given.address)


def _carry_out(
    given: argparse.Namespace,
    experiment: "Experiment",
    root: File,
    kept: "Mirror",
    view: "View",
) -> tuple[list[str], int]:
    """Run the sweep and write its report; return the last lines and the number of failed trials."""
    view.doing("opening MLflow's store (its tables are made the first time)")
    from lab.storage import mirror
    from lab.tracking.client import default_uri
    from lab.tracking.store import MlflowStore

    uri = given.tracking_uri or default_uri(root)
    store = MlflowStore(uri, root / "artifacts")
    if given.address is None:  # a cluster's machines are not timed from here
        view.doing("timing a few optimizer steps of each cell")
        view.say(_expected(experiment, root, _slots(experiment), uri).line())
    view.doing("loading torch and Optuna")
    from lab.execution.driver import Driver, Site

    site = Site(
        storage=root.resolve(),
        mirror=kept,
        ray=mirror.join_uri(given.storage, "ray"),
        address=given.address,
        fresh=given.fresh,
    )
    Driver(experiment, site, store, view).run(_command(given))
    return _conclude(experiment.name, uri, given, site, view)


def _conclude(
    name: str, uri: str, given: argparse.Namespace, site: "Site", view: "View"
) -> tuple[list[str], int]:
    view.doing("writing the report")
    from lab.reporting import conclusion, stats
    from lab.reporting.page import write_report
    from lab.tracking import frames

    table = frames.load_frames(uri, name)
    page = write_report(table, given.reports)
    view.doing("logging the best trial as an MLflow model")
    best = _served(table, uri, site)
    answer = stats.compute_answer(table)
    ui = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri]
    lines = [
        f"\n{conclusion.write_headline(table, answer, stats.scored_trials(table))}",
        f"valid for: {conclusion.describe_validity(table)}\n",
        f"report:    {page}",
        f"best:      {best}",
        f"MLflow UI: MLFLOW_DISABLE_TELEMETRY=true {shlex.join(ui)}",
    ]
    failed = _failed(table, site.storage)
    return [*lines, *failed], len(failed)


def _failed(table: "SweepFrames", storage: File) -> list[str]:
    """Return one line for each trial that failed, with the path of its record."""
    from lab.tracking.store import SUPERSEDED

    trials = table.trials
    failed = trials[(trials["state"] == "failed") & (trials["role"] != SUPERSEDED)]
    return [
        f"failed:    trial {row['number']}: {row['reason']}; record: "
        f"{storage / 'trials' / row['fingerprint']}"
        for _, row in failed.iterrows()
    ]


def _served(table: "SweepFrames", uri: str, site: "Site") -> str:
    """Log the best trial as a model; return what became of that, which spoils no sweep."""
    from lab.interop import mlflow_model

    try:
        return (
            mlflow_model.log_model(uri, table, site.storage, site.mirror) or "no trial has finished"
        )
    except Exception as error:  # of transformers, of a store or a disk; the answer stands without
        why = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        return f"not logged as a model: {why}"


def _command(given: argparse.Namespace) -> str:
    parts = ["python", "-m", "lab.sweep", str(given.file)]
    for override in given.overrides:
        parts += ["--set", override]
    return shlex.join(parts)


if __name__ == "__main__":
    cli.execute(main)
