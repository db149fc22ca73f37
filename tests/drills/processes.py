"""Faults of processes: kills, interrupts, a second sweep and a clock that is set back."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.drills.harness import LIMIT, ROOT, Drill, Result, Sweep, Workspace

_TRIAL = r"^ray::ImplicitFunc\.train"  # worker process of Ray Tune
_AGENT = r"^ray::RuntimeEnvAgent"  # the raylet exits if this agent is gone
_RAYLET = r"/raylet/raylet "
# Settings with which `ray start` can run several nodes on one machine, without usage statistics.
_NODES = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
_GONE_LIMIT = 15.0  # seconds until the processes of a terminated sweep must be gone
_PAUSE = 20.0  # seconds for which the driver is stopped
_STOP_LIMIT = 20.0  # seconds within which a sweep must stop


def actor_killed(workspace: Workspace) -> Result:
    """`kill -9` of the process of one trial"""
    return _one_killed(workspace, _TRIAL)


def agent_killed(workspace: Workspace) -> Result:
    """`kill -9` of the node's agent, upon which the raylet exits"""
    return _one_killed(workspace, _AGENT)


def driver_killed(workspace: Workspace) -> Result:
    """`kill -9` of the driver"""
    with workspace.sweep() as sweep:
        sweep.until("two trials in training", workspace.two_trials_in_training)
        os.kill(sweep.pid, signal.SIGKILL)
        sweep.wait()
    return workspace.finish(sweep)


def raylet_killed(workspace: Workspace) -> Result:
    """`kill -9` of the node's raylet"""
    return _one_killed(workspace, _RAYLET)


def driver_paused(workspace: Workspace) -> Result:
    """SIGSTOP of the driver for 20 s, as by Ctrl-Z or a machine that sleeps, then SIGCONT"""
    with workspace.sweep() as sweep:
        sweep.until("two trials in training", workspace.two_trials_in_training)
        os.kill(sweep.pid, signal.SIGSTOP)
        time.sleep(_PAUSE)
        workspace.check(sweep.status is None, f"the paused sweep ended with {sweep.summary}")
        os.kill(sweep.pid, signal.SIGCONT)
        sweep.wait()
        workspace.check(sweep.status == 0, f"the sweep ended with {sweep.summary}")
    return workspace.finish(sweep)


def node_killed(workspace: Workspace) -> Result:
    """`kill -9` of one of the two raylets of a cluster"""
    nodes = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "support" / "two_nodes.py")],
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
        workspace.address = nodes.stdout.readline().strip()
        with workspace.sweep() as sweep:
            sweep.until("two trials in training", workspace.two_trials_in_training)
            os.kill(_second_raylet(workspace.address), signal.SIGKILL)
            sweep.wait()
            workspace.check(sweep.status == 0, f"the other node does not continue: {sweep.summary}")
        return workspace.finish(sweep)
    finally:
        nodes.stdin.close()
        nodes.wait()


def _second_raylet(address: str) -> int:
    """Return the process id of the raylet of a cluster's second node, which is not its head."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # the process has ended
        second = words[0].endswith(b"/raylet/raylet") and b"--head" not in words
        if second and any(address.encode() in word for word in words):
            return int(process.name)
    raise AssertionError("the second node was not found")


def interrupted(workspace: Workspace) -> Result:
    """Ctrl-C once, sent to the driver alone"""
    with workspace.sweep() as sweep:
        sweep.until("two trials in training", workspace.two_trials_in_training)
        os.kill(sweep.pid, signal.SIGINT)
        _check_stop(workspace, sweep)
    workspace.check(
        workspace.states()["interrupted"] == 2, f"states of the records: {dict(workspace.states())}"
    )
    return workspace.finish(sweep)


def interrupted_in_terminal(workspace: Workspace) -> Result:
    """Ctrl-C once, sent to the whole process group as by a terminal"""
    with workspace.sweep() as sweep:
        sweep.until("two trials in training", workspace.two_trials_in_training)
        os.killpg(sweep.pid, signal.SIGINT)
        _check_stop(workspace, sweep)
    workspace.check(
        workspace.states()["interrupted"] == 2, f"states of the records: {dict(workspace.states())}"
    )
    return workspace.finish(sweep)


def terminated_group(workspace: Workspace) -> Result:
    """SIGTERM to the whole process group, Ray's processes included, as by `timeout`"""
    return _group_stopped(workspace, signal.SIGTERM)


def hung_up_group(workspace: Workspace) -> Result:
    """SIGHUP to the whole process group, Ray's processes included, as by a closed terminal"""
    return _group_stopped(workspace, signal.SIGHUP)


def control_process_killed(workspace: Workspace) -> Result:
    """`kill -9` of Ray's control process (gcs_server)"""
    with workspace.sweep() as sweep:
        sweep.until("two trials in training", workspace.two_trials_in_training)
        (control,) = sweep.find(r"/gcs_server ")
        os.kill(control, signal.SIGKILL)
        workspace.check(sweep.ends(_STOP_LIMIT), f"runs {_STOP_LIMIT:.0f} s later")
        sweep.wait()
        workspace.check(sweep.status == 1, f"status {sweep.status}")
        lines = sweep.err.splitlines()
        workspace.check(len(lines) == 1, f"{len(lines)} lines of error")
        workspace.check("control process of Ray" in sweep.err, f"the error is {sweep.err!r}")
        workspace.check(_running_records(workspace) == 0, "a record is left `running`")
        workspace.check(
            bool(list(workspace.storage.glob("logs/ray-*/gcs_server*"))), "no log of Ray is kept"
        )
    return workspace.finish(sweep)


