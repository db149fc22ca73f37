"""Run drills, all of them or those that are named, and print a table of what happened."""

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.drills import disk, numbers, processes, stores
from tests.drills.harness import Place, Result, SkippedError

_DRILLS = processes.DRILLS | disk.DRILLS | numbers.DRILLS | stores.DRILLS
_HEAD = ("drill", "what was done", "the sweep (status: last line)", "the same command",
         "trials.csv equal?", "seconds", "result")  # fmt: skip


def main() -> int:
    """Return 0 where every drill passed or was skipped, 1 where one failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.drills", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(_DRILLS))
    parser.add_argument("--folder", type=Path, help="to work in (default: a fresh one in /tmp)")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in _DRILLS]
    if unknown:
        parser.error(f"no such drill: {', '.join(unknown)}; there are {', '.join(_DRILLS)}")
    # A shell's background job ignores Ctrl-C, and so would the sweeps that it starts.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    folder = (given.folder or Path(tempfile.mkdtemp(prefix="drills-"))).resolve()
    undisturbed = _undisturbed(folder)
    table, problems = [], []
    for name in given.names or _DRILLS:
        row, wrong = _row(name, _fresh(folder / name), undisturbed)
        table.append(row)
        problems += [f"{name}: {problem}" for problem in wrong]
        print(_line(row), *(f"    {problem}" for problem in wrong), sep="\n", flush=True)
    print("", _line(_HEAD), _line(["---"] * len(_HEAD)), *map(_line, table), "", sep="\n")
    print(*(f"- {problem}" for problem in problems), f"in {folder}", sep="\n")
    return 1 if problems else 0


def _row(name: str, folder: Path, undisturbed: Path) -> tuple[list[str], list[str]]:
    """Do a drill; return its row of the table and what was wrong."""
    began, drill = time.monotonic(), _DRILLS[name]
    place = Place(folder, undisturbed)
    try:
        result = drill(place)
        verdict = "failed" if result.problems else "passed"
    except SkippedError as error:
        result, verdict = Result("", "", "", []), f"skipped: {error}"
    except AssertionError as error:
        result, verdict = Result("", "", "", [*place.problems, str(error)]), "failed"
    finally:
        place.tidy()
    what = (drill.__doc__ or "").splitlines()[0]
    seconds = f"{time.monotonic() - began:.0f}"
    row = [name, what, result.first, result.again, result.equal, seconds, verdict]
    return row, result.problems


def _undisturbed(folder: Path) -> Path:
    """Return the folder of a run that nothing disturbs, made first if it is not there."""
    place = Place(folder / "undisturbed", folder / "undisturbed")
    if not (place.reports / "trials.csv").exists():
        _fresh(place.folder)
        with place.sweep() as sweep:
            sweep.wait()
        assert sweep.status == 0, f"the undisturbed sweep: {sweep.told}"
        assert not place.problems, f"the undisturbed sweep: {place.problems}"
    return place.folder


def _fresh(folder: Path) -> Path:
    """Return an empty folder that was not there."""
    folder.mkdir(parents=True)
    return folder


def _line(cells: list[str] | tuple[str, ...]) -> str:
    """Return a row of a Markdown table."""
    return "| " + " | ".join(" ".join(cell.split()).replace("|", r"\|") for cell in cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
