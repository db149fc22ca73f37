"""Progress of a trial: a new phase is written at once, its share once per pause."""

from pathlib import Path

import pytest

from lab.storage.mirror import LocalOnly
from lab.trials import progress
from lab.trials.progress import TRAINING, UNTRAINED, PhaseProgress, ProgressReporter


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a list with the present time, which a test may change."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_a_new_phase_is_written_at_once_and_a_share_once_per_pause(
    tmp_path: Path, clock: list[float]
) -> None:
    mirror = LocalOnly()
    tell = ProgressReporter(tmp_path, mirror)
    tell(UNTRAINED, None)
    assert progress.read_progress(tmp_path) == PhaseProgress(phase=UNTRAINED)
    tell(TRAINING, 0.25)
    assert progress.read_progress(tmp_path) == PhaseProgress(phase=TRAINING, share=0.25)
    tell(TRAINING, 0.5)
    assert progress.read_progress(tmp_path) == PhaseProgress(phase=TRAINING, share=0.25)
    clock[0] += mirror.pause
    tell(TRAINING, 0.75)
    assert progress.read_progress(tmp_path) == PhaseProgress(phase=TRAINING, share=0.75)
    assert [file.name for file in tmp_path.iterdir()] == [progress.NAME]
    progress.clear_progress(tmp_path)
    assert progress.read_progress(tmp_path) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"phase": "a", "sha', '{"other": 1}', "\0"])
def test_a_damaged_file_reads_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / progress.NAME).write_text(text)
    assert progress.read_progress(tmp_path) is None


def test_a_folder_that_cannot_be_written_raises_no_error(tmp_path: Path) -> None:
    ProgressReporter(tmp_path / "gone", LocalOnly())(TRAINING, 0.5)
    assert progress.read_progress(tmp_path / "gone") is None
    assert not (tmp_path / "gone").exists()
