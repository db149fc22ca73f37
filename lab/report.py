"""`python -m lab.report NAME`: write the report of one sweep from the tracking store."""

import argparse
from collections.abc import Sequence

from lab import cli
from lab.errors import UserError
from lab.reporting.code_notes import describe_codes
from lab.reporting.forecasts.observed import load_forecasts
from lab.reporting.page import write_report
from lab.storage import identity, open_storage
from lab.tracking.client import default_uri
from lab.tracking.frames import load_frames

_REMAINING = "an earlier report is left as it was"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status, as `cli.run`."""
    options = _build_parser().parse_args(arguments)
    return cli.run("lab.report", _REMAINING, _main, options)


def _build_parser() -> argparse.ArgumentParser:
    parser = cli.build_parser(
        "report",
        "Write the report of a sweep from the tracking store.",
        "python -m lab.report smoke   # after: python -m lab.sweep search_spaces/smoke.yaml",
    )
    parser.add_argument(
        "name", metavar="NAME", help="name of the sweep: its file's name without .yaml"
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
    uri = options.tracking_uri or default_uri(root)
    frames = load_frames(
        uri,
        options.name,
        storage=identity.read_identity(root),
        across_code=options.across_code,
    )
    try:
        page = write_report(frames, options.reports, load_forecasts(root, remote, uri))
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from None
    for note in describe_codes(frames):
        print(note)
    if frames.other_storages:
        print(
            f"The tracking store has {options.name} from {frames.other_storages} more "
            f"{'storage' if frames.other_storages == 1 else 'storages'}; --storage selects one."
        )
    print(page)


if __name__ == "__main__":
    cli.execute(main)
