"""A full disk is named with the room that is missing; it is no failure of a trial."""

import argparse
import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors import SafetensorError
from small_disk import fill, mount_small_disk

from lab import cli, disk_space


class WrappedError(Exception):
    """As SQLAlchemy wraps the error of a database."""

    def __init__(self) -> None:
        super().__init__("a statement could not be executed")
        self.orig = sqlite3.OperationalError("database or disk is full")


FULL = [
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    WrappedError(),
]


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    with mount_small_disk(tmp_path / "disk", 2**16) as folder:
        fill(folder / "ballast")
        yield folder


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_errors_of_a_full_disk_are_recognized_below_other_errors(error: Exception) -> None:
    assert disk_space.is_disk_full(error)
    outer = RuntimeError("something failed")
    outer.__cause__ = ValueError("because of this")
    outer.__cause__.__context__ = error
    assert disk_space.is_disk_full(outer)


@pytest.mark.parametrize(
    "error", [OSError(errno.EACCES, "Permission denied"), ValueError("28"), MemoryError()]
)
def test_other_errors_are_not_those_of_a_full_disk(error: Exception) -> None:
    assert not disk_space.is_disk_full(error)


@pytest.mark.reported
def test_the_line_of_a_command_names_the_full_folder(
    full_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(_: argparse.Namespace) -> None:
        (full_disk / "more").write_bytes(bytes(2**20))

    options = argparse.Namespace(storage=full_disk, reports=tmp_path, verbose=False)
    assert cli.run("lab.sweep", "trials are kept", write, options) == 1
    line = capsys.readouterr().err
    assert line == (
        f"lab.sweep: failed: no space left in {full_disk}: 0 bytes free; "
        "free some room; trials are kept\n"
    )


@pytest.mark.reported
def test_the_missing_room_is_what_is_needed_less_what_is_free(full_disk: Path) -> None:
    text = disk_space.describe_full(full_disk, 3_200_000, "a checkpoint")
    assert text == (
        f"no space left in {full_disk}: 0 bytes free, 3.2 MB needed for a checkpoint; "
        "3.2 MB missing"
    )
    assert disk_space.find_full([full_disk, full_disk.parent]) == [full_disk]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1_000, "1.0 kB"), (999_999, "1.0 MB"), (2**40, "1.1 TB")],
)
def test_sizes_have_three_digits_at_most_and_a_unit(count: int, text: str) -> None:
    assert disk_space.format_size(count) == text
