"""Signals of users and supervisors, sent to this process."""

import ctypes
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from project import ROOT

from lab.execution import interrupts, processes
from lab.storage.mirror import LocalOnly

TERMINATING = pytest.mark.parametrize("number", sorted(interrupts.TERMINATING))


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    with interrupts.keep_handlers():
        yield


@pytest.fixture
def stop_file(tmp_path: Path) -> Path:
    return tmp_path / "stop"


def send(number: int) -> None:
    """Send a signal to the main thread, which blocks it in some tests; pytest has other threads."""
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, number)


@pytest.mark.reported
@TERMINATING
def test_a_signal_of_a_supervisor_requests_a_stop_however_often_it_is_sent(
    stop_file: Path, number: int
) -> None:
    lines: list[str] = []
    with interrupts.handle_interrupts(stop_file, LocalOnly(), lines.append):
        send(number)
        assert stop_file.exists()
        send(number)
        send(signal.SIGINT)  # as the display does when it finds its terminal closed
    assert len(lines) == 1
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.reported
@TERMINATING
def test_the_sweep_ends_although_the_trials_do_not_save_their_state(
    stop_file: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interrupts, "_GRACE", 0.01)

    def wait() -> None:
        with interrupts.handle_interrupts(stop_file, LocalOnly(), print):
            send(number)
            time.sleep(600)

    with pytest.raises(KeyboardInterrupt):
        wait()


def test_the_second_interrupt_ends_the_sweep_and_the_first_one_does_not(stop_file: Path) -> None:
    lines: list[str] = []

    def interrupt(times: int) -> None:
        with interrupts.handle_interrupts(stop_file, LocalOnly(), lines.append):
            for _ in range(times):
                send(signal.SIGINT)

    interrupt(1)
    stop_file.unlink()
    with pytest.raises(KeyboardInterrupt):
        interrupt(2)
    assert len(lines) == 2


def test_a_stop_request_that_cannot_be_written_raises_nothing(tmp_path: Path) -> None:
    missing = tmp_path / "removed" / "stop"
    with interrupts.handle_interrupts(missing, LocalOnly(), print):
        send(signal.SIGTERM)


@TERMINATING
def test_before_the_trials_start_the_first_signal_interrupts_and_others_are_ignored(
    number: int,
) -> None:
    interrupts.handle_terminating(interrupts.interrupt_once)
    with pytest.raises(KeyboardInterrupt):
        send(number)
    send(number)


def remove_in_c(number: int, _: object) -> None:
    ctypes.CDLL(None).signal(number, 0)  # SIG_DFL; Python does not notice it


@TERMINATING
@pytest.mark.parametrize("remove", [signal.signal, remove_in_c])
@pytest.mark.reported
def test_a_signal_while_ray_starts_or_ends_is_handled_by_the_handler_of_the_sweep(
    number: int, remove: Callable[[int, object], object]
) -> None:
    def start() -> None:
        with interrupts.shield():
            remove(number, signal.SIG_DFL)
            send(number)

    interrupts.handle_terminating(interrupts.interrupt_once)
    with pytest.raises(KeyboardInterrupt):
        start()


def test_an_ignored_hangup_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interrupts.handle_terminating(interrupts.interrupt_once)
    send(signal.SIGHUP)
    assert signal.getsignal(signal.SIGTERM) is interrupts.interrupt_once


# Starts a process that starts another one and ends, as Ray's raylet does with its workers.
PARENT = "import subprocess, sys\nsubprocess.Popen(['sleep', '600'])\nsys.exit()\n"


def test_processes_that_are_started_while_the_signals_are_blocked_survive_them() -> None:
    with interrupts.block_terminating():
        process = subprocess.Popen(["sleep", "600"])
    try:
        for number in interrupts.TERMINATING:
            process.send_signal(number)
        (own,) = [each for each in processes.find_descendants() if each.pid == process.pid]
        assert not processes.wait_for_end([own], 0.2)
        processes.kill([own])
        assert process.wait() == -signal.SIGKILL
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_orphans_of_a_process_are_found_and_ended() -> None:
    code = (
        "import subprocess, sys\n"
        "from lab.execution import processes\n"
        "processes.adopt_orphans()\n"
        f"subprocess.run([sys.executable, '-c', {PARENT!r}], check=True)\n"
        "(orphan,) = processes.find_descendants()\n"
        "processes.kill([orphan])\n"
        "assert processes.wait_for_end([orphan], 60)\n"
        "assert processes.find_descendants() == []\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120, check=True)
