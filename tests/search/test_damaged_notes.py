"""The notes of a search: damaged lines are skipped, and no point gets other parameters."""

import json
import logging
from pathlib import Path

import pytest

from lab.search import study
from lab.storage import sealed

pytestmark = pytest.mark.reported
TUNED = {n: {"optim.lr": 1e-4 * 2**n, "batch": 16 * n} for n in range(5)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    lines = [sealed.to_line({"point": n, "tuned": tuned}) for n, tuned in TUNED.items()]
    (tmp_path / "notes.jsonl").write_text("\n" + "\n".join(lines))
    return tmp_path / "notes.jsonl"


def test_damaged_notes_change_no_setting(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert study._read_notes(file) == TUNED
    whole = file.read_bytes()
    for position in range(1, whole.rindex(b"\n"), 7):
        changed = bytearray(whole)
        changed[position] ^= 1 << position % 8
        file.write_bytes(changed)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            noted = study._read_notes(file)
        assert noted.items() <= TUNED.items()
        # Without its key a seal is an entry that no reader knows, and all values are there.
        assert noted == TUNED or "damaged" in caplog.text


def test_incomplete_last_note_is_no_damage(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The process was killed before the point was run."""
    file.write_bytes(file.read_bytes()[:-9])
    with caplog.at_level(logging.WARNING):
        assert study._read_notes(file) == {n: TUNED[n] for n in range(4)}
    assert caplog.text == ""


def test_notes_of_earlier_versions_are_read(tmp_path: Path) -> None:
    file = tmp_path / "notes.jsonl"
    file.write_text("".join(f"\n{json.dumps([n, tuned])}" for n, tuned in TUNED.items()))
    assert study._read_notes(file) == TUNED
    assert study._read_notes(tmp_path / "missing") == {}
