"""`python -m lab.report NAME`: write the report of one sweep from the tracking store."""

import argparse
from collections.abc import Sequence
from pathlib import Path as File

from lab import cli
from lab.errors import UserError
from lab.reporting.page import write_report
from lab.tracking.client import default_uri
from lab.tracking.frames import load_frames

_KEPT = "an earlier report is left as it was"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report that the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="lab.report", description="Write the report of a sweep from the store."
    )
    parser.add_argument("name", metavar="NAME", help="of the sweep: its file's name without .yaml")
    parser.add_argument("--tracking-uri", metavar="URI", default=default_uri(), help="MLflow store")
    parser.add_argument("--out", metavar="FOLDER", type=File, default=File("reports"))
    asked = parser.parse_args(arguments)
    return cli.run("lab.report", _KEPT, lambda: _main(asked))


def _main(asked: argparse.Namespace) -> None:
    frames = load_frames(asked.tracking_uri, asked.name)
    try:
        page = write_report(frames, asked.out)
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from None
    print(page)


if __name__ == "__main__":
    cli.execute(main)
