"""Atomic writes: the old content or the new one is seen, also if the writer fails or is killed."""

import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from project import ROOT

from lab.storage import atomic

Writer = Callable[[Path], AbstractContextManager[Path]]
FILE_WRITERS = [atomic.write_file, atomic.create_file]
FOLDER_WRITERS = [atomic.write_folder, atomic.replace_folder, atomic.add_files]
REPLACING = [atomic.write_file, atomic.replace_folder, atomic.add_files]
writers = pytest.mark.parametrize("writer", [*FILE_WRITERS, *FOLDER_WRITERS])

# Writes to sys.argv[2] with the writer sys.argv[1], and waits for the end of its input before it
# renames. A folder has the file `new`.
CODE = (
    "import pathlib, sys\nfrom lab.storage import atomic\n"
    "with getattr(atomic, sys.argv[1])(pathlib.Path(sys.argv[2])) as partial:\n"
    "    (partial / 'new' if partial.is_dir() else partial).write_text('new')\n"
    "    print(flush=True)\n"
    "    sys.stdin.read()\n"
)


def start_writer(writer: Writer, target: Path) -> "subprocess.Popen[str]":
    """Start a process that writes to `target`; return after it has written the temporary path."""
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, writer.__name__, str(target)],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "\n"
    return process


def write_to(partial: Path, text: str) -> None:
    (partial / text if partial.is_dir() else partial).write_text(text)


def read(target: Path) -> list[str]:
    """Return the content of a file, or of the files of a folder in the order of their names."""
    files = sorted(target.iterdir()) if target.is_dir() else [target]
    return [file.read_text() for file in files]


def make(writer: Writer, target: Path) -> None:
    """Make a target with the content `old`."""
    if writer in FOLDER_WRITERS:
        target.mkdir()
        (target / "old").write_text("old")
    else:
        target.write_text("old")


@writers
def test_target_appears_at_the_end_and_nothing_else_remains(writer: Writer, tmp_path: Path) -> None:
    with writer(tmp_path / "target") as partial:
        write_to(partial, "new")
        assert not (tmp_path / "target").exists()
        assert partial.is_relative_to(tmp_path)
    assert read(tmp_path / "target") == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


@pytest.mark.parametrize("writer", REPLACING)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("No space left on device")])
def test_failed_write_changes_nothing(writer: Writer, error: BaseException, tmp_path: Path) -> None:
    def write_and_fail() -> None:
        with writer(tmp_path / "target") as partial:
            write_to(partial, "new")
            raise error

    make(writer, tmp_path / "target")
    with pytest.raises(type(error)):
        write_and_fail()
    assert read(tmp_path / "target") == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


@pytest.mark.parametrize(
    ("writer", "expected"),
    [
        (atomic.write_file, ["new"]),
        (atomic.replace_folder, ["new"]),
        (atomic.add_files, ["new", "old"]),
    ],
)
def test_existing_target_is_replaced_or_extended(
    writer: Writer, expected: list[str], tmp_path: Path
) -> None:
    make(writer, tmp_path / "target")
    with writer(tmp_path / "target") as partial:
        write_to(partial, "new")
        assert read(tmp_path / "target") == ["old"]
    assert read(tmp_path / "target") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


@pytest.mark.parametrize("writer", [atomic.create_file, atomic.write_folder])
def test_existing_target_is_refused_and_not_changed(writer: Writer, tmp_path: Path) -> None:
    make(writer, tmp_path / "target")
    with pytest.raises(FileExistsError, match="target"), writer(tmp_path / "target") as partial:
        write_to(partial, "new")
    assert read(tmp_path / "target") == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_empty_folder_becomes_the_written_one(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    with atomic.write_folder(tmp_path / "target") as partial:
        write_to(partial, "new")
    assert read(tmp_path / "target") == ["new"]


def test_added_files_replace_those_of_the_same_name_also_in_subfolders(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with atomic.add_files(tmp_path / "target") as partial:
            (partial / "below").mkdir()
            (partial / "below" / "same").write_text(text)
            (partial / text).write_text(text)
    assert (tmp_path / "target" / "below" / "same").read_text() == "new"
    assert {path.name for path in (tmp_path / "target").iterdir()} == {"below", "old", "new"}


@writers
def test_next_write_removes_what_a_killed_process_left(writer: Writer, tmp_path: Path) -> None:
    with start_writer(writer, tmp_path / "target") as process:
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "target").exists()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(atomic.PREFIX)
    with writer(tmp_path / "target") as partial:
        assert list(partial.iterdir() if partial.is_dir() else partial.read_text()) == []
        write_to(partial, "new")
    assert read(tmp_path / "target") == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_second_writer_of_a_file_waits_for_the_first(tmp_path: Path) -> None:
    """Without the lock, the second writer would truncate the file that the first one renames."""
    target = tmp_path / "target"
    with start_writer(atomic.write_file, target) as first:
        code = CODE.replace("'new'", "'later'")
        command = [sys.executable, "-c", code, "write_file", str(target)]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
        with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as second:  # type: ignore[call-overload]
            with pytest.raises(subprocess.TimeoutExpired):
                second.wait(timeout=3)
            assert (tmp_path / f"{atomic.PREFIX}target").read_text() == "new"
            first.communicate()
            second.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert target.read_text() == "later"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


@pytest.mark.reported
@writers
def test_others_may_read_what_the_umask_allows(writer: Writer, tmp_path: Path) -> None:
    with writer(tmp_path / "target") as partial:
        write_to(partial, "new")
    plain = tmp_path / "plain"
    if (tmp_path / "target").is_dir():
        plain.mkdir()
    else:
        plain.write_text("")
    assert (tmp_path / "target").stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize(("text", "content"), [("", b""), ("é", b"\xc3\xa9\n")])
def test_text_ends_with_a_line_feed_unless_it_is_empty(
    text: str, content: bytes, durable: bool, tmp_path: Path
) -> None:
    atomic.write_text(tmp_path / "file", text, durable=durable)
    assert (tmp_path / "file").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@writers
def test_content_has_the_permissions_of_any_new_file(writer: Writer, tmp_path: Path) -> None:
    """safetensors creates files that only their owner can read."""
    (tmp_path / "usual").mkdir()
    (tmp_path / "usual" / "file").touch()
    target = tmp_path / "target"
    with writer(target) as partial:
        if partial.is_dir():
            (partial / "inner").mkdir(mode=0o700)
        written = partial / "inner" / "file" if partial.is_dir() else partial
        written.unlink(missing_ok=True)
        written.touch(mode=0o600)
    for path in (target, *target.rglob("*")):
        usual = tmp_path / "usual" if path.is_dir() else tmp_path / "usual" / "file"
        assert path.stat().st_mode == usual.stat().st_mode
