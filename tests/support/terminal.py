"""A command in a pseudo-terminal, as a person starts it, and what it shows."""

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
COLOURS = re.compile(r"(^|;)([349][0-7]|10[0-7]|[34]8;[25];)")  # of SGR


class Terminal:
    """A running command, its terminal and all that it has written to it.

    Args:
        process: leader of the terminal's session.
        master: the person's side of the terminal.
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
            except OSError:  # nobody has it open any more
                return
            if not part:
                return
            self._written += part

    @property
    def written(self) -> str:
        """All that was written, controls included."""
        return self._written.decode(errors="replace")

    @property
    def text(self) -> str:
        """All that was written, without controls."""
        return CONTROLS.sub("", self.written)

    def press(self, keys: str) -> None:
        """Type; \\x03 is Ctrl-C, which the terminal turns into a signal for all in front."""
        os.write(self._master, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Change the size; the kernel sends SIGWINCH."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait_for(self, shown: "str | Callable[[str], bool]") -> None:
        """Wait until something is shown: a regular expression, or what holds for the text."""
        holds = shown if callable(shown) else lambda text: re.search(shown, text) is not None
        until = time.monotonic() + LIMIT
        while not holds(self.text):
            assert self.process.poll() is None, self.text
            assert time.monotonic() < until, self.text
            time.sleep(0.02)

    def status(self) -> int:
        """Wait for the end; return the exit status."""
        status = self.process.wait(LIMIT)
        self._reader.join(5)
        return status


@contextmanager
def opened(
    cwd: Path, *command: object, columns: int = 80, rows: int = 24, **environment: str
) -> Iterator[Terminal]:
    """Run Python with `command` in front of a terminal of its own; what is left is killed.

    Args:
        cwd: where it runs.
        command: arguments of Python.
        columns: of the terminal.
        rows: of the terminal.
        environment: on top of this process's.
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
    """Return whether anything was written in a colour."""
    return any(kind == "m" and COLOURS.search(codes) for codes, kind in CONTROLS.findall(written))


def cursor_is_shown(written: str) -> bool:
    """Return whether the cursor that a display hides is there in the end."""
    return written.rfind("\x1b[?25h") >= written.rfind("\x1b[?25l")
