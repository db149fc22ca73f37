"""Recompute a report from frames, or from its own files, and list what differs."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path as File

from lab.reporting.forecasts.observed import StoreForecasts
from lab.reporting.page import PARTS, write_report
from lab.reporting.verification import differences
from lab.reporting.verification.differences import Difference
from lab.reporting.verification.pages import compare_pages
from lab.reporting.verification.report_file import (
    NAME,
    TABLES,
    Cells,
    ReportFile,
    ReportFileError,
    TableForm,
    digest,
    read_cells,
    restore_forecasts,
    restore_frames,
)
from lab.tracking.frames import SweepFrames

_TEXT = "report.md"
_PAGE = "report.html"
_FIGURES = "figures/*.svg"
_CSV = "**/*.csv"
NOT_RECOMPUTED = Difference(
    file=_TEXT, text="was not recomputed, because the tables are not those of the report"
)


def verify_with_store(
    folder: File, frames: SweepFrames, forecasts: StoreForecasts
) -> list[Difference]:
    """Return the differences between a report and the one of the store.

    Args:
        folder: folder of the report.
        frames: frames of the tracking store.
        forecasts: forecasts of the store.
    """
    with tempfile.TemporaryDirectory() as temporary:
        rebuilt = write_report(frames, File(temporary), forecasts).parent
        names = [NAME] if (folder / NAME).is_file() else []  # older reports have none
        return list(compare_reports(folder, rebuilt, names))


def verify_with_own_files(folder: File, content: ReportFile) -> list[Difference]:
    """Return the differences between a report and the one of its own tables.

    If the tables do not have the digests in `report.json`, the places are returned, and the other
    files are not compared, because numbers of changed tables say nothing about them.

    Args:
        folder: folder of the report.
        content: content of its `report.json`.
    """
    found, frames = read_own_tables(folder, content)
    if frames is None:
        return [*found, NOT_RECOMPUTED]
    return verify_with_store(folder, frames, restore_forecasts(content))


def read_own_tables(
    folder: File, content: ReportFile
) -> tuple[list[Difference], SweepFrames | None]:
    """Return the frames of the tables in a folder, or the places that are not as they were written.

    Args:
        folder: folder with the two CSV files.
        content: content of its `report.json`.
    """
    tables: dict[str, Cells] = {}
    found: list[Difference] = []
    for key, form in (("trials", content.trials), ("curves", content.curves)):
        name = TABLES[key]
        if not (folder / name).is_file():
            found.append(Difference(file=name, text="is missing"))
            continue
        try:
            tables[key] = read_cells(folder / name)
        except ReportFileError as error:
            found.append(Difference(file=name, text=str(error)))
            continue
        found += _check_digests(name, form, tables[key])
    return (found, None) if found else ([], restore_frames(content, tables))


def _check_digests(name: str, form: TableForm, cells: Cells) -> Iterator[Difference]:
    """Yield the cells that are in a row and a column with another digest than the report's."""
    if len(cells) - 1 != len(form.rows):
        text = f"has {len(cells) - 1} rows; the report was written with {len(form.rows)}"
        yield Difference(file=name, text=text)
        return
    head = cells[0]
    lengths = [line for line, row in enumerate(cells, 1) if len(row) != len(form.columns)]
    if lengths:
        text = f"does not have the {len(form.columns)} columns of the report"
        yield Difference(file=name, place=f"line {lengths[0]}", text=text)
        return
    columns = [
        position
        for position, column in enumerate(form.columns)
        if digest(row[position] for row in cells) != column.digest
    ]
    rows = [
        line
        for line, (row, known) in enumerate(zip(cells[1:], form.rows, strict=True), 2)
        if digest(row) != known
    ]
    changed = "is not what the report was written with (other digest)"
    for position in columns if not rows else ():
        text = f"{head[position]!r} {changed}"
        yield Difference(file=name, place=f"line 1, column {position + 1}", text=text)
    for line in rows:
        for position in columns:
            place = f"line {line}, column {head[position]}"
            yield Difference(
                file=name, place=place, text=f"{cells[line - 1][position]!r} {changed}"
            )


def compare_reports(folder: File, rebuilt: File, names: Sequence[str]) -> Iterator[Difference]:
    """Yield the differences between two reports: text, page, CSV files, figures and other files.

    Args:
        folder: folder of the report.
        rebuilt: folder of the recomputed report.
        names: paths of the other files.
    """
    csv_names, figures = _list_files(rebuilt, _CSV), _list_files(rebuilt, _FIGURES)
    for name in [_TEXT, _PAGE, *csv_names, *names, *figures]:
        if not (folder / name).is_file():
            yield Difference(file=name, text="is missing")
            continue
        try:
            yield from _compare_files(name, folder / name, rebuilt / name)
        except ReportFileError as error:
            yield Difference(file=name, text=str(error))
    for pattern, kind in ((_FIGURES, "figure"), (_CSV, "table")):
        for name in sorted({*_list_files(folder, pattern)} - {*_list_files(rebuilt, pattern)}):
            if name.partition("/")[0] in PARTS:  # not a file of the user
                yield Difference(file=name, text=f"is not a {kind} of the recomputed report")


def _compare_files(name: str, written: File, recomputed: File) -> Iterator[Difference]:
    if name.endswith(".csv"):
        return differences.compare_tables(name, written, recomputed)
    old, new = (f.read_bytes().decode(errors="surrogateescape") for f in (written, recomputed))
    if name.endswith(".html"):
        return compare_pages(name, old, new)
    if name.endswith(".svg"):
        return differences.compare_figures(name, old, new)
    return differences.compare_texts(name, old, new)


def _list_files(folder: File, pattern: str) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.glob(pattern))