def killed_at_start(workspace: Workspace) -> Result:
    """`kill -9` of the driver while MLflow's database is being made"""
    partial = workspace.storage / ".partial-mlflow.db"
    with workspace.sweep() as sweep:
        sweep.until(
            "tables in the database", lambda: partial.exists() and partial.stat().st_size > 0
        )
        os.kill(sweep.pid, signal.SIGKILL)
        sweep.wait()
        workspace.check(not (workspace.storage / "mlflow.db").exists(), "mlflow.db is half made")
    return workspace.finish(sweep)


def _group_stopped(workspace: Workspace, number: signal.Signals) -> Result:
    with workspace.sweep() as sweep:
        sweep.until("two trials in training", workspace.two_trials_in_training)
        os.killpg(sweep.pid, number)
        began = time.monotonic()
        while sweep.alive() and time.monotonic() - began < LIMIT:
            time.sleep(0.1)
        seconds = time.monotonic() - began
        workspace.check(seconds < _GONE_LIMIT, f"the processes took {seconds:.0f} s to end")
        _check_stop(workspace, sweep)
    workspace.check(
        workspace.states()["interrupted"] == 2, f"states of the records: {dict(workspace.states())}"
    )
    workspace.check(_running_records(workspace) == 0, "a record is left `running`")
    return workspace.finish(sweep)


def _running_records(workspace: Workspace) -> int:
    states = workspace.storage.glob("trials/*/state")
    return sum(state.read_text().strip() == "running" for state in states)


def interrupted_twice(workspace: Workspace) -> Result:
    """Ctrl-C twice"""
    with workspace.sweep() as sweep:
        sweep.until("two trials in training", workspace.two_trials_in_training)
        os.kill(sweep.pid, signal.SIGINT)
        sweep.until("the message of the first Ctrl-C", lambda: "stopping:" in sweep.out)
        os.kill(sweep.pid, signal.SIGINT)
        _check_stop(workspace, sweep)
    return workspace.finish(sweep)


def two_at_once(workspace: Workspace) -> Result:
    """the same command in a second terminal"""
    with workspace.sweep() as sweep:
        sweep.until("two trials in training", workspace.two_trials_in_training)
        began = time.monotonic()
        with workspace.sweep() as second:
            second.wait()
        seconds = time.monotonic() - began
        workspace.check(second.status == 2, f"the second sweep ended with {second.summary}")
        named = str(sweep.pid) in second.err
        workspace.check(named, f"the error does not name the first process: {second.summary}")
        workspace.check(len(second.err.splitlines()) == 1, "the error has more than one line")
        workspace.check(seconds < _STOP_LIMIT, f"the second sweep took {seconds:.0f} s to end")
        sweep.wait()
        workspace.check(sweep.status == 0, f"the first sweep ended with {sweep.summary}")
    return workspace.finish(sweep)


def clock_set_back(workspace: Workspace) -> Result:
    """Python's clock is set back by an hour during training, in all processes"""
    with workspace.sweep(fault="clock", at=time.time() + 25) as sweep:
        sweep.wait()
        workspace.check(sweep.status == 0, f"status {sweep.status}")
        workspace.check(
            not re.search(r"(in|about) -", sweep.out), "the output has a negative duration"
        )
    return workspace.finish(sweep)


def _one_killed(workspace: Workspace, pattern: str) -> Result:
    """Kill one of Ray's processes; the sweep may continue, or end with one line."""
    with workspace.sweep() as sweep:
        sweep.until("two trials in training", workspace.two_trials_in_training)
        processes = sweep.find(pattern)
        assert processes, f"no process matches {pattern!r}"
        os.kill(processes[0], signal.SIGKILL)
        sweep.wait()
        workspace.check(sweep.status in {0, 1, 2}, f"status {sweep.status}")
    return workspace.finish(sweep)


def _check_stop(workspace: Workspace, sweep: Sweep) -> None:
    """Wait for an interrupted sweep; check its duration, its status and the states in MLflow."""
    began = time.monotonic()
    sweep.wait()
    seconds = time.monotonic() - began
    workspace.check(seconds < _STOP_LIMIT + 10, f"the sweep took {seconds:.0f} s to stop")
    workspace.check(sweep.status == 130, f"status {sweep.status}, not 130")
    workspace.check(
        workspace.stored()["running"] == 0, f"states in MLflow: {dict(workspace.stored())}"
    )
    workspace.check(
        workspace.stored()["interrupted"] == 3, f"states in MLflow: {dict(workspace.stored())}"
    )


DRILLS: dict[str, Drill] = {
    "actor-killed": actor_killed,
    "driver-killed": driver_killed,
    "driver-paused": driver_paused,
    "agent-killed": agent_killed,
    "raylet-killed": raylet_killed,
    "node-killed": node_killed,
    "ctrl-c": interrupted,
    "ctrl-c-terminal": interrupted_in_terminal,
    "sigterm-group": terminated_group,
    "sighup-group": hung_up_group,
    "gcs-killed": control_process_killed,
    "killed-at-start": killed_at_start,
    "ctrl-c-twice": interrupted_twice,
    "two-sweeps": two_at_once,
    "clock-back": clock_set_back,
}
