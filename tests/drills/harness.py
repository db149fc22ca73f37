"""Test harness of the drills: working folders, running sweeps, and comparison of their results."""

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
LIMIT = 300.0  # seconds to wait for an event in a sweep
STILL = 120.0  # seconds without output or evaluation after which a sweep is considered hung
GRACE = 75.0  # seconds for processes to exit; agents of Ray detect a dead node after up to 60
TRIES = 3  # runs of the same command until it must succeed

_SCRATCH = re.compile(r"/tmp/lab-\w+")  # noqa: S108 - Ray's folder, named by lab.execution.runner

# Columns of trials.csv and curves.csv with run ids, durations and speeds.
NOT_COMPARED = {
    "run_id",
    "slot/seconds",
    "slot/busy_seconds",
    "spent/seconds",
    "health/tokens_per_second",
    "health/flops_per_second",
}


class SkippedError(Exception):
    """Raised if this machine cannot run a drill; the message is the reason."""


class Process(NamedTuple):
    """A process, identified by its id and start time because ids are reused."""

    pid: int
    began: str


class Result(NamedTuple):
    """A row of the table, and the problems of the drill."""

    first: str
    again: str
    equal: str
    problems: list[str]


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name; empty for an ended process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def find_process(pid: int) -> Process | None:
    """Return a running process; None for an ended process or a zombie."""
    fields = _stat(pid)
    return Process(pid, fields[19]) if fields and fields[0] not in "ZX" else None


def command(pid: int) -> str:
    """Return the command line of a process; empty for an ended process."""
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        return ""
    return text.decode(errors="replace").strip()


def family(pid: int) -> Iterator[Process]:
    """Yield a process and its descendants, as far as they are running."""
    process = find_process(pid)
    if process is not None:
        yield process
    for children in Path("/proc").glob(f"{pid}/task/*/children"):
        try:
            descendants = children.read_text().split()
        except OSError:
            continue  # the process has ended
        for child in descendants:
            yield from family(int(child))


