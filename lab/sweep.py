"""`python -m lab.sweep FILE`: run the trials of a search space, record them and write the report.

Data flows in one direction: file -> `loading` -> `search` -> `execution` -> `trials` -> record ->
`tracking`; then `reporting` reads the tracking store. Trials that have ended are never run again: a
second call of the same command resumes the sweep, or only writes the report.
"""

import argparse
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path as File
from typing import TYPE_CHECKING

from lab import cli, logging_setup
from lab.control_characters import make_visible
from lab.execution import interrupts
from lab.interop import find_trial

if TYPE_CHECKING:
    from lab.config.experiment import Experiment
    from lab.display.live import View
    from lab.execution.site import Site
    from lab.search.plan import Expectation
    from lab.storage.mirror import Mirror
    from lab.tracking.frames import SweepFrames

_LOG = logging.getLogger("lab.sweep")  # __name__ is "__main__" in `python -m`
_ALL = "all"
_REMAINING = "trials that have ended are kept; run the same command again to resume"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status, as `cli.run`."""
    options = _build_parser().parse_args(arguments)
    # Set before torch is imported: OpenMP threads that wait actively take a core from other
    # processes, and the threads of the frozen model then mostly wait for each other.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    interrupts.handle_terminating(interrupts.interrupt_once)
    return cli.run("lab.sweep", _REMAINING, _main, options)


def _build_parser() -> argparse.ArgumentParser:
    parser = cli.build_parser(
        "sweep",
        "Run the trials of a search space, record them and write the report.",
        "python -m lab.sweep search_spaces/smoke.yaml",
    )
    cli.add_search_space(parser, "base.budget.amount=1e12")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the plan and the estimated time, and run nothing (default: run the sweep)",
    )
    cli.add_storage(parser)
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="address of a running Ray cluster, or auto on one of its nodes "
        "(default: start Ray on this machine)",
    )
    parser.add_argument(
        "--fresh",
        nargs="?",
        action="append",
        type=_trial_name,
        const=_ALL,
        default=[],
        metavar="TRIAL",
        help="run a trial again that has ended, and replace its record; TRIAL is its name or its "
        "beginning, and the option may be repeated; without TRIAL, run all of them again "
        "(default: keep all records)",
    )
    cli.add_tracking_uri(parser)
    cli.add_reports(parser)
    return parser


def _trial_name(text: str) -> str:
    """Return a valid name of a trial, or beginning of one; the type of --fresh.

    Raises:
        argparse.ArgumentTypeError: the text cannot begin the name of a trial.
    """
    if not find_trial.is_name(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not the name of a trial: 4 to 12 digits or letters from a to f; to run "
            "all trials again, write --fresh after FILE"
        )
    return text


def _main(options: argparse.Namespace) -> int:
    # Slow imports are made where they are needed, so that the first line is printed at once.
    from lab.loading import mask_checks, search_space, sweep_warnings
    from lab.storage import checks, open_storage
    from lab.tasks import examples, minimal_pairs

    experiment = search_space.load_experiment(options.file, tuple(options.overrides))
    minimal_pairs.read_pairs(experiment.minimal_pairs, experiment.metric)  # checks the file
    examples.check_local_tasks(experiment.finetune.tasks)
    for warning in sweep_warnings.collect_warnings(experiment):
        _LOG.warning("%s", warning)
        print(f"lab.sweep: warning: {warning}", file=sys.stderr)
    if options.dry_run:
        _plan(experiment, options)
        return 0
    _check(options, experiment)
    root, remote = open_storage.open_mirror(options.storage)
    checks.check_storage(root)
    checks.check_reports(options.reports, experiment.name)
    names = [name for name in options.fresh if name != _ALL]
    again = {find_trial.resolve_trial(name, root.resolve(), remote) for name in names}
    with checks.claim_storage(root, _command_line(options)):
        masks = mask_checks.mask_lines(search_space.corner_trials(experiment))
        print("\n".join([f"{experiment.name}: {experiment.question}", *masks]), flush=True)
        log_file = root / "logs" / f"{experiment.name}.log"
        remote.pull(log_file)
        logging_setup.command_log().set_file(log_file, remote.push)
        from lab.display import live
        from lab.display.board import Board

        with live.open_view(Board(experiment.metric)) as view:
            lines, failed = _run_sweep(options, experiment, root, remote, view, frozenset(again))
        print(make_visible("\n".join(lines)))
    return 1 if failed else 0


def _plan(experiment: "Experiment", options: argparse.Namespace) -> None:
    """Print the planned trials at once, then the estimated time of each part.

    Raises:
        UserError: this machine or the cluster lacks the resources of a trial.
    """
    from lab.search import plan
    from lab.tracking.client import default_uri

    slots = _slots(experiment)
    print(plan.plan_heading(experiment, plan.plan_cells(experiment), slots), flush=True)
    _check(options, experiment)
    root = None if "://" in options.storage else File(options.storage)
    uri = options.tracking_uri or default_uri(root or File())
    expected = _estimate(experiment, root, slots, uri)
    print(f"\n{plan.plan_table(expected)}")
    for warning in expected.warnings:
        print(f"lab.sweep: warning: {warning}", file=sys.stderr)
    if (power := _describe_planned_power(experiment, root)) is not None:
        print(f"power:    {power}")
    if root is None:
        print(
            f"{options.storage} is not read by --dry-run: its finished trials count as not yet run"
        )


def _describe_planned_power(experiment: "Experiment", root: File | None) -> str | None:
    from lab.reporting.power.sentences import describe_plan  # imports SciPy
    from lab.search import seed_noise

    noise = None if root is None else seed_noise.find_seed_noise(experiment, root)
    return describe_plan(experiment, noise)


def _slots(experiment: "Experiment") -> int:
    """Return the number of slots of this machine; 1 if it is too small for a trial."""
    from lab.trials import assignment

    node = assignment.local_resources(gpus=experiment.resources.gpus_per_worker > 0)
    return max(1, assignment.count_slots(experiment.resources, [node]))


def _estimate(experiment: "Experiment", root: File | None, slots: int, uri: str) -> "Expectation":
    from lab.execution import expectation  # imports torch

    return expectation.estimate_sweep(experiment, root, slots, uri)


def _check(options: argparse.Namespace, experiment: "Experiment") -> None:
    """Raise `UserError` if this machine or the cluster lacks the resources of a trial."""
    from lab.trials import assignment

    if options.address is None:
        assignment.check_resources(experiment.resources)
        return
    assignment.check_address(options.address)
    from lab.execution import ray_cluster

    ray_cluster.check_cluster(experiment.resources, options.address)


def _run_sweep(
    options: argparse.Namespace,
    experiment: "Experiment",
    root: File,
    remote: "Mirror",
    view: "View",
    again: frozenset[File],
) -> tuple[list[str], int]:
    """Run the sweep and write its report; return the last lines and the number of failed trials."""
    view.set_phase("opening the MLflow store (its tables are created on first use)")
    from lab.storage import open_storage
    from lab.tracking.client import default_uri
    from lab.tracking.store import MlflowStore

    uri = options.tracking_uri or default_uri(root)
    store = MlflowStore(uri, root / "artifacts", view.print_line)
    logging_setup.command_log().start()  # all checks of the input have passed
    if options.address is None:  # the machines of a cluster cannot be timed here
        view.set_phase("timing a few optimizer steps of each cell")
        estimate = _estimate(experiment, root, _slots(experiment), uri).line()
        _LOG.info("%s", estimate)
        view.print_line(estimate)
    view.set_phase("loading torch and Optuna")
    from lab.execution.driver import Driver
    from lab.execution.site import Site

    site = Site(
        storage=root.resolve(),
        mirror=remote,
        ray=open_storage.join_uri(options.storage, "ray"),
        address=options.address,
        fresh=_ALL in options.fresh,
        again=again,
    )
    Driver(experiment, site, store, view).run(_command_line(options))
    return _conclude(experiment.name, uri, options, site, view)


def _conclude(
    name: str, uri: str, options: argparse.Namespace, site: "Site", view: "View"
) -> tuple[list[str], int]:
    """Write the report, store it in MLflow and log the best trial.

    Returns:
        The lines to print, and the number of failed trials.
    """
    view.set_phase("writing the report")
    from lab.reporting import code_notes, conclusion, stats
    from lab.reporting.documents.run_note import write_note
    from lab.reporting.forecasts.observed import load_forecasts
    from lab.reporting.page import write_report
    from lab.reporting.power.sentences import describe_power
    from lab.storage.identity import read_identity
    from lab.tracking import frames, tags
    from lab.tracking.publication import publish_report
    from lab.tracking.user_interface import describe_interface

    table = frames.load_frames(uri, name, storage=read_identity(site.storage))
    forecasts = load_forecasts(site.storage, site.mirror, uri)
    page = write_report(table, options.reports, forecasts)
    answer, scored = stats.compute_answer(table), stats.scored_trials(table)
    headline = conclusion.write_headline(table, answer, scored)
    ranked = conclusion.select_ranked(table, answer, scored)
    facts = [] if answer is None else conclusion.list_facts(table, answer, scored)
    note = write_note(table.sweep[tags.QUESTION], headline, facts)
    publish_report(uri, table, page, str(headline), note)
    view.set_phase("logging the best trial as an MLflow model")
    best = _log_best_trial(table, uri, site)
    lines = [
        f"\n{headline}",
        f"valid for: {conclusion.describe_validity(table)}\n",
        *(f"{key}: {text}" for key, text in describe_power(*ranked)),
        *(f"code:      {note}" for note in code_notes.describe_codes(table)),
        f"report:    {page}",
        f"best:      {best}",
        *describe_interface(uri, table),
    ]
    failed = _failed_lines(table, site.storage)
    _LOG.info("report: %s; failed trials: %d", page, len(failed))
    return [*lines, *failed], len(failed)


def _failed_lines(table: "SweepFrames", storage: File) -> list[str]:
    """Return one line for each failed trial: its number, the reason and the traceback's path."""
    from lab.tracking import tags

    trials = table.trials
    failed = trials[(trials["state"] == "failed") & (trials["role"] != tags.SUPERSEDED)]
    lines = []
    for _, row in failed.iterrows():
        traceback = storage / "trials" / row["fingerprint"] / "traceback.txt"
        where = f"; traceback in {traceback}" if traceback.exists() else ""
        lines.append(f"failed:    trial {row['number']}: {row['reason']}{where}")
    return lines


def _log_best_trial(table: "SweepFrames", uri: str, site: "Site") -> str:
    """Log the best trial as an MLflow model.

    Returns:
        The model's address, or the reason why there is none: the sweep succeeds in either case.
    """
    from lab.interop import mlflow_model

    try:
        return (
            mlflow_model.log_models(uri, table, site.storage, site.mirror)
            or "no trial has finished"
        )
    except Exception as error:
        # An error of transformers, the store or a disk; the report does not need the model.
        _LOG.exception("the best trial was not logged as an MLflow model")
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:500]
        return f"not logged as a model: {reason}"


def _command_line(options: argparse.Namespace) -> str:
    """Return the command for messages to other processes; options besides --set are left out."""
    parts = ["python", "-m", "lab.sweep", str(options.file)]
    for override in options.overrides:
        parts += ["--set", override]
    return shlex.join(parts)


if __name__ == "__main__":
    cli.execute(main)
