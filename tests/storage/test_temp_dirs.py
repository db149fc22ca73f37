"""Temporary folders: those of killed processes are removed, those of running processes are kept."""

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
def parent(tmp_path: Path) -> Path:
    return tmp_path


CODE = (
    "import sys, pathlib\nfrom lab.storage import temp_dirs\n"
    "with temp_dirs.temporary_folder(pathlib.Path(sys.argv[1]), 'lab-') as folder:\n"
    "    pathlib.Path(folder, 'session').mkdir()\n"
    "    print(folder, flush=True)\n"
    "    sys.stdin.read()\n"
)
DRIVER = [sys.executable, "-c", CODE]


@contextmanager
def driver(parent: Path) -> "Iterator[tuple[subprocess.Popen[str], Path]]":
    """Run a process that has a temporary folder; yield both, and kill the process at the end."""
    command = [*DRIVER, str(parent)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            assert process.stdout is not None
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_the_folder_of_a_running_process_is_kept_and_that_of_a_killed_one_removed(
    parent: Path,
) -> None:
    with driver(parent) as (process, folder):
        for _ in range(2):
            with temp_dirs.temporary_folder(parent, "lab-") as own:
                assert {folder, own} == set(parent.iterdir())
            assert list(parent.iterdir()) == [folder]
            assert (folder / "session").is_dir()
        process.kill()
        process.wait()
        assert (folder / "session").is_dir(), "no process has started since"
        with temp_dirs.temporary_folder(parent, "lab-") as own:
            assert list(parent.iterdir()) == [own]
    assert list(parent.iterdir()) == []


def test_the_folder_is_removed_when_its_process_ends(parent: Path) -> None:
    with driver(parent) as (process, folder):
        assert folder.is_dir()
        process.communicate()
        assert process.returncode == 0
        assert list(parent.iterdir()) == []


@pytest.mark.reported
def test_other_files_and_folders_are_not_removed(parent: Path) -> None:
    others = {parent / "lab-error-x.txt", parent / "lab-999999-x", parent / "elsewhere"}
    (parent / "lab-error-x.txt").write_text("a traceback")
    (parent / "lab-999999-x").mkdir()  # without a mark file
    (parent / "elsewhere").mkdir()
    (parent / "elsewhere" / "lock").touch()
    with temp_dirs.temporary_folder(parent, "lab-"):
        pass
    assert set(parent.iterdir()) == others


def test_processes_that_start_at_the_same_time_keep_their_folders(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process starts and ends just before this one locks its folder."""
    lock = fcntl.flock

    def run_another_then_lock(*arguments: Any) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        with temp_dirs.temporary_folder(parent, "lab-"):
            pass
        lock(*arguments)

    monkeypatch.setattr(fcntl, "flock", run_another_then_lock)
    with temp_dirs.temporary_folder(parent, "lab-") as own:
        assert fcntl.flock is lock
        assert list(parent.iterdir()) == [own]
        with temp_dirs.temporary_folder(parent, "lab-"):
            pass
        assert list(parent.iterdir()) == [own]


def abandoned(parent: Path) -> Path:
    """Return the folder of a process that was killed."""
    with driver(parent) as (process, folder):
        process.kill()
        process.wait()
    assert (folder / "session").is_dir()
    return folder


def clean_up(parent: Path) -> None:
    with temp_dirs.temporary_folder(parent, "lab-"):
        pass


@pytest.mark.reported
def test_a_storage_is_never_removed(parent: Path) -> None:
    storage = parent / "lab-own"
    with checks.claim_storage(storage, "python -m lab.sweep own.yaml"):
        (storage / "trials" / "0123").mkdir(parents=True)
    before = sorted(storage.rglob("*"))
    assert storage / "lock" in before
    clean_up(parent)
    assert sorted(storage.rglob("*")) == before


@pytest.mark.reported
@pytest.mark.parametrize("result", ["trials", "mlflow.db", "optuna.db"])
def test_a_marked_folder_with_results_is_not_removed(parent: Path, result: str) -> None:
    folder = abandoned(parent)
    (folder / result).mkdir() if result == "trials" else (folder / result).touch()
    clean_up(parent)
    assert {folder / result, folder / "session"} <= set(folder.iterdir())


@pytest.mark.parametrize("result", ["runs/trials", "runs/mlflow.db"])
def test_a_marked_folder_that_holds_a_storage_below_is_not_removed(
    parent: Path, result: str
) -> None:
    folder = abandoned(parent)
    (folder / "runs").mkdir()
    (folder / result).touch() if result.endswith(".db") else (folder / result).mkdir()
    clean_up(parent)
    assert (folder / result).exists()


@pytest.mark.parametrize("below", ["", "runs", "runs/deep"])
def test_a_storage_in_a_temporary_folder_is_refused(parent: Path, below: str) -> None:
    folder = abandoned(parent)
    with pytest.raises(checks.StorageError, match=f"in {folder}, a temporary folder"):
        checks.check_storage(folder / below)
    assert {each.name for each in folder.iterdir()} == {"session", temp_dirs.MARK}


@pytest.mark.parametrize("content", [b"", temp_dirs.CONTENT[:-1], temp_dirs.CONTENT + b"more"])
def test_a_mark_file_with_other_content_does_not_count(parent: Path, content: bytes) -> None:
    folder = abandoned(parent)
    (folder / temp_dirs.MARK).write_bytes(content)
    clean_up(parent)
    assert (folder / "session").is_dir()


def test_a_pipe_instead_of_the_mark_file_does_not_block(parent: Path) -> None:
    folder = abandoned(parent)
    (folder / temp_dirs.MARK).unlink()
    os.mkfifo(folder / temp_dirs.MARK)
    subprocess.run([*DRIVER, str(parent)], cwd=ROOT, input=b"", timeout=60, check=True)
    assert list(parent.iterdir()) == [folder]


@pytest.mark.reported
def test_a_pipe_named_lock_in_the_temporary_folder_does_not_block(parent: Path) -> None:
    (parent / "lab-other").mkdir()
    os.mkfifo(parent / "lab-other" / "lock")
    subprocess.run([*DRIVER, str(parent)], cwd=ROOT, input=b"", timeout=60, check=True)
    assert list(parent.iterdir()) == [parent / "lab-other"]


@pytest.mark.parametrize("name", ["lock", "mlflow.db", "optuna.db", "trials", "cache", "logs"])
def test_a_storage_with_a_pipe_in_place_of_a_part_is_refused(parent: Path, name: str) -> None:
    os.mkfifo(parent / name)
    kind = "file" if name == "lock" or name.endswith(".db") else "folder"
    with pytest.raises(checks.StorageError, match=f"'{name}' is not a {kind}; remove it"):
        checks.check_parts(parent)


def test_a_pipe_in_place_of_the_lock_is_refused_by_the_lock_itself(parent: Path) -> None:
    os.mkfifo(parent / "lock")
    with (
        pytest.raises(checks.StorageError, match="not a regular file"),
        checks.claim_storage(parent, "python -m lab.sweep own.yaml"),
    ):
        pass


def test_links_are_not_followed(parent: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    target = abandoned(elsewhere)
    (parent / "lab-link").symlink_to(target)
    (parent / "lab-folder").mkdir()
    (parent / "lab-folder" / temp_dirs.MARK).symlink_to(target / temp_dirs.MARK)
    removed = abandoned(parent)
    (removed / "out").symlink_to(elsewhere)
    clean_up(parent)
    assert set(parent.iterdir()) == {parent / "lab-link", parent / "lab-folder"}
    assert (target / "session").is_dir()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("part", [".", temp_dirs.MARK])
def test_a_folder_of_another_user_is_not_removed(parent: Path, part: str) -> None:
    folder = abandoned(parent)
    os.chown(folder / part, 12_345, 12_345)
    clean_up(parent)
    assert (folder / "session").is_dir()
