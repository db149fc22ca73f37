"""Faults of the disk: no space left, read-only file systems and damaged checkpoints."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.drills.harness import Drill, Result, SkippedError, Sweep, Workspace

_SIZE = 64 * 2**20  # size of the small file system, in bytes


def disk_full(workspace: Workspace) -> Result:
    """the disk of the storage runs full during training; space is freed later"""
    with _small_disk(workspace.storage):
        ballast = workspace.storage / "ballast"
        with workspace.sweep() as sweep:
            sweep.until("two trials in training", workspace.two_trials_in_training)
            _fill(ballast)
            sweep.wait()
            workspace.check(sweep.status == 1, f"status {sweep.status}")
            workspace.check(_has_one_line(sweep), f"{len(sweep.err.splitlines())} lines of error")
            for text in (f"no space left in {workspace.storage}", " missing"):
                workspace.check(text in sweep.err, f"the error has no {text!r}: {sweep.err}")
            workspace.check(not workspace.states()["failed"], f"states: {workspace.states()}")
        ballast.unlink()
        return workspace.finish(sweep)


def storage_removed(workspace: Workspace) -> Result:
    """the folder of the storage is removed during training"""
    with workspace.sweep() as sweep:
        sweep.until("two trials in training", workspace.two_trials_in_training)
        shutil.rmtree(workspace.storage, ignore_errors=True)
        sweep.wait()
        workspace.check(sweep.status in {1, 2}, f"status {sweep.status}")
        workspace.check(_has_one_line(sweep), f"{len(sweep.err.splitlines())} lines of error")
    return workspace.finish(sweep)


def disk_read_only(workspace: Workspace) -> Result:
    """the storage becomes read-only during training; later it is writable again"""
    with workspace.sweep() as sweep:
        sweep.until("two trials in training", workspace.two_trials_in_training)
        with _read_only(workspace.storage):
            sweep.wait()
        workspace.check(sweep.status in {0, 1, 2}, f"status {sweep.status}")
        workspace.check(_has_one_line(sweep), f"{len(sweep.err.splitlines())} lines of error")
    return workspace.finish(sweep)


def disk_read_only_at_start(workspace: Workspace) -> Result:
    """the storage is read-only from the start; later it is writable"""
    workspace.take_cache()
    with _read_only(workspace.storage), workspace.sweep() as sweep:
        sweep.wait()
        workspace.check(sweep.status == 2, f"status {sweep.status}")
        lines = len(sweep.err.splitlines())
        workspace.check(lines == 1, f"{lines} lines of error")
    return workspace.finish(sweep)


def checkpoints_damaged(workspace: Workspace) -> Result:
    """Ctrl-C; one trial's newest tensors get a flipped byte, the other's state.json is cut"""
    with workspace.sweep() as sweep:
        sweep.until("two trials in training", workspace.two_trials_in_training)
        os.kill(sweep.pid, signal.SIGINT)
        sweep.wait()
    first, second = _newest_checkpoints(workspace)
    _flip_byte(first / "state.safetensors")
    _cut(second / "state.json")
    return workspace.finish(sweep)


def checkpoints_all_damaged(workspace: Workspace) -> Result:
    """Ctrl-C; then every file of every checkpoint is cut in half or emptied"""
    with workspace.sweep() as sweep:
        sweep.until("two trials in training", workspace.two_trials_in_training)
        os.kill(sweep.pid, signal.SIGINT)
        sweep.wait()
    for file in workspace.storage.glob("trials/*/checkpoints/*/state.safetensors"):
        _cut(file)
    for file in workspace.storage.glob("trials/*/checkpoints/*/state.json"):
        file.write_bytes(b"")
    return workspace.finish(sweep)


def _has_one_line(sweep: Sweep) -> bool:
    """Return whether a sweep succeeded, or failed with one line."""
    return sweep.status == 0 or len(sweep.err.splitlines()) == 1


def _newest_checkpoints(workspace: Workspace) -> list[Path]:
    """Return the newest checkpoint of each interrupted trial."""
    trials = sorted(
        outcome.parent
        for outcome in workspace.storage.glob("trials/*/outcome.json")
        if '"interrupted"' in outcome.read_text()
    )
    assert len(trials) == 2, f"{len(trials)} trials were interrupted"
    return [max(trial.glob("checkpoints/[0-9]*")) for trial in trials]


def _flip_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


def _cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def _fill(ballast: Path) -> None:
    """Write to a file until the disk is full."""
    with ballast.open("wb", buffering=0) as opened:
        for piece in (2**20, 2**12, 1):
            with suppress(OSError):  # no space is left
                while True:
                    opened.write(bytes(piece))


@contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    folder.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(folder))
    try:
        yield
    finally:
        _unmount(folder)


@contextmanager
def _read_only(folder: Path) -> Iterator[None]:
    """Make a folder read-only for files opened from now on; files that are open stay writable."""
    _mount("--bind", str(folder), str(folder))
    try:
        _mount("-o", "remount,bind,ro", str(folder))
        yield
    finally:
        _unmount(folder)


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SkippedError(f"this machine does not allow mounting: {done.stderr.strip()}")


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


DRILLS: dict[str, Drill] = {
    "disk-full": disk_full,
    "storage-removed": storage_removed,
    "disk-read-only": disk_read_only,
    "disk-read-only-at-start": disk_read_only_at_start,
    "checkpoints-damaged": checkpoints_damaged,
    "checkpoints-all-damaged": checkpoints_all_damaged,
}
