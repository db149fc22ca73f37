"""Faults of records: each file of a finished and of an interrupted trial is damaged, one at a time.

Each of these drills runs the same command about ten times, so they run only if they are named.
"""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.drills.harness import Drill, Result, Workspace
from tests.support.damage import DAMAGE

# Files of which the numbers of a trial do not depend: a sweep need not name their damage.
_SILENT = {"log.jsonl"}


def records_flipped(workspace: Workspace) -> Result:
    """Ctrl-C; then each file of two records gets a flipped bit, one at a time"""
    return _damage_each(workspace, "flipped")


def records_truncated(workspace: Workspace) -> Result:
    """Ctrl-C; then each file of two records is cut in half, one at a time"""
    return _damage_each(workspace, "truncated")


def records_emptied(workspace: Workspace) -> Result:
    """Ctrl-C; then each file of two records is emptied, one at a time"""
    return _damage_each(workspace, "emptied")


def records_removed(workspace: Workspace) -> Result:
    """Ctrl-C; then each file of two records is removed, one at a time"""
    return _damage_each(workspace, "removed")


def _damage_each(workspace: Workspace, kind: str) -> Result:
    """Damage the same file of a finished and of an interrupted trial, and repeat the command.

    MLflow's database is removed as well, so that all numbers of the report come from the records.
    """
    with workspace.sweep() as sweep:
        sweep.until(
            "a finished trial and two in training",
            lambda: workspace.states()["finished"] > 0 and workspace.two_trials_in_training(2),
        )
        os.kill(sweep.pid, signal.SIGINT)
        sweep.wait()
    whole = workspace.folder / "whole"
    workspace.storage.rename(whole)
    for name in _names(whole):
        shutil.rmtree(workspace.storage, ignore_errors=True)
        shutil.copytree(whole, workspace.storage)
        (workspace.storage / "mlflow.db").unlink()
        damaged = [file for file in _files(workspace.storage, name) if file.exists()]
        for file in damaged:
            DAMAGE[kind](file)
        before = len(workspace.problems)
        result = workspace.finish(sweep)
        _check_message(workspace, name)
        new = workspace.problems[before:]
        workspace.problems[before:] = [f"{name}: {problem}" for problem in new]
    return result._replace(again=f"{len(_names(whole))} files: {result.again}")


def _names(storage: Path) -> list[str]:
    """Return the names of the files of records, those of the newest checkpoint included."""
    names = {
        file.name for state in _two_trials(storage) for file in state.glob("*") if file.is_file()
    }
    return [*sorted(names), "state.json", "state.safetensors"]


def _two_trials(storage: Path) -> Iterator[Path]:
    """Yield the record of a finished and of an interrupted trial."""
    for state in ("finished", "interrupted"):
        files = sorted(storage.glob("trials/*/state"))
        yield next(file.parent for file in files if file.read_text().strip() == state)


def _files(storage: Path, name: str) -> Iterator[Path]:
    for trial in _two_trials(storage):
        newest = max(trial.glob("checkpoints/[0-9]*"))
        yield newest / name if name in {"state.json", "state.safetensors"} else trial / name


def _check_message(workspace: Workspace, name: str) -> None:
    """Check that the first repetition has named the damaged file; checkpoints are in the log."""
    if name in _SILENT:
        return
    outputs = sorted(workspace.folder.glob("*.out"), key=lambda file: int(file.stem))
    logs = workspace.storage.glob("logs/*.log")
    text = "".join(file.read_text(errors="replace") for file in (*outputs, *logs))
    workspace.check(
        f": {name} (" in text or f"{name}: " in text, "no message names the damaged file"
    )


DRILLS: dict[str, Drill] = {
    "records-flipped": records_flipped,
    "records-truncated": records_truncated,
    "records-emptied": records_emptied,
    "records-removed": records_removed,
}
