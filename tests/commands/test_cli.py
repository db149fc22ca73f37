"""The shared parts of commands: exit statuses, one-line errors and parsers."""

import argparse
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from project import ROOT

from lab import advise, cli, export, finetune, forecast, init, prepare, report, sweep, verify
from lab import commands as commands_module
from lab.errors import UserError

Body = Callable[[argparse.Namespace], None]


def raising(error: BaseException, cause: BaseException | None = None) -> Body:
    def body(_: argparse.Namespace) -> None:
        raise error from cause

    return body


OUTCOMES: dict[str, tuple[Body, int, str]] = {
    "done": (lambda _: None, 0, r""),
    "input": (raising(UserError("file.yaml: a:\n  b")), 2, r"lab\.it: error: file\.yaml: a: b\n"),
    "escapes": (
        raising(UserError("a\x1b[31m\x00\ud800.txt: bad")),
        2,
        r"lab\.it: error: a\\x1b\[31m\\x00\\ud800\.txt: bad\n",
    ),
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
        r"lab\.it: failed: no space left in .*: .* free; free some room; all is kept\n",
    ),
    "name": (
        raising(OSError(36, "File name too long", "a\n" + "a" * 300)),
        2,
        r"lab\.it: error: a\\na+…: file name too long\n",
    ),
    "device": (
        raising(OSError(5, "Input/output error")),
        1,
        r"lab\.it: failed: OSError: .* Input/output error; all is kept \(traceback in .*\)\n",
    ),
}


@pytest.mark.parametrize(("body", "status", "line"), OUTCOMES.values(), ids=OUTCOMES.keys())
def test_each_outcome_gives_one_line_and_its_status(
    body: Body,
    status: int,
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(cli, "discard_output", lambda: None)  # keep the output of pytest
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cli.run("lab.it", "all is kept", body, argparse.Namespace(verbose=False)) == status
    output, error = capsys.readouterr()
    assert output == ""
    assert re.fullmatch(line, error), error
    for details in tmp_path.iterdir():
        assert "Traceback" in details.read_text()
    assert len(list(tmp_path.iterdir())) == ("traceback in" in error)


@pytest.mark.reported
def test_characters_that_the_output_cannot_encode_are_escaped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    options = argparse.Namespace(verbose=False)
    assert cli.run("lab.it", "", lambda _: print("größer? ไ"), options) == 0
    assert written.getvalue() == rb"gr\xf6\xdfer? \u0e44" + b"\n"


CLOSED = """
import argparse, os, sys
from lab import cli
def body(_):
    with open("database", "wb") as file:
        os.write(1, b"printed")  # as a library does that prints
        os.write(2, b"printed")
        print("printed")
        print("printed", file=sys.stderr)
sys.exit(cli.run("lab.it", "", body, argparse.Namespace(verbose=False)))
"""


@pytest.mark.slow
@pytest.mark.reported
def test_closed_streams_are_no_error_and_nothing_is_printed_into_other_files(
    tmp_path: Path,
) -> None:
    shell = f"exec {shlex.quote(sys.executable)} -c {shlex.quote(CLOSED)} <&- >&- 2>&-"
    done = subprocess.run(
        ["bash", "-c", shell], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0
    assert (tmp_path / "database").read_bytes() == b""


COMMANDS = (sweep, prepare, finetune, report, forecast, verify, export, init, advise)
commands = pytest.mark.parametrize("command", COMMANDS, ids=lambda module: module.__name__)


@commands
def test_parsers_share_their_form_and_document_each_option_with_its_default(
    command: ModuleType,
) -> None:
    parser: argparse.ArgumentParser = command._build_parser()
    assert parser.prog == f"python -m {command.__name__}"
    assert parser.formatter_class is argparse.RawDescriptionHelpFormatter
    for action in parser._actions:
        assert action.help
        if action.option_strings and action.dest != "help":
            assert "(default: " in action.help, action.option_strings


@commands
def test_examples_of_each_command_are_valid_in_the_projects_root(
    command: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    parser = command._build_parser()
    heading, *examples = parser.epilog.splitlines()
    assert heading == "example:"
    for example in examples:
        name, *arguments = shlex.split(example, comments=True)[2:]
        assert name == command.__name__
        options = vars(parser.parse_args(arguments))
        paths = [*options.get("texts", []), options.get("file", ".")]
        assert all(Path(path).exists() for path in paths)


def test_shared_options_are_the_same_in_all_commands() -> None:
    seen: dict[str, set[tuple[str | None, str]]] = {}
    for command in (sweep, prepare, finetune, report, verify, export):
        for action in command._build_parser()._actions:
            for option in action.option_strings:
                seen.setdefault(option, set()).add((action.metavar, str(action.default)))
    assert {option for option, forms in seen.items() if len(forms) > 1} == set()


def test_report_has_no_option_out(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        report.main(["smoke", "--out", "elsewhere"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(
        "python -m lab.report: error: unrecognized arguments: --out elsewhere\n"
    )


# The console script


RUN_SCRIPT = """
import sys
sys.argv[0] = "/somewhere/bin/electra-lab"
from lab.commands import main
main()
"""


def run_script(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", RUN_SCRIPT, *arguments]
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)


def test_package_installs_the_console_script() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {cli.SCRIPT: "lab.commands:main"}


def test_console_script_alone_and_its_help_list_each_command_in_one_line() -> None:
    alone, helped = run_script(), run_script("--help")
    assert (alone.returncode, alone.stderr) == (helped.returncode, helped.stderr) == (0, "")
    assert alone.stdout == helped.stdout
    lines = alone.stdout.splitlines()
    for command in COMMANDS:
        name = command.__name__.removeprefix("lab.")
        assert f"  {name:<10}{command._build_parser().description}" in lines
    assert len(commands_module.DESCRIPTIONS) == len(COMMANDS)


@pytest.mark.parametrize("name", ["sweeep", "--version", ""])
def test_unknown_command_of_the_console_script_is_one_line_and_status_2(name: str) -> None:
    done = run_script(name, "x.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    expected = f"electra-lab: error: no command {name!r}; must be one of init, sweep, "
    assert done.stderr.startswith(expected)
    assert done.stderr.count("\n") == 1


def test_console_script_names_itself_in_usage_example_and_errors() -> None:
    helped = run_script("sweep", "--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    assert helped.stdout.startswith("usage: electra-lab sweep ")
    assert helped.stdout.endswith("example:\n  electra-lab sweep search_spaces/smoke.yaml\n")
    failed = run_script("sweep", "missing.yaml", "--dry-run")
    assert failed.returncode == 2
    assert failed.stderr.startswith("electra-lab sweep: error: missing.yaml: ")


@commands
def test_examples_name_the_command_as_it_was_called(
    command: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/electra-lab"])
    parser: argparse.ArgumentParser = command._build_parser()
    name = command.__name__.removeprefix("lab.")
    assert parser.prog == f"electra-lab {name}"
    assert f"\n  electra-lab {name} " in parser.epilog
    assert "python -m" not in parser.format_help()
