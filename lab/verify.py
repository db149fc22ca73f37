"""`python -m lab.verify reports/NAME`: recompute the numbers of a report, list what differs."""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path as File

from lab import cli
from lab.errors import UserError
from lab.reporting.comparison import comparison_file
from lab.reporting.forecasts.observed import load_forecasts
from lab.reporting.verification import comparisons
from lab.reporting.verification.differences import Difference
from lab.reporting.verification.older_reports import verify_older
from lab.reporting.verification.recomputation import verify_with_own_files, verify_with_store
from lab.reporting.verification.report_file import (
    NAME,
    ReportFile,
    ReportFileError,
    read_report_file,
)
from lab.storage import identity, open_storage
from lab.storage.mirror import Mirror
from lab.tracking import tags
from lab.tracking.client import default_uri
from lab.tracking.frames import FramesError, SweepFrames, load_frames

_REMAINING = "the report was not changed"
_PARTS = ("report.md", "report.html", NAME)  # a folder with one of them is a report
_MOST_SHOWN = 20  # differences of one file


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status, as `cli.run`: 1 if something differs."""
    options = _build_parser().parse_args(arguments)
    return cli.run("lab.verify", _REMAINING, _main, options)


def _build_parser() -> argparse.ArgumentParser:
    parser = cli.build_parser(
        "verify",
        "Recompute the numbers of a report and list what differs.",
        "python -m lab.verify reports/gen_ratio",
    )
    parser.add_argument(
        "report",
        metavar="REPORT",
        type=File,
        help="folder of a report, for example reports/gen_ratio; it is recomputed from the "
        "tracking store, or from its own tables if the store does not have the sweep",
    )
    cli.add_storage(parser)
    cli.add_tracking_uri(parser)
    return parser


def _main(options: argparse.Namespace) -> int:
    folder: File = options.report
    if not folder.is_dir() or not any((folder / part).is_file() for part in _PARTS):
        raise UserError(
            f"{folder}: is not a report; must be a folder with report.md, for example reports/NAME"
        )
    try:
        found = _verify(folder, options)
    except ReportFileError as error:
        print(error)
        return cli.FAILED
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from None
    for _, group in itertools.groupby(found, key=lambda each: each.file):
        of_file = list(group)
        for difference in of_file[:_MOST_SHOWN]:
            print(f"{folder}/{difference}")
        if len(of_file) > _MOST_SHOWN:
            print(f"{folder}/{of_file[0].file}: {len(of_file) - _MOST_SHOWN} more differences")
    counted = f"{len(found)} difference{'s' * (len(found) != 1)}" if found else "no difference"
    print(f"{folder}: {counted}")
    return cli.FAILED if found else 0


def _verify(folder: File, options: argparse.Namespace) -> list[Difference]:
    """Print what the report is recomputed from, and return the differences."""
    if (folder / comparison_file.NAME).is_file():
        return _verify_comparison(folder, options)
    content = read_report_file(folder / NAME) if (folder / NAME).is_file() else None
    root, mirror, uri = _open_store(options)
    try:
        frames = _load_sweep(folder, content, root, uri)
    except FramesError as error:
        if content is None:
            print(
                f"{folder}: has no {NAME} (an older report), so only the trials' "
                "numbers are checked: those of report.md against trials.csv and curves.csv"
            )
            return verify_older(folder)
        _print_own_tables(folder, error)
        return verify_with_own_files(folder, content)
    _print_store(folder)
    return verify_with_store(folder, frames, load_forecasts(root, mirror, uri))


def _verify_comparison(folder: File, options: argparse.Namespace) -> list[Difference]:
    """Print what the report of several sweeps is recomputed from, and return the differences."""
    content = comparison_file.read_comparison_file(folder / comparison_file.NAME)
    contents = comparisons.read_contents(folder, content)
    _, _, uri = _open_store(options)
    try:
        sweeps = [_load_known(each, uri, across_code=content.across_code) for each in contents]
    except FramesError as error:
        _print_own_tables(folder, error)
        return comparisons.verify_with_own_files(folder, content, contents)
    _print_store(folder)
    return comparisons.verify_with_store(folder, content, sweeps)


def _print_store(folder: File) -> None:
    print(f"{folder}: recomputed from the tracking store")


def _print_own_tables(folder: File, reason: FramesError) -> None:
    print(f"{folder}: recomputed from its own tables ({reason})")


def _load_sweep(folder: File, content: ReportFile | None, root: File, uri: str) -> SweepFrames:
    """Return the sweep of a report from the tracking store.

    Args:
        folder: folder of the report.
        content: content of its `report.json`; None if it has none.
        root: local folder of the storage.
        uri: URI of the tracking store.

    Raises:
        FramesError: the store does not have it.
    """
    if content is None:
        return load_frames(uri, folder.resolve().name, storage=identity.read_identity(root))
    return _load_known(content, uri, across_code=len(content.codes) > 1)


def _load_known(content: ReportFile, uri: str, *, across_code: bool) -> SweepFrames:
    """Return the sweep of a `report.json` from the tracking store.

    Args:
        content: content of the file.
        uri: URI of the tracking store.
        across_code: whether trials of other versions of the code are included.

    Raises:
        FramesError: the store does not have the run from which the file was written.
    """
    storage = content.sweep.get(tags.STORAGE, "")
    frames = load_frames(uri, content.name, storage=storage, across_code=across_code)
    if frames.run_id != content.run_id:
        raise FramesError(f"the tracking store has another run of {content.name}")
    return frames


def _open_store(options: argparse.Namespace) -> tuple[File, Mirror, str]:
    """Return the folder of the storage, its mirror, and the URI of the tracking store."""
    root, mirror = open_storage.open_mirror(options.storage)
    mirror.pull(root / identity.NAME)
    return root, mirror, options.tracking_uri or default_uri(root)


if __name__ == "__main__":
    cli.execute(main)
