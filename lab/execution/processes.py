"""Processes that this process has started, directly or not; Linux only, elsewhere none is found."""

import ctypes
import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path as File
from typing import NamedTuple

_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
_INTERVAL = 0.05  # seconds between two checks whether processes have ended


class Process(NamedTuple):
    """A process, identified by its id and start time because ids are reused."""

    pid: int
    started: str


def adopt_orphans() -> None:
    """Make orphans among the descendants children of this process, so that they can be found.

    Without it, they would become children of the system's first process.
    """
    with suppress(AttributeError, OSError):  # not Linux
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def find_descendants(pid: int | None = None) -> list[Process]:
    """Return the running descendants of a process, without processes that have ended.

    Args:
        pid: process id; None for this process.
    """
    children = _children(os.getpid() if pid is None else pid)
    return [each for child in children for each in (*_find(child), *find_descendants(child))]


def wait_for_end(processes: Iterable[Process], seconds: float) -> bool:
    """Wait until processes have ended; return whether they have ended in time."""
    deadline = time.monotonic() + seconds
    remaining = list(processes)
    while remaining := [each for each in remaining if _is_running(each)]:
        if time.monotonic() > deadline:
            return False
        time.sleep(_INTERVAL)
    return True


def kill(processes: Iterable[Process]) -> None:
    """Kill the processes that are still running."""
    for process in processes:
        if _is_running(process):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    children = []
    for file in File("/proc").glob(f"{pid}/task/*/children"):
        with suppress(OSError):  # the process has ended
            children += [int(child) for child in file.read_text().split()]
    return children


def _find(pid: int) -> Iterator[Process]:
    with suppress(OSError):  # the process has ended
        fields = File(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if fields[0] not in "ZX":  # ended, and not yet waited for
            yield Process(pid, fields[19])


def _is_running(process: Process) -> bool:
    return process in _find(process.pid)
