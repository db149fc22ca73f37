"""`report.json`: what a report needs beside `trials.csv` and `curves.csv` to be computed again.

The two tables have the numbers of the trials. This file has the rest of the frames, the types of
the tables' columns, and a digest of each row and column, because no other file of the report
determines the numbers in them.
"""

import base64
import csv
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path as File
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lab.errors import UserError
from lab.reporting import stats
from lab.reporting.documents import csv_files
from lab.reporting.forecasts.observed import NO_FORECASTS, ObservedRun, StoreForecasts
from lab.reporting.forecasts.record import ForecastRecord
from lab.tracking import tags
from lab.tracking.checked_tags import find_bad_measure, find_bad_sweep_tag
from lab.tracking.code_versions import CodeVersion
from lab.tracking.frames import SweepFrames

NAME = "report.json"
TABLES = {"trials": "trials.csv", "curves": "curves.csv"}
_REQUIRED = {  # columns of every sweep; those of settings and metrics differ
    "trials": {
        "number", "fingerprint", "state", "reason", "role", "repeat", "cell", "tuned", "score",
        "untrained", "achieved", "device", "shared", tags.CODE,
    },
    "curves": {"number", "fingerprint", "step"},
}  # fmt: skip
_BLOCKS = np.dtype("<f8")
Kind = Literal["text", "integer", "number", "truth", "missing", "none"]
Cells = list[list[str]]


class ReportFileError(UserError):
    """A file of a report cannot be read; the message is one line."""

    @classmethod
    def of(cls, file: File, error: ValidationError) -> "ReportFileError":
        """Return the error of a JSON file with an invalid value."""
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(map(str, first["loc"]))
        return cls(f"{file}: {path}{': ' if path else ''}{first['msg']}")


def _check_name(name: str) -> str:
    if name in {".", ".."}:
        raise ValueError("must be the name of a sweep")
    return name