class Sweep:
    """A run of the command `lab.sweep`.

    Args:
        process: process of the command.
        paths: files of its standard output and standard error, and its storage.

    Attributes:
        process: process of the command.
        problems: descriptions of wrong behavior.
        scratch: folders of Ray in /tmp, found in the command lines of its processes.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", paths: Sequence[Path]) -> None:
        self.process = process
        self._out, self._err, self._storage = paths
        self.problems: list[str] = []
        self.scratch: set[Path] = set()
        self._known: set[Process] = set()

    @property
    def pid(self) -> int:
        """Process id of the driver."""
        return self.process.pid

    @property
    def status(self) -> int | None:
        """The exit status, negative for a signal; None while the sweep runs."""
        return self.process.poll()

    @property
    def out(self) -> str:
        """Standard output of the sweep."""
        return self._out.read_text()

    @property
    def err(self) -> str:
        """Standard error of the sweep, without the warnings on its search space."""
        lines = self._err.read_text().splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith("lab.sweep: warning: "))

    @property
    def summary(self) -> str:
        """The exit status, with the number of trials by state or the last line of output."""
        if self.status == 0:
            ends = Counter(re.findall(r"\] (finished|failed|diverged|interrupted) ", self.out))
            return "0: " + ", ".join(f"{count} {state}" for state, count in sorted(ends.items()))
        lines = (self.err.strip() or self.out.strip()).splitlines() or ["nothing"]
        return f"{self.status}: {lines[-1]}"

    def alive(self) -> set[Process]:
        """Return its running processes, including those whose parent has ended."""
        running = set(family(self.pid))
        for process in self._known:
            if find_process(process.pid) == process:
                running |= set(family(process.pid))
        for process in running - self._known:
            names = _SCRATCH.findall(command(process.pid))
            self.scratch |= {Path(name) for name in names}
        self._known |= running
        return running

    def find(self, pattern: str) -> list[int]:
        """Return the ids of its processes with a command line that matches a regular expression."""
        return sorted(p.pid for p in self.alive() if re.search(pattern, command(p.pid)))

    def until(self, event: str, occurred: Callable[[], bool], limit: float = LIMIT) -> None:
        """Wait for an event while the sweep runs.

        Args:
            event: the event in words.
            occurred: returns whether the event has occurred.
            limit: seconds to wait.

        Raises:
            AssertionError: the sweep ends or the time is over before the event.
        """
        end = time.monotonic() + limit
        while not occurred():
            assert self.status is None, f"the sweep ended before {event}: {self.summary}"
            assert time.monotonic() < end, f"no {event} within {limit:.0f} s"
            self.alive()
            time.sleep(0.2)
        self.alive()

    def wait(self) -> None:
        """Wait for the end of the sweep; kill it and note a problem if it hangs."""
        progress = self._progress()
        while not self.ends(STILL) and self._progress() != progress:
            progress = self._progress()
        if self.status is None:
            self.problems.append("hangs: killed after minutes without output or evaluation")
            self.kill()
        self.process.wait()
        left = self._left()
        self.problems += [f"process left behind: {command(p.pid)[:80]}" for p in left]
        if "Traceback (most recent call last)" in self.out + self.err:
            self.problems.append(f"prints a traceback: {self.summary}")

    def ends(self, limit: float) -> bool:
        """Return whether the sweep ends within `limit` seconds."""
        end = time.monotonic() + limit
        while self.status is None and time.monotonic() < end:
            self.alive()
            time.sleep(0.2)
        return self.status is not None

    def _progress(self) -> int:
        """Return the size of all output and curves, which grows as long as the sweep works."""
        curves = self._storage.glob("trials/*/curve.jsonl")
        return sum(file.stat().st_size for file in (self._out, self._err, *curves))

    def kill(self) -> None:
        """Kill all processes of the sweep."""
        for process in self.alive():
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _left(self) -> set[Process]:
        """Return the processes that are still running after `GRACE` seconds."""
        end = time.monotonic() + GRACE
        while self.alive() and time.monotonic() < end:
            time.sleep(0.2)
        return self.alive()


@dataclass
class Workspace:
    """The folder of a drill, in which the same command is run several times.

    Attributes:
        folder: folder of the storage, the reports and the output of the sweeps.
        reference: folder of a sweep without a fault, with the expected results.
        uri: URI of an MLflow server or database; None for the default store.
        address: address of a Ray cluster; None if the sweep starts Ray itself.
        problems: problems of the drill so far.
        scratch: folders of Ray in /tmp that the sweeps used.
        space: search space of the command.
    """

    folder: Path
    reference: Path
    uri: str | None = None
    address: str | None = None
    problems: list[str] = field(default_factory=list)
    scratch: set[Path] = field(default_factory=set)
    space: Path = SPACE
    _runs: int = 0

    @property
    def storage(self) -> Path:
        """Storage of the sweep."""
        return self.folder / "storage"

    @property
    def reports(self) -> Path:
        """Folder of the sweep's report."""
        return self.folder / "reports" / self.space.stem

    def take_cache(self) -> None:
        """Copy the prepared text of the reference sweep, since no drill tests the preparation."""
        prepared, cache = self.reference / "storage" / "cache", self.storage / "cache"
        if prepared.exists() and not cache.exists():
            shutil.copytree(prepared, cache)

    @contextmanager
    def sweep(self, **faults: object) -> Iterator[Sweep]:
        """Start the command, and kill it at the end of the context if it still runs.

        Args:
            faults: settings of faults/sitecustomize.py, passed as variables `DRILL_NAME`.
        """
        self.take_cache()
        self._runs += 1
        out, err = (self.folder / f"{self._runs}.{name}" for name in ("out", "err"))
        path = [str(FAULTS)] * bool(faults) + [str(ROOT)]
        variables = {f"DRILL_{name.upper()}": str(value) for name, value in faults.items()}
        arguments = [str(self.space), "--storage", str(self.storage)]
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
                    **variables,
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

    def check(self, condition: bool, problem: str) -> None:
        """Note a problem unless a condition is true; the drill continues."""
        if not condition:
            self.problems.append(problem)

    def points(self) -> dict[Path, int]:
        """Return the number of evaluations of each trial, by the folder of its record."""
        curves = self.storage.glob("trials/*/curve.jsonl")
        return {curve.parent: len(curve.read_text().splitlines()) for curve in curves}

    def two_trials_in_training(self, points: int = 3) -> bool:
        """Return whether two running trials have at least `points` evaluations."""
        running = {
            folder: count
            for folder, count in self.points().items()
            if not (folder / "outcome.json").exists()
        }
        return sum(count >= points for count in running.values()) >= 2

    def states(self) -> Counter[str]:
        """Return the number of ended trials by state, from their records."""
        outcomes = self.storage.glob("trials/*/outcome.json")
        return Counter(json.loads(file.read_text())["state"] for file in outcomes)

    def stored(self) -> Counter[str]:
        """Return the number of MLflow runs by state, including the run of the sweep."""
        database = sqlite3.connect(self.storage / "mlflow.db")
        try:
            rows = database.execute("SELECT value FROM tags WHERE key = 'lab.state'").fetchall()
        finally:
            database.close()
        return Counter(value for (value,) in rows)

    def finish(self, first: Sweep, but: Collection[str] = ()) -> Result:
        """Repeat the command until it succeeds, and compare its results with the reference.

        Args:
            first: the sweep with the fault.
            but: numbers of trials that are not compared.
        """
        summaries = []
        for _ in range(TRIES):
            with self.sweep() as again:
                again.wait()
            summaries.append(again.summary)
            if again.status == 0:
                break
        self.check(again.status == 0, f"the same command does not succeed: {again.summary}")
        started = again.out.count("] started")
        self.problems += [f"left in /tmp: {path}" for path in self.scratch if path.exists()]
        self.problems += [f"half-written file: {name}" for name in self._half_written()]
        differences = self._differences(but)
        self.problems += differences
        attempts = f"{len(summaries)} tries, " if len(summaries) > 1 else ""
        return Result(
            first=first.summary,
            again=f"{attempts}status {again.status}, {started} trials started",
            equal="no" if differences else "yes",
            problems=self.problems,
        )

    def tidy(self) -> None:
        """Remove the folders of killed sweeps in /tmp, which have been reported as problems."""
        for path in self.scratch:
            shutil.rmtree(path, ignore_errors=True)

    def _half_written(self) -> list[str]:
        patterns = ("**/*partial*", "stop-*")
        folders = (self.storage, self.folder / "reports")
        files = (file for each in folders for pattern in patterns for file in each.glob(pattern))
        return sorted({str(file.relative_to(self.folder)) for file in files})

    def _differences(self, but: Collection[str]) -> list[str]:
        differences: list[str] = []
        # Superseded repeats, of a setting that is no longer the best, are not compared.
        trials = self.reports / "trials.csv"
        but = {*but, *_superseded(trials)} if trials.exists() else but
        for name in ("trials.csv", "curves.csv"):
            file = self.reports / name
            if not file.exists():
                differences.append(f"{name} is missing")
                continue
            expected = self.reference / "reports" / SPACE.stem / name
            different = [f"{name}: {text}" for text in compare(rows(file), rows(expected), but)]
            differences += different[:3]
        return differences


