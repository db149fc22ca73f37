"""The notes of a search: damaged lines are skipped, and no point gets other parameters."""

import json
import logging
from pathlib import Path

import pytest

from lab.search.point_notes import Note, append_note, read_notes, write_notes

pytestmark = pytest.mark.reported
NOTES = {
    n: Note({"optim.lr": 1e-4 * 2**n, "batch": 16 * n}, "earlier" if n < 2 else "")
    for n in range(5)
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The settings that earlier sweeps propose are written first, all at once."""
    file = tmp_path / "notes.jsonl"
    write_notes(file, {n: note for n, note in NOTES.items() if note.proposed_by})
    for n, note in NOTES.items():
        if not note.proposed_by:
            append_note(file, n, note)
    return file


def test_damaged_notes_change_no_setting(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_notes(file) == NOTES
    whole = file.read_bytes()
    for position in range(0, whole.rindex(b"\n"), 7):
        changed = bytearray(whole)
        changed[position] ^= 1 << position % 8
        file.write_bytes(changed)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            noted = read_notes(file)
        assert noted.items() <= NOTES.items()
        # Without its key a seal is an entry that no reader knows, and all values are there.
        assert noted == NOTES or "damaged" in caplog.text


def test_incomplete_last_note_is_no_damage(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The process was killed before the point was run."""
    file.write_bytes(file.read_bytes()[:-9])
    with caplog.at_level(logging.WARNING):
        assert read_notes(file) == {n: NOTES[n] for n in range(4)}
    assert caplog.text == ""


def test_notes_of_earlier_versions_are_read(tmp_path: Path) -> None:
    file = tmp_path / "notes.jsonl"
    lists = ([n, tuned, sweep] if sweep else [n, tuned] for n, (tuned, sweep) in NOTES.items())
    file.write_text("".join(f"\n{json.dumps(each)}" for each in lists))
    assert read_notes(file) == NOTES
    assert read_notes(tmp_path / "missing") == {}
