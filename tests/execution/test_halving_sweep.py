"""Successive halving in real Ray: trials pause at the rung, and the best continue, also later."""

import shutil
import signal
import time
from pathlib import Path

import pytest
from sweeps import LIMIT, METRIC, start_sweep, wait_for_exit

from lab.storage import record
from lab.tracking import frames
from lab.tracking.client import default_uri

pytestmark = pytest.mark.slow

HALVING = {
    "compare": "{}",
    "tune": "{optim.lr: {low: 1e-3, high: 1e-2, log: true}}",
    "base__schedule": "{kind: constant, warmup: 0}",
    "base__evaluations": 2,
    "search": "{sampler: grid, trials: 4, seeds: 1, stopping: {kind: halving, first_rung: 0.5}}",
}


def paused(storage: Path) -> list[Path]:
    """Return the records of the trials that have paused."""
    folders = (file.parent for file in storage.glob("trials/*/state"))
    return [folder for folder in folders if record.read_state(folder) == "stopped"]


def test_best_trials_of_a_rung_continue_from_their_checkpoints_after_an_interruption(
    begun_storage: Path, tmp_path: Path
) -> None:
    storage = tmp_path / "storage"
    shutil.copytree(begun_storage, storage)
    with start_sweep(tmp_path, **HALVING) as process:
        until = time.monotonic() + LIMIT
        while not paused(storage) and time.monotonic() < until:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        wait_for_exit(process, tmp_path, 130)
    early = {folder: record.read_curve(folder) for folder in paused(storage)}
    assert early
    with start_sweep(tmp_path, **HALVING) as process:
        wait_for_exit(process, tmp_path, 0)
    trials = frames.load_frames(default_uri(storage), "smoke").trials
    assert sorted(trials["state"]) == ["finished"] * 3 + ["stopped"] * 2
    search = trials[trials["role"] == "search"]
    curves = {name: record.read_curve(storage / "trials" / name) for name in search["fingerprint"]}
    at_rung = search["fingerprint"].map(lambda name: curves[name][1][METRIC])
    assert set(at_rung.nlargest(2)) == set(at_rung[search["state"] == "finished"])
    for name, state in zip(search["fingerprint"], search["state"], strict=True):
        steps = [row["spent/steps"] for row in curves[name]]
        assert steps == sorted(set(steps))
        assert len(steps) == (3 if state == "finished" else 2)
    assert all(record.read_curve(folder)[: len(rows)] == rows for folder, rows in early.items()), (
        "a trial that had paused was trained anew"
    )
