"""The bench of a drill: a fresh folder, the command in it, and what is seen of it from outside."""

import csv
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SPACE = Path(__file__).parent / "drill.yaml"
FAULTS = Path(__file__).parent / "faults"
LIMIT = 300.0  # seconds until a sweep is where a drill wants it
STILL = 120.0  # seconds without a word or a scored point after which a sweep hangs
GRACE = 75.0  # seconds that its processes have to go; Ray's agents look for a dead node for 60
TRIES = 3  # of the same command

_SCRATCH = re.compile(r"/tmp/lab-\w+")  # noqa: S108 - Ray's folder, as lab.execution.runner names it

# Columns of trials.csv and curves.csv that hold run ids, durations and speeds.
NOT_COMPARED = {
    "run_id",
    "slot/seconds",
    "slot/busy_seconds",
    "spent/seconds",
    "health/tokens_per_second",
    "health/flops_per_second",
}


class SkippedError(Exception):
    """The drill cannot be done on this machine; the message says why."""


class Process(NamedTuple):
    """A process by number and start, because numbers are used again."""

    pid: int
    began: str


class Result(NamedTuple):
    """A row of the table, and what was wrong."""

    first: str
    again: str
    equal: str
    problems: list[str]


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat behind the name; none where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def seen(pid: int) -> Process | None:
    """Return a process that lives; None for one that is gone or only waits to be reaped."""
    fields = _stat(pid)
    return Process(pid, fields[19]) if fields and fields[0] not in "ZX" else None


def command(pid: int) -> str:
    """Return a process's command line, empty where it is gone."""
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        return ""
    return text.decode(errors="replace").strip()


def family(pid: int) -> Iterator[Process]:
    """Yield a process and all below it that live."""
    process = seen(pid)
    if process is not None:
        yield process
    for children in Path("/proc").glob(f"{pid}/task/*/children"):
        try:
            below = children.read_text().split()
        except OSError:
            continue  # it ended meanwhile
        for child in below:
            yield from family(int(child))


class Sweep:
    """One run of the command.

    Attributes:
        status: how it ended; None while it runs.
        problems: what it should not have done.
        scratch: Ray's folders in /tmp, as its processes name them.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", watched: Sequence[Path]) -> None:
        self.process = process
        self._out, self._err, self._storage = watched
        self.problems: list[str] = []
        self.scratch: set[Path] = set()
        self._known: set[Process] = set()

    @property
    def pid(self) -> int:
        """The driver's process."""
        return self.process.pid

    @property
    def status(self) -> int | None:
        """The exit status; negative where a signal ended it."""
        return self.process.poll()

    @property
    def out(self) -> str:
        """What it has printed."""
        return self._out.read_text()

    @property
    def err(self) -> str:
        """What it has said on standard error."""
        return self._err.read_text()

    @property
    def told(self) -> str:
        """The exit status, and how the trials ended or the last line that a person saw."""
        if self.status == 0:
            ends = Counter(re.findall(r"\] (finished|failed|diverged|interrupted) ", self.out))
            return "0: " + ", ".join(f"{count} {state}" for state, count in sorted(ends.items()))
        lines = (self.err.strip() or self.out.strip()).splitlines() or ["nothing"]
        return f"{self.status}: {lines[-1]}"

    def alive(self) -> set[Process]:
        """Return its processes that live now, those included that have lost their parent."""
        found = set(family(self.pid))
        for process in self._known:
            if seen(process.pid) == process:
                found |= set(family(process.pid))
        for process in found - self._known:
            names = _SCRATCH.findall(command(process.pid))
            self.scratch |= {Path(name) for name in names}
        self._known |= found
        return found

    def find(self, pattern: str) -> list[int]:
        """Return its processes whose command line matches."""
        return sorted(p.pid for p in self.alive() if re.search(pattern, command(p.pid)))

    def until(self, what: str, happened: Callable[[], bool], limit: float = LIMIT) -> None:
        """Wait for something to happen while the sweep runs."""
        end = time.monotonic() + limit
        while not happened():
            assert self.status is None, f"it ended before {what}: {self.told}"
            assert time.monotonic() < end, f"no {what} within {limit:.0f} s"
            self.alive()
            time.sleep(0.2)
        self.alive()

    def wait(self) -> None:
        """Wait for its end; one that hangs is killed, which is a problem."""
        done = self._done()
        while not self.ends(STILL) and self._done() != done:
            done = self._done()
        if self.status is None:
            self.problems.append("hangs: killed after minutes without a word or a point")
            self.kill()
        self.process.wait()
        left = self._left()
        self.problems += [f"process left behind: {command(p.pid)[:80]}" for p in left]
        if "Traceback (most recent call last)" in self.out + self.err:
            self.problems.append(f"shows a traceback: {self.told}")

    def ends(self, limit: float) -> bool:
        """Return whether it ends within some seconds."""
        end = time.monotonic() + limit
        while self.status is None and time.monotonic() < end:
            self.alive()
            time.sleep(0.2)
        return self.status is not None

    def _done(self) -> int:
        """Return a number that changes with all that it says and records."""
        curves = self._storage.glob("trials/*/curve.jsonl")
        return sum(file.stat().st_size for file in (self._out, self._err, *curves))

    def kill(self) -> None:
        """End all of its processes at once."""
        for process in self.alive():
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _left(self) -> set[Process]:
        end = time.monotonic() + GRACE
        while self.alive() and time.monotonic() < end:
            time.sleep(0.2)
        return self.alive()


