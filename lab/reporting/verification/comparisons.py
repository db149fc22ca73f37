"""Recompute the report of several sweeps, and list what differs."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path as File

from lab.reporting.comparison.comparison_file import NAME, ComparisonFile, sweep_folder
from lab.reporting.comparison.page import write_comparison
from lab.reporting.verification import report_file
from lab.reporting.verification.differences import Difference
from lab.reporting.verification.recomputation import (
    NOT_RECOMPUTED,
    compare_reports,
    read_own_tables,
)
from lab.reporting.verification.report_file import ReportFile, ReportFileError, read_report_file
from lab.tracking.frames import SweepFrames


def read_contents(folder: File, content: ComparisonFile) -> list[ReportFile]:
    """Return the `report.json` of each sweep of a comparison.

    Raises:
        ReportFileError: one of them is not as the lab writes it.
        OSError: one of them cannot be read.
    """
    files = {name: sweep_folder(folder, name) / report_file.NAME for name in content.sweeps}
    contents = {name: read_report_file(file) for name, file in files.items()}
    for name, each in contents.items():
        if each.name != name:
            raise ReportFileError(f"{files[name]}: name: must be {name}, not {each.name}")
    return list(contents.values())


def verify_with_store(
    folder: File, content: ComparisonFile, sweeps: Sequence[SweepFrames]
) -> list[Difference]:
    """Return the differences between a comparison and the one of frames.

    Args:
        folder: folder of the comparison.
        content: content of its `comparison.json`.
        sweeps: frames of its sweeps.
    """
    names = [str(sweep_folder(File(), frames.name) / report_file.NAME) for frames in sweeps]
    with tempfile.TemporaryDirectory() as temporary:
        page = write_comparison(sweeps, File(temporary), across_code=content.across_code)
        return list(compare_reports(folder, page.parent, [NAME, *names]))


def verify_with_own_files(
    folder: File, content: ComparisonFile, contents: Sequence[ReportFile]
) -> list[Difference]:
    """Return the differences between a comparison and the one of its own tables.

    Args:
        folder: folder of the comparison.
        content: content of its `comparison.json`.
        contents: content of the `report.json` of each sweep.
    """
    found: list[Difference] = []
    sweeps: list[SweepFrames] = []
    for each in contents:
        tables = sweep_folder(folder, each.name)
        changed, frames = read_own_tables(tables, each)
        place = tables.relative_to(folder)
        found += [replace(other, file=f"{place}/{other.file}") for other in changed]
        sweeps += [] if frames is None else [frames]
    return [*found, NOT_RECOMPUTED] if found else verify_with_store(folder, content, sweeps)