Drill = Callable[[Workspace], Result]  # the first line of its docstring describes the fault


def _superseded(file: Path) -> set[str]:
    with file.open(newline="") as opened:
        return {row["number"] for row in csv.DictReader(opened) if row["role"] == "superseded"}


def rows(file: Path) -> list[dict[str, str]]:
    """Return the rows of a table without the columns that differ between any two runs."""
    with file.open(newline="") as opened:
        return [
            {name: value for name, value in row.items() if name not in NOT_COMPARED}
            for row in csv.DictReader(opened)
        ]


def compare(
    actual: Iterable[dict[str, str]], expected: Iterable[dict[str, str]], but: Collection[str]
) -> list[str]:
    """Return descriptions of the differences between two tables, row by row.

    Args:
        actual: rows of the drill.
        expected: rows of the reference.
        but: numbers of trials that are not compared.
    """
    actual, expected = (
        [row for row in table if row["number"] not in but] for table in (actual, expected)
    )
    if len(actual) != len(expected):
        numbers = ", ".join(row["number"] for row in actual)
        return [f"{len(actual)} rows, not {len(expected)}: trials {numbers}"]
    return [
        f"trial {row['number']}, {name}: {row.get(name)}, not {reference.get(name)}"
        for row, reference in zip(actual, expected, strict=True)
        for name in dict.fromkeys([*reference, *row])
        if row.get(name) != reference.get(name)
    ]