# It is part of the path of a folder.
SweepName = Annotated[str, Field(pattern=r"^[^/\\\x00]+$"), AfterValidator(_check_name)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class Column(_Part):
    """Column of a table.

    Attributes:
        name: its name in the frames; that in the CSV file can have an apostrophe in front.
        dtype: its pandas data type.
        kinds: type of each cell, or of all; empty for columns of numbers or truth values.
        digest: digest of its cells in the CSV file, with the heading.
    """

    name: str
    dtype: str
    kinds: Kind | list[Kind] | Literal[""]
    digest: str


class TableForm(_Part):
    """Form of a table, and digests of its content.

    Attributes:
        columns: its columns in the order of the CSV file.
        originals: texts of the frames that the CSV file has in another form, by that form.
        rows: digest of each row in the CSV file, without the heading.
    """

    columns: list[Column]
    originals: dict[str, str]
    rows: list[str]


class Blocks(_Part):
    """Contributions of the blocks of the test set to a score of a trial (`SweepFrames.blocks`).

    Attributes:
        number: number of the trial.
        metric: name of the score.
        values: contributions as little-endian float64 in base64.
    """

    number: int
    metric: str
    values: str


class Forecasts(_Part):
    """Forecasts of the store (`StoreForecasts`).

    Attributes:
        records: the forecasts.
        runs: runs by which they are scored.
        problems: messages about files that are not used.
    """

    records: list[ForecastRecord]
    runs: list[ObservedRun]
    problems: list[str]


class ReportFile(_Part):
    """Content of `report.json`: the fields of `SweepFrames`, with the tables replaced by forms.

    It has the blocks of those trials alone by which settings are compared. The key `forecasts` is
    missing if the store has none.
    """

    format: Literal[1] = 1
    name: SweepName
    sweep: dict[str, str]
    measures: dict[str, float]
    texts: dict[str, str]
    codes: list[CodeVersion]
    omitted_codes: list[CodeVersion]
    run_id: str
    experiment_id: str
    trials: TableForm
    curves: TableForm
    blocks: list[Blocks]
    forecasts: Forecasts | None = None


def write_tables(
    frames: SweepFrames, folder: File, forecasts: StoreForecasts = NO_FORECASTS
) -> None:
    """Write `trials.csv`, `curves.csv` and `report.json` to an existing folder.

    Args:
        frames: frames of the sweep.
        folder: folder of the report.
        forecasts: forecasts of the store.
    """
    csv_files.write_csv(frames.trials, folder / TABLES["trials"])
    csv_files.write_csv(frames.curves, folder / TABLES["curves"])
    compared = set(stats.scored_trials(frames)["number"])
    content = ReportFile(
        name=frames.name,
        sweep=frames.sweep,
        measures=frames.measures,
        texts=frames.texts,
        codes=list(frames.codes),
        omitted_codes=list(frames.omitted_codes),
        run_id=frames.run_id,
        experiment_id=frames.experiment_id,
        trials=_describe(frames.trials, read_cells(folder / TABLES["trials"])),
        curves=_describe(frames.curves, read_cells(folder / TABLES["curves"])),
        blocks=[
            Blocks(number=int(number), metric=metric, values=_encode(values))
            for (number, metric), values in frames.blocks.items()
            if number in compared
        ],
        forecasts=None
        if forecasts == NO_FORECASTS
        else Forecasts(
            records=list(forecasts.records),
            runs=list(forecasts.runs),
            problems=list(forecasts.problems),
        ),
    )
    missing = {"forecasts"} if content.forecasts is None else None
    text = json.dumps(content.model_dump(mode="json", exclude=missing), indent=1)
    (folder / NAME).write_text(f"{text}\n", encoding="utf-8")


def read_report_file(file: File) -> ReportFile:
    """Return the content of a `report.json`.

    Raises:
        ReportFileError: the file is not as `write_tables` writes it.
    """
    try:
        return ReportFile.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise ReportFileError.of(file, error) from None


def restore_frames(content: ReportFile, tables: dict[str, Cells]) -> SweepFrames:
    """Return the frames from which a report was written.

    Args:
        content: content of its `report.json`.
        tables: cells of its CSV files by the keys of `TABLES`, with their digests as in `content`.

    Raises:
        ReportFileError: a tag of the sweep or a column is not as the lab writes it, or a cell is
            not of the type that `content` states.
    """
    if reason := find_bad_sweep_tag(content.sweep):
        raise ReportFileError(f"{NAME}: sweep: {reason}")
    if reason := find_bad_measure(content.measures):
        raise ReportFileError(f"{NAME}: measures: {reason}")
    for key, form in (("trials", content.trials), ("curves", content.curves)):
        if missing := _REQUIRED[key] - {column.name for column in form.columns}:
            raise ReportFileError(f"{NAME}: {key}: no column {min(missing)!r}")
    try:
        frames = SweepFrames(
            name=content.name,
            sweep=content.sweep,
            measures=content.measures,
            texts=content.texts,
            trials=_restore(content.trials, tables["trials"]),
            curves=_restore(content.curves, tables["curves"]),
            blocks={(each.number, each.metric): _decode(each.values) for each in content.blocks},
            codes=tuple(content.codes),
            omitted_codes=tuple(content.omitted_codes),
            run_id=content.run_id,
            experiment_id=content.experiment_id,
        )
    except (ValueError, TypeError, IndexError) as error:
        raise ReportFileError(f"{NAME} does not describe the tables: {error}") from None
    _check_score_columns(frames)
    return frames


def _check_score_columns(frames: SweepFrames) -> None:
    """Check that tables with a score have the columns from which it was taken."""
    if not frames.trials["score"].notna().any():
        return
    needed = {"trials": {frames.sweep[tags.METRIC]}, "curves": {frames.sweep[tags.METRIC]}}
    needed["trials"] |= {"cost"} if tags.COST in frames.sweep else set()
    for key, table in (("trials", frames.trials), ("curves", frames.curves)):
        if missing := needed[key] - set(table):
            raise ReportFileError(f"{NAME}: {key}: no column {min(missing)!r}")


def restore_forecasts(content: ReportFile) -> StoreForecasts:
    """Return the forecasts of the store with which a report was written."""
    stored = content.forecasts
    if stored is None:
        return NO_FORECASTS
    return StoreForecasts(
        records=tuple(stored.records), runs=tuple(stored.runs), problems=tuple(stored.problems)
    )


def read_cells(file: File) -> Cells:
    """Return the cells of a CSV file, the heading first.

    Raises:
        ReportFileError: the file is not a CSV file in UTF-8.
    """
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            return list(csv.reader(lines, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ReportFileError(f"{file}: is not a CSV file in UTF-8: {error}") from None


def digest(cells: Iterable[str]) -> str:
    """Return the digest of a row or of a column."""
    return hashlib.sha256("\x1f".join(cells).encode()).hexdigest()[:16]


def _describe(table: pd.DataFrame, cells: Cells) -> TableForm:
    columns: list[Column] = []
    originals: dict[str, str] = {}
    for position, name in enumerate(table):
        values = table.iloc[:, position]
        is_text = values.dtype == object or pd.api.types.is_string_dtype(values.dtype)
        kinds = list(map(_kind, values)) if is_text else []
        texts = (value for value in values if isinstance(value, str))
        originals |= {csv_files.make_inert(text): text for text in texts}
        columns.append(
            Column(
                name=str(name),
                dtype=str(values.dtype),
                kinds=kinds[0] if len(set(kinds)) == 1 else kinds or "",
                digest=digest(row[position] for row in cells),
            )
        )
    return TableForm(
        columns=columns,
        originals={shown: text for shown, text in originals.items() if shown != text},
        rows=list(map(digest, cells[1:])),
    )


def _restore(form: TableForm, cells: Cells) -> pd.DataFrame:
    rows = cells[1:]
    columns = {
        column.name: pd.Series(
            _restore_column(column, [row[position] for row in rows], form.originals),
            dtype=column.dtype,
        )
        for position, column in enumerate(form.columns)
    }
    return pd.DataFrame(columns, columns=[column.name for column in form.columns])


def _restore_column(column: Column, cells: Sequence[str], originals: dict[str, str]) -> list[Any]:
    if column.kinds:
        kinds = [column.kinds] * len(cells) if isinstance(column.kinds, str) else column.kinds
        pairs = zip(kinds, cells, strict=True)
        return [_parse(kind, cell, originals) for kind, cell in pairs]
    if column.dtype == "bool":
        return [cell == "True" for cell in cells]
    parse = int if column.dtype.startswith("int") else float
    return [parse(cell) if cell else math.nan for cell in cells]


def _kind(value: object) -> Kind:
    match value:
        case None:
            return "none"
        case bool():
            return "truth"
        case int():
            return "integer"
        case float():
            return "missing" if math.isnan(value) else "number"
    return "text"


def _parse(kind: Kind, cell: str, originals: dict[str, str]) -> object:
    match kind:
        case "none":
            return None
        case "missing":
            return math.nan
        case "truth":
            return cell == "True"
        case "integer":
            return int(cell)
        case "number":
            return float(cell)
    return originals.get(cell, cell)


def _encode(values: Sequence[float]) -> str:
    return base64.b64encode(np.asarray(values, dtype=_BLOCKS).tobytes()).decode()


def _decode(text: str) -> list[float]:
    values: list[float] = np.frombuffer(base64.b64decode(text), dtype=_BLOCKS).tolist()
    return values
