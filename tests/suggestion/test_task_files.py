"""The settings of a task follow from its rows, whatever numbers they hold."""

from pathlib import Path

import pytest

from lab.suggestion import task_files

FILE = Path("rows.jsonl")


@pytest.mark.reported
def test_a_label_of_400_digits_is_a_class() -> None:
    """No float has its value."""
    labels = (10**400, 1)
    rows = [(f"rows:{n}", {"text": f"a text {n}", "label": labels[n % 2]}) for n in range(80)]
    assert task_files.guess_task(FILE, rows).kind == "classification"
