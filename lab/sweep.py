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
from pathlib import Path as File

from lab import places, space, work
from lab.errors import UserError
from lab.store import Store
from lab.tracking import default_uri


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status (2 for bad input, 130 where interrupted)."""
    given = _parser().parse_args(arguments)
    # Before torch is imported: a thread that waits by spinning takes a core from whoever else runs
    # here, and beside one other process the frozen model's threads mostly wait for each other.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _main(given)
    except UserError as error:
        print(f"lab.sweep: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; what had ended is kept, and the same command goes on", file=sys.stderr)
        return 130


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
        "--storage", type=File, default=File("runs"), help="records, caches and the default stores"
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
    # What takes seconds to import is imported where it is needed: --help and --dry-run are quick.
    experiment = space.load(given.file, tuple(given.overrides))
    if given.dry_run:
        from lab import plan

        node = work.here(gpus=experiment.resources.gpus_per_worker > 0)
        slots = max(1, work.slots(experiment.resources, [node]))
        print(plan.text(experiment, plan.estimate(experiment), slots))
        return 0
    if given.address is None:
        work.check(experiment.resources)
    else:
        work.check_address(given.address)
    places.check_storage(given.storage)
    places.check_reports(given.reports, experiment.name)
    uri = given.tracking_uri or default_uri(given.storage)
    with places.claimed(given.storage, _command(given)):
        store = Store(uri, given.storage / "artifacts")
        from lab.driver import Driver, Site

        site = Site(storage=given.storage.resolve(), address=given.address, fresh=given.fresh)
        Driver(experiment, site, store).run(_command(given))
        return _conclude(experiment.name, uri, given)


def _conclude(name: str, uri: str, given: argparse.Namespace) -> int:
    from lab import frames, report, stats, wording

    table = frames.load(uri, name)
    page = report.write(table, given.reports)
    print(f"\n{wording.headline(stats.answer(table))}\n")
    print(f"report:    {page}")
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri]
    print(f"MLflow UI: MLFLOW_DISABLE_TELEMETRY=true {shlex.join(command)}")
    return 0


def _command(given: argparse.Namespace) -> str:
    parts = ["python", "-m", "lab.sweep", str(given.file)]
    for override in given.overrides:
        parts += ["--set", override]
    return shlex.join(parts)


if __name__ == "__main__":
    sys.exit(main())
