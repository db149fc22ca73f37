"""The loss of Ray's control process ends the sweep within seconds; here a socket stands for it."""

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from lab.execution import cluster_watch
from lab.execution.cluster_watch import ClusterLostError, watch_control_process


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_watch, "_INTERVAL", 0.01)


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        opened.listen()
        yield opened


def address(listening: socket.socket) -> str:
    return f"127.0.0.1:{listening.getsockname()[1]}"


def unreachable(message: str) -> None:
    raise AssertionError(message)


def lose(listening: socket.socket, call: Callable[[], None]) -> None:
    """Close the socket while a function is called that blocks as a call of Ray does."""
    with watch_control_process(address(listening), unreachable):
        listening.close()
        call()


def block() -> None:
    time.sleep(600)


def block_and_suppress() -> None:
    with suppress(ClusterLostError):
        block()


def block_and_wrap() -> None:
    try:
        block()
    except ClusterLostError as error:
        raise ValueError("wrapped") from error


@pytest.mark.reported
@pytest.mark.parametrize("call", [block, block_and_suppress, block_and_wrap])
def test_a_blocking_call_ends_when_no_process_listens_any_more(
    listening: socket.socket, call: Callable[[], None]
) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(ClusterLostError, match="gcs_server at 127"):
        lose(listening, call)
    assert signal.getsignal(signal.SIGUSR1) is before


def test_nothing_is_raised_while_the_process_listens(listening: socket.socket) -> None:
    with watch_control_process(address(listening), unreachable):
        for _ in range(10):
            listening.accept()[0].close()


def test_a_call_that_no_signal_ends_is_given_up(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The main thread waits in C code for another thread, and runs no signal handler."""
    monkeypatch.setattr(cluster_watch, "_GRACE", 0.05)
    given_up = threading.Event()

    def block_in_c_code() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        try:
            assert given_up.wait(60)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})

    def wait_for_loss() -> None:
        with watch_control_process(address(listening), lambda _: given_up.set()):
            listening.close()
            block_in_c_code()

    with pytest.raises(ClusterLostError):
        wait_for_loss()
    assert given_up.is_set()
