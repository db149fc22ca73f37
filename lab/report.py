"""`python -m lab.report NAME`: write the report of a sweep, or of several, from the tracking store.

With `--live`, serve the report of a sweep instead.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial

from lab import cli
from lab.display.loopback_server import LoopbackServer
from lab.display.report_page import ReportPage
from lab.errors import UserError
from lab.reporting.code_notes import describe_codes
from lab.reporting.comparison.page import write_comparison
from lab.reporting.forecasts.observed import StoreForecasts, load_forecasts
from lab.reporting.page import render_report, write_report
from lab.storage import identity, open_storage
from lab.tracking.client import default_uri
from lab.tracking.frames import SweepFrames, load_frames

_REMAINING = "an earlier report is left as it was"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status, as `cli.run`."""
    options = _build_parser().parse_args(arguments)
    return cli.run("lab.report", _REMAINING, _main, options)


def _build_parser() -> argparse.ArgumentParser:
    parser = cli.build_parser(
        "report",
        "Write the report of a sweep, or of several together, from the tracking store.",
        "python -m lab.report smoke   # after: python -m lab.sweep search_spaces/smoke.yaml\n"
        "python -m lab.report smoke --live   # while it runs\n"
        "python -m lab.report mask_prob disc_weight   # compare the settings of both sweeps",
    )
    parser.add_argument(
        "names",
        metavar="NAME",
        nargs="+",
        help="name of a sweep: its file's name without .yaml; several names give one report that "
        "compares them",
    )
    parser.add_argument(
        "--live",
        action="store_true",
        help="serve the page of one sweep on 127.0.0.1 until Ctrl-C and renew it while the sweep "
        "runs; write no file (default: write the report and exit)",
    )
    parser.add_argument(
        "--across-code",
        action="store_true",
        help="include the trials of other versions of the code, and compare the versions; rank "
        "sweeps although their versions differ (default: only the trials of the code that the last "
        "lab.sweep command of a sweep used)",
    )
    cli.add_storage(parser)
    cli.add_tracking_uri(parser)
    cli.add_reports(parser)
    return parser


def _main(options: argparse.Namespace) -> None:
    names: list[str] = options.names
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise UserError(f"{repeated}: is named twice; must be names of different sweeps")
    if options.live and len(names) > 1:
        raise UserError(f"--live: got {len(names)} names; must have the name of one sweep")
    root, remote = open_storage.open_mirror(options.storage)
    remote.pull(root / identity.NAME)
    uri = options.tracking_uri or default_uri(root)
    load = partial(
        load_frames,
        uri,
        storage=identity.read_identity(root),
        across_code=options.across_code,
    )
    forecasts = partial(load_forecasts, root, remote, uri)
    if options.live:
        _serve(partial(load, names[0]), forecasts)
    else:
        _write([load(name) for name in names], forecasts, options)


def _write(
    sweeps: Sequence[SweepFrames],
    forecasts: Callable[[], StoreForecasts],
    options: argparse.Namespace,
) -> None:
    try:
        if len(sweeps) == 1:
            page = write_report(sweeps[0], options.reports, forecasts())
        else:
            page = write_comparison(sweeps, options.reports, across_code=options.across_code)
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from None
    for frames in sweeps:
        _print_notes(frames)
    print(page)


def _serve(load: Callable[[], SweepFrames], forecasts: Callable[[], StoreForecasts]) -> None:
    """Serve the page until an interrupt; read the forecasts whenever the sweep has changed."""
    page = ReportPage(load, lambda frames: render_report(frames, forecasts()), _print_now)
    with LoopbackServer(page.read) as server:
        _print_now(f"{server.address} (only on this machine; Ctrl-C ends the server)")
        server.serve_forever()


def _print_notes(frames: SweepFrames) -> None:
    """Print which trials of a sweep are not in the report."""
    for note in describe_codes(frames):
        print(note)
    if frames.other_storages:
        print(
            f"The tracking store has {frames.name} from {frames.other_storages} more "
            f"{'storage' if frames.other_storages == 1 else 'storages'}; --storage selects one."
        )


def _print_now(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    cli.execute(main)
