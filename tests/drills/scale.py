"""Scale of a sweep: a thousand trials. It takes an hour or more, so it runs only if it is named."""

import os
import signal
import time
from pathlib import Path

from tests.drills.harness import Drill, Result, Sweep, Workspace, rows

_TRIALS = 1_000
_LIMIT = 4 * 3_600.0  # seconds for a part of the sweep


def thousand_trials(workspace: Workspace) -> Result:
    """`kill -9` of the driver after 300 of 1,000 trials; at the end MLflow's database is deleted"""
    workspace.space = Path(__file__).parent / "thousand.yaml"
    with workspace.sweep() as first:
        first.until("300 ended trials", lambda: workspace.states().total() >= 300, _LIMIT)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    with workspace.sweep() as rest:
        rest.wait()
        workspace.check(rest.status == 0, f"the same command ended with {rest.summary}")
    expected = rows(workspace.reports / "trials.csv")
    workspace.check(len(expected) == _TRIALS, f"{len(expected)} trials in the report")
    finished = sum(row["state"] == "finished" for row in expected)
    workspace.check(finished == _TRIALS, f"{finished} finished trials")
    resumed, seconds = _repeat(workspace)
    (workspace.storage / "mlflow.db").unlink()
    filled, filled_seconds = _repeat(workspace)
    for each in (resumed, filled):
        workspace.check(each.status == 0, f"the same command ended with {each.summary}")
        workspace.check("] started" not in each.out, "a finished trial was trained again")
    actual = rows(workspace.reports / "trials.csv")
    workspace.check(actual == expected, "the report from the records alone is another one")
    return Result(
        first=first.summary,
        again=f"{finished} finished; resumed in {seconds:.0f} s, without MLflow's database in "
        f"{filled_seconds:.0f} s",
        equal="yes" if actual == expected else "no",
        problems=workspace.problems,
    )


def _repeat(workspace: Workspace) -> tuple[Sweep, float]:
    """Run the same command, which trains nothing; return it and its duration in seconds."""
    began = time.monotonic()
    with workspace.sweep() as sweep:
        sweep.wait()
    return sweep, time.monotonic() - began


DRILLS: dict[str, Drill] = {"thousand-trials": thousand_trials}
