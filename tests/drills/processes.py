"""Processes that are killed, interrupted, started twice or told a wrong time."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.drills.harness import ROOT, Drill, Place, Result, Sweep

_TRIAL = r"^ray::ImplicitFunc\.train"  # a worker of Ray that runs Tune's function
_AGENT = r"^ray::RuntimeEnvAgent"  # serves the raylet, which ends without it
_RAYLET = r"/raylet/raylet "
# As `ray start` does it, of whatever the driver's process asks for itself.
_NODES = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
_TOLD_LAST = 20.0  # seconds within which a stop must have happened


def actor_killed(place: Place) -> Result:
    """`kill -9` of one trial's process"""
    return _one_killed(place, _TRIAL)


def agent_killed(place: Place) -> Result:
    """`kill -9` of the node's agent, without which the raylet ends too"""
    return _one_killed(place, _AGENT)


def driver_killed(place: Place) -> Result:
    """`kill -9` of the driver"""
    with place.sweep() as sweep:
        sweep.until("two trials in the middle", place.in_the_middle)
        os.kill(sweep.pid, signal.SIGKILL)
        sweep.wait()
    return place.finish(sweep)


def raylet_killed(place: Place) -> Result:
    """`kill -9` of the node's raylet"""
    return _one_killed(place, _RAYLET)


def node_killed(place: Place) -> Result:
    """`kill -9` of one of a cluster's two raylets"""
    nodes = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "two_nodes.py")],
        env=os.environ | _NODES,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert nodes.stdin is not None
    assert nodes.stdout is not None
    try:
        place.address = nodes.stdout.readline().strip()
        with place.sweep() as sweep:
            sweep.until("two trials in the middle", place.in_the_middle)
            os.kill(_second_raylet(place.address), signal.SIGKILL)
            sweep.wait()
            place.check(sweep.status == 0, f"the other node does not go on: {sweep.told}")
        return place.finish(sweep)
    finally:
        nodes.stdin.close()
        nodes.wait()


def _second_raylet(address: str) -> int:
    """Return the process of the raylet that is not the head's, of the cluster at an address."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended
        second = words[0].endswith(b"/raylet/raylet") and b"--head" not in words
        if second and any(address.encode() in word for word in words):
            return int(process.name)
    raise AssertionError("the second node was not found")


def interrupted(place: Place) -> Result:
    """Ctrl-C once, to the driver alone"""
    with place.sweep() as sweep:
        sweep.until("two trials in the middle", place.in_the_middle)
        os.kill(sweep.pid, signal.SIGINT)
        _stopped(place, sweep)
    place.check(place.states()["interrupted"] == 2, f"the records say {dict(place.states())}")
    return place.finish(sweep)


def interrupted_in_terminal(place: Place) -> Result:
    """Ctrl-C once, to the whole process group as a terminal sends it"""
    with place.sweep() as sweep:
        sweep.until("two trials in the middle", place.in_the_middle)
        os.killpg(sweep.pid, signal.SIGINT)
        _stopped(place, sweep)
    place.check(place.states()["interrupted"] == 2, f"the records say {dict(place.states())}")
    return place.finish(sweep)


def interrupted_twice(place: Place) -> Result:
    """Ctrl-C twice"""
    with place.sweep() as sweep:
        sweep.until("two trials in the middle", place.in_the_middle)
        os.kill(sweep.pid, signal.SIGINT)
        sweep.until("word of the first Ctrl-C", lambda: "stopping:" in sweep.out)
        os.kill(sweep.pid, signal.SIGINT)
        _stopped(place, sweep)
    return place.finish(sweep)


def two_at_once(place: Place) -> Result:
    """the same command in a second terminal"""
    with place.sweep() as sweep:
        sweep.until("two trials in the middle", place.in_the_middle)
        began = time.monotonic()
        with place.sweep() as second:
            second.wait()
        seconds = time.monotonic() - began
        place.check(second.status == 2, f"the second ended with {second.told}")
        place.check(str(sweep.pid) in second.err, f"it does not say who has it: {second.told}")
        place.check(len(second.err.splitlines()) == 1, "it says more than one line")
        place.check(seconds < _TOLD_LAST, f"the second took {seconds:.0f} s to end")
        sweep.wait()
        place.check(sweep.status == 0, f"the first ended with {sweep.told}")
    return place.finish(sweep)


def clock_set_back(place: Place) -> Result:
    """Python's clock goes back an hour in the middle, in all processes"""
    with place.sweep(fault="clock", at=time.time() + 25) as sweep:
        sweep.wait()
        place.check(sweep.status == 0, f"status {sweep.status}")
        place.check(not re.search(r"(in|about) -", sweep.out), "a negative duration is shown")
    return place.finish(sweep)


def _one_killed(place: Place, pattern: str) -> Result:
    """Kill one of Ray's processes; the sweep may go on, or end with one line."""
    with place.sweep() as sweep:
        sweep.until("two trials in the middle", place.in_the_middle)
        found = sweep.find(pattern)
        assert found, f"no process {pattern!r} was found"
        os.kill(found[0], signal.SIGKILL)
        sweep.wait()
        place.check(sweep.status in {0, 1, 2}, f"status {sweep.status}")
    return place.finish(sweep)


def _stopped(place: Place, sweep: Sweep) -> None:
    """Wait for a sweep that was told to stop, and see that it did so as promised."""
    began = time.monotonic()
    sweep.wait()
    seconds = time.monotonic() - began
    place.check(seconds < _TOLD_LAST + 10, f"it took {seconds:.0f} s to stop")
    place.check(sweep.status == 130, f"status {sweep.status}, not 130")
    place.check(place.stored()["running"] == 0, f"MLflow says {dict(place.stored())}")
    place.check(place.stored()["interrupted"] == 3, f"MLflow says {dict(place.stored())}")


DRILLS: dict[str, Drill] = {
    "actor-killed": actor_killed,
    "driver-killed": driver_killed,
    "agent-killed": agent_killed,
    "raylet-killed": raylet_killed,
    "node-killed": node_killed,
    "ctrl-c": interrupted,
    "ctrl-c-terminal": interrupted_in_terminal,
    "ctrl-c-twice": interrupted_twice,
    "two-sweeps": two_at_once,
    "clock-back": clock_set_back,
}
