"""Signals during a sweep: Ctrl-C, the signals of supervisors, and the loss of the Ray cluster.

`timeout`, systemd and batch schedulers send SIGTERM to all processes of a sweep, and kill those
that are left some time later. A terminal that is closed sends SIGHUP. Ray's processes block both
signals (`ray_cluster`), so that the trials can save their state.
"""

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path as File
from types import FrameType
from typing import Any

from lab.storage.mirror import Mirror, MirrorError

TERMINATING = frozenset({signal.SIGTERM, signal.SIGHUP})
_GRACE = 6.0  # seconds for trials to save their state after a signal of `TERMINATING`
_LOG = logging.getLogger(__name__)
_Handler = Callable[[int, FrameType | None], Any] | int | None


@contextmanager
def keep_handlers() -> Iterator[None]:
    """Restore the handlers of all signals of this module on exit, also those set by a library."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *TERMINATING)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def block_terminating() -> Iterator[None]:
    """Block the signals of `TERMINATING`; processes that are started here keep them blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, TERMINATING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def shield() -> Iterator[None]:
    """Block the signals of `TERMINATING` while a library starts or ends and replaces handlers.

    Processes that are started here keep them blocked. A signal that arrives meanwhile is handled on
    exit, by the handler of this process: the handlers are restored before the signals are
    unblocked. They are also set again if the library has removed them without Python's knowledge,
    as the end of Ray does.
    """
    with block_terminating(), keep_handlers():
        yield


def interrupt_once(*_: object) -> None:
    """Raise `KeyboardInterrupt`, and ignore further signals of `TERMINATING`.

    `timeout` sends its signal twice: to its child process, and to the whole process group.
    """
    for number in TERMINATING:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def handle_terminating(handler: _Handler) -> None:
    """Set the handler of the signals of `TERMINATING`, except of those that are ignored.

    `nohup` and the background jobs of some shells start a command that ignores SIGHUP.
    """
    for number in TERMINATING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


@contextmanager
def handle_interrupts(
    stop_file: File, mirror: Mirror, say: Callable[[str], None]
) -> Iterator[None]:
    """Handle interrupts: running trials save their state and end.

    A second Ctrl-C exits at once. After SIGTERM or SIGHUP the sweep exits if the trials have not
    saved their state within `_GRACE` seconds, because the sender kills the processes soon.

    Args:
        stop_file: file that requests the end of the sweep; the first signal creates it.
        mirror: synchronization of the file with the storage that all machines access.
        say: function that displays a message.
    """
    handlers = _Handlers(stop_file, mirror, say)
    with keep_handlers():
        signal.signal(signal.SIGINT, handlers.interrupt)
        handle_terminating(handlers.terminate)
        alarm = signal.signal(signal.SIGALRM, handlers.end)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, alarm)


class _Handlers:
    """Signal handlers; the arguments are those of `handle_interrupts`."""

    def __init__(self, stop_file: File, mirror: Mirror, say: Callable[[str], None]) -> None:
        self._stop_file, self._mirror, self._say = stop_file, mirror, say
        self._terminating = False

    def interrupt(self, *_: object) -> None:
        """Handle Ctrl-C."""
        if self._terminating:  # the display has found that its terminal is closed
            return
        if self._stop_file.exists():
            raise KeyboardInterrupt
        self._request_stop("Ctrl-C again stops now")

    def terminate(self, *_: object) -> None:
        """Handle a signal of `TERMINATING`; `timeout` sends it twice."""
        if not self._terminating:
            self._terminating = True
            signal.setitimer(signal.ITIMER_REAL, _GRACE)
            self._request_stop(f"the sweep ends within {_GRACE:.0f} s")

    def end(self, *_: object) -> None:
        """Handle the end of the time that `terminate` allows."""
        raise KeyboardInterrupt

    def _request_stop(self, hint: str) -> None:
        with suppress(OSError, MirrorError):  # of a full disk: the trials end with the sweep
            self._stop_file.touch()
            self._mirror.push(self._stop_file)
        self._say(f"stopping: running trials save their state; {hint}")
        _LOG.warning("interrupted: running trials save their state")
