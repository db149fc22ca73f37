"""Run all drills or the named ones, and print a table of the results."""

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.drills import disk, numbers, processes, records, scale, stores
from tests.drills.harness import Result, SkippedError, Workspace

_LONG = records.DRILLS | scale.DRILLS  # they run only if they are named
_DRILLS = processes.DRILLS | disk.DRILLS | numbers.DRILLS | stores.DRILLS | _LONG
_HEAD = ("drill", "fault", "the sweep (status: last line)", "the same command again",
         "trials.csv equal?", "seconds", "result")  # fmt: skip


def main() -> int:
    """Run the drills; return 1 if a drill failed, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.drills", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"{', '.join(_DRILLS)} (default: all but {', '.join(_LONG)})",
    )
    parser.add_argument("--folder", type=Path, help="working folder (default: a new one in /tmp)")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in _DRILLS]
    if unknown:
        parser.error(f"no such drill: {', '.join(unknown)}; there are {', '.join(_DRILLS)}")
    # A background job ignores SIGINT, and one of nohup SIGHUP; so would their child processes.
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="drills-"))).resolve()
    reference = _run_reference(folder)
    table, problems = [], []
    for name in options.names or [name for name in _DRILLS if name not in _LONG]:
        row, drill_problems = _run_drill(name, _make_folder(folder / name), reference)
        table.append(row)
        problems += [f"{name}: {problem}" for problem in drill_problems]
        print(_line(row), *(f"    {problem}" for problem in drill_problems), sep="\n", flush=True)
    print("", _line(_HEAD), _line(["---"] * len(_HEAD)), *map(_line, table), "", sep="\n")
    print(*(f"- {problem}" for problem in problems), f"in {folder}", sep="\n")
    return 1 if problems else 0


def _run_drill(name: str, folder: Path, reference: Path) -> tuple[list[str], list[str]]:
    """Run a drill; return its row of the table and its problems."""
    began, drill = time.monotonic(), _DRILLS[name]
    workspace = Workspace(folder, reference)
    try:
        result = drill(workspace)
        verdict = "failed" if result.problems else "passed"
    except SkippedError as error:
        result, verdict = Result("", "", "", []), f"skipped: {error}"
    except AssertionError as error:
        result, verdict = Result("", "", "", [*workspace.problems, str(error)]), "failed"
    finally:
        workspace.tidy()
    fault = (drill.__doc__ or "").splitlines()[0]
    seconds = f"{time.monotonic() - began:.0f}"
    row = [name, fault, result.first, result.again, result.equal, seconds, verdict]
    return row, result.problems


def _run_reference(folder: Path) -> Path:
    """Return the folder of a sweep without a fault; run it unless its report exists."""
    workspace = Workspace(folder / "reference", folder / "reference")
    if not (workspace.reports / "trials.csv").exists():
        _make_folder(workspace.folder)
        with workspace.sweep() as sweep:
            sweep.wait()
        assert sweep.status == 0, f"the reference sweep: {sweep.summary}"
        assert not workspace.problems, f"the reference sweep: {workspace.problems}"
    return workspace.folder


def _make_folder(folder: Path) -> Path:
    """Create and return a folder that must not exist."""
    folder.mkdir(parents=True)
    return folder


def _line(cells: list[str] | tuple[str, ...]) -> str:
    """Return a row of a Markdown table."""
    return "| " + " | ".join(" ".join(cell.split()).replace("|", r"\|") for cell in cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
