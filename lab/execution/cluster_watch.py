"""Notice the loss of Ray's control process (GCS) within seconds.

Ray itself tries to reconnect for a minute, in which calls of Ray block, and then ends the process
of the driver without an exception.
"""

import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOG = logging.getLogger(__name__)
_INTERVAL = 1.0  # seconds between two checks
_TIMEOUT = 5.0  # seconds to wait for a connection
_GRACE = 8.0  # seconds for the main thread to react to the loss
_FAILURES = 3  # failed checks in a row after which the process counts as lost


class ClusterLostError(RuntimeError):
    """The Ray cluster can no longer be used: its control process or all of its nodes have ended."""


@contextmanager
def watch_control_process(address: str, give_up: Callable[[str], None]) -> Iterator[None]:
    """Raise in the main thread once no process listens at the address of the GCS.

    The exception is raised by a signal handler, and again on exit, because Ray may have wrapped or
    suppressed it. Must be called in the main thread.

    Args:
        address: host:port of the GCS.
        give_up: function that ends this process, called in another thread with a message if the
            main thread is still in a call of Ray some seconds later: Python runs signal handlers
            only between such calls.

    Raises:
        ClusterLostError: no process listens there.
    """
    ended, lost = threading.Event(), threading.Event()
    main = threading.get_ident()
    message = f"the control process of Ray (gcs_server at {address}) has ended"

    def raise_lost(*_: object) -> None:
        raise ClusterLostError(message)

    def watch() -> None:
        if not _wait_for_loss(address, ended):
            return
        _LOG.error("%s", message)
        lost.set()
        signal.pthread_kill(main, signal.SIGUSR1)
        if not ended.wait(_GRACE):
            give_up(message)

    before = signal.signal(signal.SIGUSR1, raise_lost)
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        try:
            yield
        finally:
            ended.set()
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # one may have been sent a moment ago
            thread.join()
            signal.signal(signal.SIGUSR1, before)
    except Exception as error:
        if lost.is_set():
            raise ClusterLostError(message) from error
        raise
    if lost.is_set():
        raise ClusterLostError(message)


def _wait_for_loss(address: str, ended: threading.Event) -> bool:
    """Wait until no process listens at an address; return False if `ended` is set before."""
    failures = 0
    while failures < _FAILURES:
        if ended.wait(_INTERVAL):
            return False
        failures = 0 if _answers(address) else failures + 1
    return True


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_TIMEOUT).close()
    except OSError:
        return False
    return True
