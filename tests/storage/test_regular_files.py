"""Readers of a storage do not wait for the writer of a pipe."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.storage import digests, open_storage, provenance, record, regular_files
from lab.storage.checks import StorageError
from lab.storage.forecasts import forecast_file, read_forecasts
from lab.storage.mirror import LocalOnly
from lab.storage.record_damage import find_damage
from lab.storage.trained_trials import find_trained
from lab.trials import progress

pytestmark = pytest.mark.reported


def call(function: Callable[[], Any]) -> Any:
    """Return the result of a function; fail if it does not return within 20 seconds."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    thread.start()
    thread.join(20)
    assert results, "it waits for the writer of a pipe"
    return results[0]


def record_with_pipe(storage: Path, name: str) -> Path:
    """Write the record of a finished trial in which one file is a pipe; return its folder."""
    folder = storage / "trials" / "a"
    folder.mkdir(parents=True)
    (folder / "state").write_text("finished")
    (folder / "trial.json").write_text('{"trial": {}}')
    (folder / "outcome.json").write_text('{"state": "finished", "rows": 1}')
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    return folder


FILES = ["trial.json", "state", "curve.jsonl", "outcome.json", "provenance.json"]


@pytest.mark.parametrize("name", FILES)
def test_pipes_in_a_record_are_damaged_files(tmp_path: Path, name: str) -> None:
    folder = record_with_pipe(tmp_path, name)
    damaged = call(lambda: find_damage(folder))
    assert [file for file in damaged if file.startswith(f"{name} (")], damaged


@pytest.mark.parametrize("name", [*FILES, "traceback.txt", progress.NAME])
def test_no_reader_of_a_record_waits_for_a_pipe(tmp_path: Path, name: str) -> None:
    folder = record_with_pipe(tmp_path, name)
    readers = (record.read_facts, record.read_state, record.read_curve, record.read_last_outcome,
               provenance.read_provenance, find_damage, progress.read_progress)  # fmt: skip
    for reader in readers:
        call(lambda reader=reader: (reader(folder),))
    call(lambda: list(find_trained(tmp_path, 0.0)))


def test_a_pipe_among_the_forecasts_is_named_and_not_used(tmp_path: Path) -> None:
    forecast_file(tmp_path, "a").parent.mkdir()
    os.mkfifo(forecast_file(tmp_path, "a"))
    found = call(lambda: read_forecasts(tmp_path, LocalOnly()))
    assert found.contents == {}
    assert found.damaged["a"].startswith("forecasts/a.json: damaged: Not a regular file; ")


def test_a_pipe_has_no_digest(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    known = {"file": digests.digest_file(tmp_path / "file")}
    (tmp_path / "file").unlink()
    os.mkfifo(tmp_path / "file")
    with pytest.raises(digests.DamagedFileError, match="file: damaged: "):
        digests.check_files(tmp_path, known, "delete it")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/null")])
def test_only_regular_files_are_opened(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "odd")
    with pytest.raises(OSError, match="Not a regular file"):
        regular_files.open_binary(tmp_path / "odd")


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("missing")])
def test_a_storage_with_something_else_in_place_of_a_folder_is_refused(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "forecasts")
    with pytest.raises(StorageError, match="'forecasts' is not a folder; remove it"):
        open_storage.open_mirror(str(tmp_path))


@pytest.mark.parametrize("trial", [{"budget": 5}, {"budget": {"kind": "flops"}}, {},
                                   {"budget": {"kind": "flops", "amount": "much"}}])  # fmt: skip
def test_records_with_other_content_have_no_budget(tmp_path: Path, trial: dict[str, Any]) -> None:
    folder = tmp_path / "trials" / "a"
    folder.mkdir(parents=True)
    (folder / "state").write_text("running")
    (folder / "trial.json").write_text(json.dumps({"trial": trial}))
    assert list(find_trained(tmp_path, 1.0)) == []
