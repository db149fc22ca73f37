"""No text of a file or of a user controls the terminal."""

import argparse

import pytest

from lab import cli
from lab.config.metrics import METRICS
from lab.control_characters import find_control, make_visible
from lab.display.board import Board
from lab.display.live import open_view
from lab.errors import UserError

HOSTILE = "a\x1b[2J\x00b\x9bc\u202ed"
SHOWN = r"a\x1b[2J\x00b\x9bc\u202ed"


def test_escapes_stand_for_control_characters_and_nothing_else_changes() -> None:
    assert make_visible(HOSTILE) == SHOWN
    kept = "tab\tand\nlines, é 汉字 \u200c\u200d 🙂"
    assert (make_visible(kept), find_control(kept)) == (kept, None)
    assert find_control(HOSTILE) == "U+001B"


@pytest.mark.reported
@pytest.mark.parametrize("error", [UserError, RuntimeError])
def test_error_messages_have_no_control_characters_and_a_largest_length(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
) -> None:
    def fail(_: argparse.Namespace) -> None:
        raise error(HOSTILE + "x" * 10**6)

    monkeypatch.setattr(cli, "_write_traceback", lambda _: "")
    assert cli.run("lab.sweep", "nothing is left", fail, argparse.Namespace(verbose=False)) > 0
    line = capsys.readouterr().err
    assert SHOWN in line
    assert len(line) < 5_000
    assert line.rstrip("\n").isprintable()


@pytest.mark.reported
def test_lines_of_a_sweep_have_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    with open_view(Board(METRICS["probe/pos/accuracy"])) as view:
        view.print_line(f"failed: {HOSTILE}")
    assert f"failed: {SHOWN}" in capsys.readouterr().out