@dataclass
class Place:
    """The fresh folder of a drill, and the command that is given there again and again.

    Attributes:
        folder: holds the storage, the reports and what the sweeps printed.
        undisturbed: the folder of a run without a fault, which this one must equal.
        uri: of an MLflow server; None for the default.
        address: of a Ray cluster; None where the sweep starts its own.
        problems: found so far.
    """

    folder: Path
    undisturbed: Path
    uri: str | None = None
    address: str | None = None
    problems: list[str] = field(default_factory=list)
    scratch: set[Path] = field(default_factory=set)
    _runs: int = 0

    @property
    def storage(self) -> Path:
        """The sweep's storage."""
        return self.folder / "storage"

    @property
    def reports(self) -> Path:
        """The report's folder."""
        return self.folder / "reports" / SPACE.stem

    def take_cache(self) -> None:
        """Spare the preparation of the text, which no drill is about."""
        made, cache = self.undisturbed / "storage" / "cache", self.storage / "cache"
        if made.exists() and not cache.exists():
            shutil.copytree(made, cache)

    @contextmanager
    def sweep(self, **faults: object) -> Iterator[Sweep]:
        """Start the command; `faults` are told to faults/sitecustomize.py in its processes."""
        self.take_cache()
        self._runs += 1
        out, err = (self.folder / f"{self._runs}.{name}" for name in ("out", "err"))
        path = [str(FAULTS)] * bool(faults) + [str(ROOT)]
        told = {f"DRILL_{name.upper()}": str(value) for name, value in faults.items()}
        arguments = [str(SPACE), "--storage", str(self.storage)]
        arguments += ["--reports", str(self.folder / "reports")]
        arguments += ["--tracking-uri", self.uri] if self.uri else []
        arguments += ["--address", self.address] if self.address else []
        with out.open("wb") as opened_out, err.open("wb") as opened_err:
            process = subprocess.Popen(
                [sys.executable, "-m", "lab.sweep", *arguments],
                stdout=opened_out,
                stderr=opened_err,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(path),
                    "OMP_NUM_THREADS": "1",
                    **told,
                },
                start_new_session=True,
            )
        sweep = Sweep(process, (out, err, self.storage))
        try:
            yield sweep
        finally:
            sweep.kill()
            process.wait()
            self.problems += sweep.problems
            self.scratch |= sweep.scratch

    def check(self, held: bool, otherwise: str) -> None:
        """Note a problem unless something held; the drill goes on."""
        if not held:
            self.problems.append(otherwise)

    def points(self) -> dict[Path, int]:
        """Return how many scored points each trial's record has."""
        curves = self.storage.glob("trials/*/curve.jsonl")
        return {curve.parent: len(curve.read_text().splitlines()) for curve in curves}

    def in_the_middle(self, points: int = 3) -> bool:
        """Return whether two trials have got some points, and are not over."""
        running = {
            folder: count
            for folder, count in self.points().items()
            if not (folder / "outcome.json").exists()
        }
        return sum(count >= points for count in running.values()) >= 2

    def states(self) -> Counter[str]:
        """Return how many trials ended how, by their own records."""
        outcomes = self.storage.glob("trials/*/outcome.json")
        return Counter(json.loads(file.read_text())["state"] for file in outcomes)

    def stored(self) -> Counter[str]:
        """Return how many runs of MLflow's database, the sweep's own included, ended how."""
        database = sqlite3.connect(self.storage / "mlflow.db")
        try:
            rows = database.execute("SELECT value FROM tags WHERE key = 'lab.state'").fetchall()
        finally:
            database.close()
        return Counter(value for (value,) in rows)

    def finish(self, first: Sweep, but: Collection[str] = ()) -> Result:
        """Give the same command until it succeeds, and compare what it leaves.

        Args:
            first: the sweep that met the fault.
            but: numbers of trials that are not compared.
        """
        told = []
        for _ in range(TRIES):
            with self.sweep() as again:
                again.wait()
            told.append(again.told)
            if again.status == 0:
                break
        self.check(again.status == 0, f"the same command does not finish: {again.told}")
        started = again.out.count("] started")
        self.problems += [f"left in /tmp: {path}" for path in self.scratch if path.exists()]
        self.problems += [f"half-written file: {name}" for name in self._half_written()]
        differences = self._differences(but)
        self.problems += differences
        attempts = f"{len(told)} tries, " if len(told) > 1 else ""
        return Result(
            first=first.told,
            again=f"{attempts}status {again.status}, {started} trials started",
            equal="no" if differences else "yes",
            problems=self.problems,
        )

    def tidy(self) -> None:
        """Remove what killed sweeps have left in /tmp, which has been told by now."""
        for path in self.scratch:
            shutil.rmtree(path, ignore_errors=True)

    def _half_written(self) -> list[str]:
        patterns = ("**/*partial*", "stop-*", "**/.*.new.*", "**/.*.old.*")
        places = (self.storage, self.folder / "reports")
        found = (file for p in places for pattern in patterns for file in p.glob(pattern))
        return sorted({str(file.relative_to(self.folder)) for file in found})

    def _differences(self, but: Collection[str]) -> list[str]:
        differences: list[str] = []
        # A repeat of what was best before stays on record, and is compared with nothing.
        trials = self.reports / "trials.csv"
        but = {*but, *_superseded(trials)} if trials.exists() else but
        for name in ("trials.csv", "curves.csv"):
            file = self.reports / name
            if not file.exists():
                differences.append(f"{name} is missing")
                continue
            expected = self.undisturbed / "reports" / SPACE.stem / name
            found = [f"{name}: {text}" for text in compare(rows(file), rows(expected), but)]
            differences += found[:3]
        return differences


Drill = Callable[[Place], Result]  # the first line of its docstring says what is done


def _superseded(file: Path) -> set[str]:
    with file.open(newline="") as opened:
        return {row["number"] for row in csv.DictReader(opened) if row["role"] == "superseded"}


def rows(file: Path) -> list[dict[str, str]]:
    """Return a table's rows without the columns that differ between any two runs."""
    with file.open(newline="") as opened:
        return [
            {name: value for name, value in row.items() if name not in NOT_COMPARED}
            for row in csv.DictReader(opened)
        ]


def compare(
    got: Iterable[dict[str, str]], expected: Iterable[dict[str, str]], but: Collection[str]
) -> list[str]:
    """Return what differs between two tables, row by row, in words."""
    ours, theirs = ([row for row in table if row["number"] not in but] for table in (got, expected))
    if len(ours) != len(theirs):
        numbers = ", ".join(row["number"] for row in ours)
        return [f"{len(ours)} rows, not {len(theirs)}: trials {numbers}"]
    return [
        f"trial {mine['number']}, {name}: {mine.get(name)}, not {row.get(name)}"
        for mine, row in zip(ours, theirs, strict=True)
        for name in dict.fromkeys([*row, *mine])
        if mine.get(name) != row.get(name)
    ]
