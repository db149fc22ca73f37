"""How a command ends as a process: one line and an exit status, whatever ends it.

0 where all is done, 1 where the machine failed, 2 for bad input, 130 where it was interrupted,
141 where its output is closed (128 + SIGPIPE, as a shell has it).
"""

import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from lab import leave
from lab.errors import UserError

INTERRUPTED, UNREAD = 130, 141


def run(name: str, kept: str, body: Callable[[], int | None]) -> int:
    """Run a command's body and return the exit status, once one line says what went wrong.

    What takes long to import is imported in the body: an interrupt there ends like any other.

    Args:
        name: of the command.
        kept: what an interrupted or failed command leaves behind, in words.
        body: body of the command; returns an exit status, or None for 0.
    """
    if signal.getsignal(signal.SIGINT) is leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        status = body() or 0
        sys.stdout.flush()
    except UserError as error:
        _say(f"{name}: error: {' '.join(str(error).split())}")
        return 2
    except KeyboardInterrupt:
        _say(f"interrupted; {kept}")
        return INTERRUPTED
    except BrokenPipeError:
        discard_output()
        _say(f"{name}: the output is closed; {kept}")
        return UNREAD
    except Exception as error:  # of a disk, a node, a database: not bad input
        if _interrupted(error):
            _say(f"interrupted; {kept}")
            return INTERRUPTED
        line = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        _say(f"{name}: failed: {line}; {kept}{_details()}")
        return 1
    return status


def execute(main: Callable[[], int]) -> NoReturn:
    """Run a command's `main` as this process, and end it with the status that it returns.

    An interrupted process ends at once: Python would end it by the signal again if a library has
    seen the interrupt first, and a second Ctrl-C would end its last steps in a traceback.
    """
    status = main()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in the background
        signal.signal(signal.SIGINT, lambda *_: os._exit(status))
    if status == INTERRUPTED:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(status)
    sys.exit(status)


def _say(line: str) -> None:
    with suppress(OSError):  # standard error is closed too
        print(line, file=sys.stderr, flush=True)


def discard_output() -> None:
    """Let what is printed from now on go nowhere, what Python flushes at its exit included."""
    with suppress(OSError, ValueError):  # standard output may be no file, in a test for example
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _interrupted(error: BaseException) -> bool:
    """Return whether an interrupt led to an error: some libraries wrap it while they load."""
    before = error.__cause__ or error.__context__
    return isinstance(before, KeyboardInterrupt) or (before is not None and _interrupted(before))


def _details() -> str:
    """Write the traceback down, and return where; nothing where that fails too."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="lab-error-", suffix=".txt", delete=False
        ) as file:
            traceback.print_exc(file=file)
    except OSError:
        return ""
    return f" (details: {file.name})"
