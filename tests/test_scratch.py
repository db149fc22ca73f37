"""Scratch: what a killed process left goes at the next start, what a living one uses stays."""

import fcntl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sweeps import ROOT

from lab import scratch


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path


@contextmanager
def driver(place: Path) -> "Iterator[tuple[subprocess.Popen[str], Path]]":
    """Run another driver that has a scratch folder; it is killed in the end."""
    code = (
        "import sys, pathlib\nfrom lab import scratch\n"
        "with scratch.folder(pathlib.Path(sys.argv[1]), 'lab-') as folder:\n"
        "    pathlib.Path(folder, 'session').mkdir()\n"
        "    print(folder, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(place)]
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
            with scratch.folder(place, "lab-") as mine:
                assert {folder, mine} == set(place.iterdir())
            assert list(place.iterdir()) == [folder]
            assert (folder / "session").is_dir()
        process.kill()
        process.wait()
        assert (folder / "session").is_dir(), "nobody was there to remove it"
        with scratch.folder(place, "lab-") as mine:
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
    with scratch.folder(place, "lab-"):
        pass
    assert set(place.iterdir()) == others


def test_drivers_that_start_at_once_keep_their_folders(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one starts and ends just before this one locks its folder."""
    lock = fcntl.flock

    def overtaken(*how: Any) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        with scratch.folder(place, "lab-"):
            pass
        lock(*how)

    monkeypatch.setattr(fcntl, "flock", overtaken)
    with scratch.folder(place, "lab-") as mine:
        assert fcntl.flock is lock
        assert list(place.iterdir()) == [mine]
        with scratch.folder(place, "lab-"):
            pass
        assert list(place.iterdir()) == [mine]
