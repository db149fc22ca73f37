"""Each figure and table of a report names CSV files with its numbers, which are those it shows."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.reporting import sentences
from lab.reporting.documents.table_frames import list_frames, table_frame
from lab.reporting.scaling.estimates import format_estimate
from lab.reporting.tables import Table
from lab.scaling.profiles import Estimate

NUMBERS = st.floats(1e-3, 1e17)


def read_cell(text: str) -> dict[str, object]:
    """Return the columns of a table with one cell, without the missing ones."""
    frame = table_frame(Table(caption="", head=("x",), rows=[[text]]))
    return {str(name): value for name, value in frame.iloc[0].items() if not pd.isna(value)}


@settings(max_examples=40)
@given(NUMBERS, st.sampled_from(["", "FLOP", "tokens", "s"]))
def test_amounts_are_read_with_their_prefix_and_unit(value: float, unit: str) -> None:
    assert read_cell(sentences.format_quantity(value, unit)) == {
        "x": pytest.approx(value, rel=6e-3)
    }


@settings(max_examples=40)
@given(st.lists(NUMBERS, min_size=3, max_size=3).map(sorted))
def test_estimates_are_divided_into_value_and_ends(ends: list[float]) -> None:
    low, value, high = ends
    estimate = Estimate(value=value, low=low, high=high, level=0.9)
    expected = {"x low": low, "x": value, "x high": high}
    assert read_cell(format_estimate(estimate)) == pytest.approx(expected, rel=6e-3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("−0.0123 [−0.0200, 0.0010]", {"x": -0.0123, "x low": -0.02, "x high": 0.001}),
        ("[+0.1000, +0.2000]", {"x low": 0.1, "x high": 0.2}),
        ("0.7000 ± 0.0100 (3)", {"x": 0.7, "x sd": 0.01, "x n": 3}),
        ("75% [12%, 99%]", {"x": 0.75, "x low": 0.12, "x high": 0.99}),
        ("at least 3.2 k", {"x low": 3200}),
        ("at most 1e-05", {"x high": 1e-5}),
        ("1,234.5", {"x": 1234.5}),
        ("–", {}),
        ("3 of 4", {"x": "3 of 4"}),
        ("width 0.25", {"x": "width 0.25"}),
    ],
)
def test_cells_are_numbers_where_they_are_written_as_such(
    text: str, expected: dict[str, object]
) -> None:
    found = read_cell(text)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == (value if isinstance(value, str) else pytest.approx(value))


def test_tables_of_one_file_are_joined_with_their_groups() -> None:
    table = Table(caption="", head=("x",), rows=[["1"]], file="a.csv")
    frames = list_frames([("one", table), ("two", table)])
    assert frames["a.csv"].to_dict("list") == {"group": ["one", "two"], "x": [1.0, 1.0]}
