"""A command ends in one line and a status, whatever ends it."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import cli
from lab.errors import UserError


def raising(error: BaseException, cause: BaseException | None = None) -> Callable[[], None]:
    def body() -> None:
        raise error from cause

    return body


ENDS: dict[str, tuple[Callable[[], None], int, str]] = {
    "done": (lambda: None, 0, r""),
    "input": (raising(UserError("file.yaml: a:\n  b")), 2, r"lab\.it: error: file\.yaml: a: b\n"),
    "interrupt": (raising(KeyboardInterrupt()), 130, r"interrupted; all is kept\n"),
    "wrapped interrupt": (
        raising(ImportError("numpy"), KeyboardInterrupt()),
        130,
        r"interrupted; all is kept\n",
    ),
    "unread": (
        raising(BrokenPipeError()),
        141,
        r"lab\.it: the output is closed; all is kept\n",
    ),
    "disk": (
        raising(OSError(28, "No space left on device")),
        1,
        r"lab\.it: failed: OSError: .* No space left on device; all is kept \(details: .*\)\n",
    ),
}


@pytest.mark.parametrize(("body", "status", "line"), ENDS.values(), ids=ENDS.keys())
def test_each_end_is_one_line_and_a_status(
    body: Callable[[], None],
    status: int,
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(cli, "discard_output", lambda: None)  # pytest's own is not given up
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cli.run("lab.it", "all is kept", body) == status
    out, said = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(line, said), said
    for details in tmp_path.iterdir():
        assert "Traceback" in details.read_text()
    assert len(list(tmp_path.iterdir())) == (status == 1)
