"""The loss of Ray's control process ends the sweep within seconds; here a socket stands for it."""

import signal
import socket
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


def lose(listening: socket.socket, call: Callable[[], None]) -> None:
    """Close the socket while a function is called that blocks as a call of Ray does."""
    with watch_control_process(address(listening)):
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


@pytest.mark.parametrize("call", [block, block_and_suppress, block_and_wrap])
def test_a_blocking_call_ends_when_no_process_listens_any_more(
    listening: socket.socket, call: Callable[[], None]
) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(ClusterLostError, match="gcs_server at 127"):
        lose(listening, call)
    assert signal.getsignal(signal.SIGUSR1) is before


def test_nothing_is_raised_while_the_process_listens(listening: socket.socket) -> None:
    with watch_control_process(address(listening)):
        for _ in range(10):
            listening.accept()[0].close()
