"""Handling of Ctrl-C during a sweep."""

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path as File

from lab.storage.mirror import Mirror

_LOG = logging.getLogger(__name__)


@contextmanager
def handle_interrupts(
    stop_file: File, mirror: Mirror, say: Callable[[str], None]
) -> Iterator[None]:
    """Handle Ctrl-C: the first makes trials save their state and end, the second exits.

    Args:
        stop_file: file that requests the end of the sweep; the first Ctrl-C creates it.
        mirror: synchronization of the file with the storage that all machines access.
        say: function that displays a message.
    """

    def request_stop(*_: object) -> None:
        if stop_file.exists():
            raise KeyboardInterrupt
        stop_file.touch()
        mirror.push(stop_file)
        say("stopping: running trials save their state; Ctrl-C again stops now")
        _LOG.warning("interrupted: running trials save their state")

    before = signal.signal(signal.SIGINT, request_stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
