"""Disks that are full or read-only, and checkpoints that are damaged."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.drills.harness import Drill, Place, Result, SkippedError, Sweep

_SIZE = 64 * 2**20  # bytes of the small disk


def disk_full(place: Place) -> Result:
    """the storage's disk is full from the middle on; room is made later"""
    with _small_disk(place.storage):
        ballast = place.storage / "ballast"
        with place.sweep() as sweep:
            sweep.until("two trials in the middle", place.in_the_middle)
            _fill(ballast)
            sweep.wait()
            place.check(sweep.status in {0, 1, 2}, f"status {sweep.status}")
            place.check(_in_one_line(sweep), f"says {len(sweep.err.splitlines())} lines")
        ballast.unlink()
        return place.finish(sweep)


def disk_read_only(place: Place) -> Result:
    """the storage becomes read-only in the middle; later it can be written again"""
    with place.sweep() as sweep:
        sweep.until("two trials in the middle", place.in_the_middle)
        with _read_only(place.storage):
            sweep.wait()
        place.check(sweep.status in {0, 1, 2}, f"status {sweep.status}")
        place.check(_in_one_line(sweep), f"says {len(sweep.err.splitlines())} lines")
    return place.finish(sweep)


def disk_read_only_at_start(place: Place) -> Result:
    """the storage is read-only from the start; later it can be written"""
    place.take_cache()
    with _read_only(place.storage), place.sweep() as sweep:
        sweep.wait()
        place.check(sweep.status == 2, f"status {sweep.status}")
        place.check(len(sweep.err.splitlines()) == 1, f"says {len(sweep.err.splitlines())} lines")
    return place.finish(sweep)


def checkpoints_damaged(place: Place) -> Result:
    """Ctrl-C; one trial's newest tensors get a flipped byte, the other's state.json is cut"""
    with place.sweep() as sweep:
        sweep.until("two trials in the middle", place.in_the_middle)
        os.kill(sweep.pid, signal.SIGINT)
        sweep.wait()
    one, other = _newest_checkpoints(place)
    _flip(one / "state.safetensors")
    _cut(other / "state.json")
    return place.finish(sweep)


def checkpoints_all_damaged(place: Place) -> Result:
    """Ctrl-C; every file of every checkpoint is cut in half or empty"""
    with place.sweep() as sweep:
        sweep.until("two trials in the middle", place.in_the_middle)
        os.kill(sweep.pid, signal.SIGINT)
        sweep.wait()
    for file in place.storage.glob("trials/*/checkpoints/*/state.safetensors"):
        _cut(file)
    for file in place.storage.glob("trials/*/checkpoints/*/state.json"):
        file.write_bytes(b"")
    return place.finish(sweep)


def _in_one_line(sweep: Sweep) -> bool:
    return sweep.status == 0 or len(sweep.err.splitlines()) == 1


def _newest_checkpoints(place: Place) -> list[Path]:
    """Return the newest checkpoint of each trial that was interrupted."""
    trials = sorted(
        outcome.parent
        for outcome in place.storage.glob("trials/*/outcome.json")
        if '"interrupted"' in outcome.read_text()
    )
    assert len(trials) == 2, f"{len(trials)} trials were interrupted"
    return [max(trial.glob("checkpoints/[0-9]*")) for trial in trials]


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


def _cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def _fill(ballast: Path) -> None:
    """Write until the disk takes no more."""
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
    """Make what is opened from now on read-only; files that are open stay as they are."""
    _mount("--bind", str(folder), str(folder))
    try:
        _mount("-o", "remount,bind,ro", str(folder))
        yield
    finally:
        _unmount(folder)


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SkippedError(f"nothing can be mounted here: {done.stderr.strip()}")


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


DRILLS: dict[str, Drill] = {
    "disk-full": disk_full,
    "disk-read-only": disk_read_only,
    "disk-read-only-at-start": disk_read_only_at_start,
    "checkpoints-damaged": checkpoints_damaged,
    "checkpoints-all-damaged": checkpoints_all_damaged,
}
