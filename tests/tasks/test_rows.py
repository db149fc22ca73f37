"""Rows that could be read in two ways, or not at all, are refused with the file and the place."""

import datetime
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from lab.config.tasks import FileRows
from lab.errors import UserError
from lab.tasks.rows import read_rows

pytestmark = pytest.mark.reported
BASE = {"text": ["x", "y"], "label": ["p", "n"]}


def refusal(file: Path) -> str:
    with pytest.raises(UserError) as error:
        read_rows(FileRows(kind="file", path=str(file)), "task")
    line = str(error.value)
    assert len(line.splitlines()) == 1
    return line.removeprefix(f"{file.parent}/")


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", "text,label,label\nx,p,n\n"), ("a.tsv", "label\ttext\tlabel\np\tx\tn\n")],
)
def test_two_columns_of_one_name_are_refused(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert (
        refusal(tmp_path / name) == f"{name}: two columns have the name 'label'; rename one of them"
    )


def test_two_columns_of_one_name_in_parquet_are_refused(tmp_path: Path) -> None:
    columns = [pa.array(values) for values in (["x"], ["p"], ["n"])]
    table = pa.Table.from_arrays(columns, names=["text", "label", "label"])
    parquet.write_table(table, tmp_path / "a.parquet")
    assert refusal(tmp_path / "a.parquet").startswith(
        "a.parquet: two columns have the name 'label'"
    )


def test_columns_without_a_name_may_repeat(tmp_path: Path) -> None:
    """Spreadsheets write them behind the last column."""
    (tmp_path / "a.csv").write_text("text,label,,\nx,p,,\n")
    ((_, row),) = read_rows(FileRows(kind="file", path=str(tmp_path / "a.csv")), "task")
    assert (row["text"], row["label"]) == ("x", "p")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"text": "x", "label": "p"}\n{"text": "x", "label": "p", "label": "n"}'),
        ("a.json", '[{"text": "x", "label": "p", "label": "n"}]'),
    ],
)
def test_a_key_that_occurs_twice_is_refused_with_its_row(
    tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content)
    row = content.count("\n") + 1
    assert refusal(tmp_path / name) == f"{name}:{row}: not JSON: the key 'label' occurs twice"


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.parquet"])
def test_a_pipe_without_a_writer_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    assert refusal(tmp_path / name) == f"{name}: not a regular file"


@pytest.mark.parametrize(
    "column",
    [
        pa.array([2**30, 5], pa.int32()).cast(pa.date32()),
        pa.array([2**62, 5], pa.int64()).cast(pa.timestamp("us")),
    ],
)
def test_dates_that_python_does_not_have_are_refused_with_the_column(
    tmp_path: Path, column: Any
) -> None:
    parquet.write_table(pa.table(BASE | {"date": column}), tmp_path / "a.parquet")
    assert refusal(tmp_path / "a.parquet").startswith(
        "a.parquet: column 'date' has a cell that cannot be read: "
    )


def test_other_dates_are_read(tmp_path: Path) -> None:
    dates = [datetime.date(2026, 1, 2), None]
    parquet.write_table(pa.table(BASE | {"date": dates}), tmp_path / "a.parquet")
    rows = read_rows(FileRows(kind="file", path=str(tmp_path / "a.parquet")), "task")
    assert [row["date"] for _, row in rows] == dates
