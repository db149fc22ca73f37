"""Run a command in a pseudo-terminal and read its output."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from project import ROOT
from sweeps import LIMIT

CONTROLS = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")
COLOURS = re.compile(r"(^|;)([349][0-7]|10[0-7]|[34]8;[25];)")  # SGR codes of colours


class Terminal:
    """A running command in a pseudo-terminal and its output so far.

    Args:
        process: the command, leader of the session of the terminal.
        master: file descriptor of the master side of the terminal.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", master: int) -> None:
        self.process, self._master = process, master
        self._written = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                part = os.read(self._master, 65_536)
            except OSError:  # all processes have closed the terminal
                return
            if not part:
                return
            self._written += part

    @property
    def written(self) -> str:
        """The output so far, with control sequences."""
        return self._written.decode(errors="replace")

    @property
    def text(self) -> str:
        """The output so far, without control sequences."""
        return CONTROLS.sub("", self.written)

    def press(self, keys: str) -> None:
        """Send keys; for \\x03 (Ctrl-C) the terminal sends SIGINT to the foreground processes."""
        os.write(self._master, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of the terminal; the kernel sends SIGWINCH."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait_for(self, shown: "str | Callable[[str], bool]") -> None:
        """Wait until `text` matches a regular expression or satisfies a predicate."""
        is_shown = shown if callable(shown) else lambda text: re.search(shown, text) is not None
        deadline = time.monotonic() + LIMIT
        while not is_shown(self.text):
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.02)

    def status(self) -> int:
        """Wait for the end of the command; return its exit status."""
        status = self.process.wait(LIMIT)
        self._reader.join(5)
        return status


@contextmanager
def opened(
    cwd: Path, *command: object, columns: int = 80, rows: int = 24, **environment: str
) -> Iterator[Terminal]:
    """Run Python in a new pseudo-terminal; kill it at the end of the block if it still runs.

    Args:
        cwd: working directory.
        command: arguments of Python.
        columns: width of the terminal in characters.
        rows: height of the terminal in lines.
        environment: variables added to the environment of this process.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    inherited = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "COLUMNS", "LINES"}}
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdin=slave, stdout=slave, stderr=slave, cwd=cwd,
        env=inherited
        | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TERM": "xterm-256color"}
        | environment,
        start_new_session=True,
        preexec_fn=_take_terminal,
    )  # fmt: skip
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        os.close(master)


def _take_terminal() -> None:
    """Make standard input the controlling terminal of the new session."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def coloured(written: str) -> bool:
    """Return whether the output contains a code of a colour."""
    return any(kind == "m" and COLOURS.search(codes) for codes, kind in CONTROLS.findall(written))


def cursor_is_shown(written: str) -> bool:
    """Return whether the cursor is visible at the end of the output."""
    return written.rfind("\x1b[?25h") >= written.rfind("\x1b[?25l")
