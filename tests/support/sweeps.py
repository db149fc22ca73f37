"""Run a small sweep as a subprocess and inspect its records and processes."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from project import ROOT

METRIC = "detect/unigram/auroc"
DATA = {"share": 0.01, "held_out": 0.1, "vocab": 400, "length": 16}
SMALL = {
    "base.encoder": "{size: nano32}",
    "base.data": json.dumps(DATA),
    "base.batch": 32,
    "base.budget.amount": "1e10",
    "base.evaluations": 2,
    "search.seeds": 1,
    "resources.slots": 2,
}
LIMIT = 540  # seconds; long, because other processes may use the cores


def sweep_arguments(**changes: object) -> list[str]:
    """Return the arguments of `lab.sweep` for a small sweep.

    Args:
        changes: settings that replace or extend SMALL, with `__` for a dot.
    """
    settings = SMALL | {path.replace("__", "."): value for path, value in changes.items()}
    overrides = [part for item in settings.items() for part in ("--set", "{}={}".format(*item))]
    space = str(ROOT / "search_spaces" / "smoke.yaml")
    return [space, *overrides, "--storage", "storage", "--reports", "reports"]


@contextmanager
def start_sweep(
    cwd: Path,
    *options: object,
    package: Path = ROOT,
    environment: Mapping[str, str] = MappingProxyType({}),
    **changes: object,
) -> "Iterator[subprocess.Popen[str]]":
    """Run `lab.sweep` in a new session; kill it at the end of the block if it still runs.

    Args:
        cwd: working directory; standard output and error are written to `out` and `err` in it.
        options: further command-line arguments.
        package: folder that contains the package `lab`.
        environment: further environment variables.
        changes: arguments of `sweep_arguments`.
    """
    command = [sys.executable, "-m", "lab.sweep", *sweep_arguments(**changes)]
    with (cwd / "out").open("w") as out, (cwd / "err").open("w") as err:
        process = subprocess.Popen(
            command + [str(option) for option in options],
            stdout=out,
            stderr=err,
            text=True,
            cwd=cwd,
            env=os.environ
            | {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
            | dict(environment),
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def read_output(cwd: Path) -> str:
    """Return the standard output of the command."""
    return (cwd / "out").read_text()


def wait_for_exit(process: "subprocess.Popen[str]", cwd: Path, status: int) -> None:
    """Wait for the end of the command and check its exit status."""
    process.wait(LIMIT)
    assert process.returncode == status, read_output(cwd) + (cwd / "err").read_text()


def family(pid: int) -> set[int]:
    """Return the ids of a process and all its descendants."""
    pids = {pid}
    for children in Path("/proc").glob(f"{pid}/task/*/children"):
        for child in children.read_text().split():
            pids |= family(int(child))
    return pids


def find_processes(pid: int, title: bytes) -> list[int]:
    """Return the ids of the descendants of a process whose command line contains `title`."""
    found = []
    for member in sorted(family(pid)):
        try:
            words = Path(f"/proc/{member}/cmdline").read_bytes()
        except OSError:
            continue  # the process has ended meanwhile
        if title in words:
            found.append(member)
    return found


def listening(pid: int) -> set[str]:
    """Return the addresses, in the format of /proc, on which a process family listens."""
    sockets = set()
    for member in family(pid):
        for descriptor in Path(f"/proc/{member}/fd").glob("*"):
            try:
                sockets |= set(re.findall(r"socket:\[(\d+)\]", str(descriptor.readlink())))
            except OSError:
                continue  # the descriptor was closed meanwhile
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path("/proc/net", table).read_text().splitlines()[1:]
    ]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in sockets}


LOOPBACK = {
    "0100007F",  # 127.0.0.1, least significant byte first
    "00000000000000000000000001000000",  # ::1
    "0000000000000000FFFF00000100007F",  # ::ffff:127.0.0.1
}


def records(storage: Path) -> dict[str, int]:
    """Return the time in ns at which each finished trial ended, by fingerprint."""
    outcomes = storage.glob("trials/*/outcome.json")
    return {
        outcome.parent.name: outcome.stat().st_mtime_ns
        for outcome in outcomes
        if json.loads(outcome.read_text())["state"] == "finished"
    }


def ended_as(storage: Path) -> Counter[str]:
    """Return the number of records in each state."""
    outcomes = storage.glob("trials/*/outcome.json")
    return Counter(json.loads(outcome.read_text())["state"] for outcome in outcomes)
