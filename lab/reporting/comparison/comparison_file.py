"""`comparison.json`: which sweeps a report compares. Their tables are below `sweeps/`."""

import json
from pathlib import Path as File
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lab.reporting.verification.report_file import ReportFileError, SweepName

NAME = "comparison.json"
SWEEPS = "sweeps"  # folder of their tables


def _check_unique(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("must have each sweep once")
    return names


class ComparisonFile(BaseModel):
    """Content of `comparison.json`.

    Attributes:
        format: version of this form.
        sweeps: names of the sweeps, in the order of the report.
        across_code: whether trials of different code digests are compared.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    sweeps: Annotated[tuple[SweepName, ...], Field(min_length=2), AfterValidator(_check_unique)]
    across_code: bool


def sweep_folder(folder: File, name: str) -> File:
    """Return the folder of a sweep's tables in the folder of a comparison."""
    return folder / SWEEPS / name


def write_comparison_file(content: ComparisonFile, folder: File) -> None:
    """Write `comparison.json` to the folder of a comparison."""
    text = json.dumps(content.model_dump(mode="json"), indent=1)
    (folder / NAME).write_text(f"{text}\n", encoding="utf-8")


def read_comparison_file(file: File) -> ComparisonFile:
    """Return the content of a `comparison.json`.

    Raises:
        ReportFileError: the file is not as `write_comparison_file` writes it.
    """
    try:
        return ComparisonFile.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise ReportFileError.of(file, error) from None
