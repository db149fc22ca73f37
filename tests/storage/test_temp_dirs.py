"""Scratch: what a killed process left goes at the next start, what a living one uses stays."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from project import ROOT

from lab.storage import checks, temp_dirs


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path


CODE = (
    "import sys, pathlib\nfrom lab import scratch\n"
    "with scratch.folder(pathlib.Path(sys.argv[1]), 'lab-') as folder:\n"
    "    pathlib.Path(folder, 'session').mkdir()\n"
    "    print(folder, flush=True)\n"
    "    sys.stdin.read()\n"
)
DRIVER = [sys.executable, "-c", CODE]


@contextmanager
def driver(place: Path) -> "Iterator[tuple[subprocess.Popen[str], Path]]":
    """Run another driver that has a scratch folder; it is killed in the end."""
    command = [*DRIVER, str(place)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            assert process.stdout is not None
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_scratch_goes_with_its_driver_and_what_a_living_one_uses_stays(place: Path) -> None:
    with driver(place) as (process, folder):
        for _ in range(2):
            with temp_dirs.temporary_folder(place, "lab-") as mine:
                assert {folder, mine} == set(place.iterdir())
            assert list(place.iterdir()) == [folder]
            assert (folder / "session").is_dir()
        process.kill()
        process.wait()
        assert (folder / "session").is_dir(), "nobody was there to remove it"
        with temp_dirs.temporary_folder(place, "lab-") as mine:
            assert list(place.iterdir()) == [mine]
    assert list(place.iterdir()) == []


def test_scratch_goes_where_its_driver_ends_by_itself(place: Path) -> None:
    with driver(place) as (process, folder):
        assert folder.is_dir()
        process.communicate()
        assert process.returncode == 0
        assert list(place.iterdir()) == []


def test_what_others_keep_there_is_left_alone(place: Path) -> None:
    others = {place / "lab-error-x.txt", place / "lab-999999-x", place / "elsewhere"}
    (place / "lab-error-x.txt").write_text("a traceback")
    (place / "lab-999999-x").mkdir()  # without a lock it is nobody's scratch
    (place / "elsewhere").mkdir()
    (place / "elsewhere" / "lock").touch()
    with temp_dirs.temporary_folder(place, "lab-"):
        pass
    assert set(place.iterdir()) == others


def test_drivers_that_start_at_once_keep_their_folders(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one starts and ends just before this one locks its folder."""
    lock = fcntl.flock

    def overtaken(*how: Any) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        with temp_dirs.temporary_folder(place, "lab-"):
            pass
        lock(*how)

    monkeypatch.setattr(fcntl, "flock", overtaken)
    with temp_dirs.temporary_folder(place, "lab-") as mine:
        assert fcntl.flock is lock
        assert list(place.iterdir()) == [mine]
        with temp_dirs.temporary_folder(place, "lab-"):
            pass
        assert list(place.iterdir()) == [mine]


def abandoned(place: Path) -> Path:
    """Return a folder that a process left behind when it was killed."""
    with driver(place) as (process, folder):
        process.kill()
        process.wait()
    assert (folder / "session").is_dir()
    return folder


def swept(place: Path) -> None:
    with temp_dirs.temporary_folder(place, "lab-"):
        pass


def test_a_storage_is_never_scratch(place: Path) -> None:
    storage = place / "lab-mine"
    with checks.claim_storage(storage, "python -m lab.sweep mine.yaml"):
        (storage / "trials" / "0123").mkdir(parents=True)
    before = sorted(storage.rglob("*"))
    assert storage / "lock" in before
    swept(place)
    assert sorted(storage.rglob("*")) == before


@pytest.mark.parametrize("result", ["trials", "mlflow.db", "optuna.db"])
def test_results_stay_even_in_a_marked_folder(place: Path, result: str) -> None:
    folder = abandoned(place)
    (folder / result).mkdir() if result == "trials" else (folder / result).touch()
    swept(place)
    assert {folder / result, folder / "session"} <= set(folder.iterdir())


@pytest.mark.parametrize("content", [b"", temp_dirs.CONTENT[:-1], temp_dirs.CONTENT + b"more"])
def test_a_file_that_only_has_the_marks_name_is_no_mark(place: Path, content: bytes) -> None:
    folder = abandoned(place)
    (folder / temp_dirs.MARK).write_bytes(content)
    swept(place)
    assert (folder / "session").is_dir()


def test_a_pipe_in_the_marks_place_holds_nobody_up(place: Path) -> None:
    folder = abandoned(place)
    (folder / temp_dirs.MARK).unlink()
    os.mkfifo(folder / temp_dirs.MARK)
    subprocess.run([*DRIVER, str(place)], cwd=ROOT, input=b"", timeout=60, check=True)
    assert list(place.iterdir()) == [folder]


def test_links_are_not_followed(place: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    target = abandoned(elsewhere)
    (place / "lab-link").symlink_to(target)
    (place / "lab-folder").mkdir()
    (place / "lab-folder" / temp_dirs.MARK).symlink_to(target / temp_dirs.MARK)
    kept = abandoned(place)
    (kept / "out").symlink_to(elsewhere)
    swept(place)
    assert set(place.iterdir()) == {place / "lab-link", place / "lab-folder"}
    assert (target / "session").is_dir()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("part", [".", temp_dirs.MARK])
def test_what_belongs_to_another_user_stays(place: Path, part: str) -> None:
    folder = abandoned(place)
    os.chown(folder / part, 12_345, 12_345)
    swept(place)
    assert (folder / "session").is_dir()
