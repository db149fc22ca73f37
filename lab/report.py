"""`python -m lab.report NAME`: write the report of a sweep from the tracking store, or serve it."""

import argparse
from collections.abc import Sequence
from pathlib import Path as File

from lab import cli
from lab.display.loopback_server import LoopbackServer
from lab.display.report_page import ReportPage
from lab.errors import UserError
from lab.reporting.code_notes import describe_codes
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
        "Write the report of a sweep from the tracking store.",
        "python -m lab.report smoke   # after: python -m lab.sweep search_spaces/smoke.yaml\n"
        "python -m lab.report smoke --live   # while it runs",
    )
    parser.add_argument(
        "name", metavar="NAME", help="name of the sweep: its file's name without .yaml"
    )
    parser.add_argument(
        "--live",
        action="store_true",
        help="serve the page on 127.0.0.1 until Ctrl-C and renew it while the sweep runs; write no "
        "file (default: write the report and exit)",
    )
    parser.add_argument(
        "--across-code",
        action="store_true",
        help="include the sweep's trials of other versions of the code, and compare the versions "
        "(default: only the trials of the code that the last lab.sweep command used)",
    )
    cli.add_storage(parser)
    cli.add_tracking_uri(parser)
    cli.add_reports(parser)
    return parser


def _main(options: argparse.Namespace) -> None:
    root, remote = open_storage.open_mirror(options.storage)
    remote.pull(root / identity.NAME)
    if options.live:
        _serve(options, root)
    else:
        _write(options, root)


def _write(options: argparse.Namespace, root: File) -> None:
    frames = _load(options, root)
    try:
        page = write_report(frames, options.reports)
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from None
    _print_notes(frames)
    print(page)


def _serve(options: argparse.Namespace, root: File) -> None:
    """Serve the page until an interrupt."""
    page = ReportPage(lambda: _load(options, root), render_report, _print_now)
    with LoopbackServer(page.read) as server:
        _print_now(f"{server.address} (only on this machine; Ctrl-C ends the server)")
        server.serve_forever()


def _load(options: argparse.Namespace, root: File) -> SweepFrames:
    return load_frames(
        options.tracking_uri or default_uri(root),
        options.name,
        storage=identity.read_identity(root),
        across_code=options.across_code,
    )


def _print_notes(frames: SweepFrames) -> None:
    """Print which trials of the store are not in the report."""
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
