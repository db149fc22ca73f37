"""Which trial a person means: by its name, by its folder, or as the best of a sweep."""

import re
from pathlib import Path as File
from typing import TYPE_CHECKING

from lab.errors import UserError
from lab.storage import record
from lab.storage.mirror import LocalOnly, Mirror

if TYPE_CHECKING:
    from lab.tracking.frames import SweepFrames

_HERE = LocalOnly()
_FEW = 5
_NAME = re.compile(r"[0-9a-f]{4,12}")


def resolve_run(run: str, storage: File, uri: str | None = None, mirror: Mirror = _HERE) -> File:
    """Return the folder of a trial's record.

    Args:
        run: a trial's name or enough of its beginning, the path of a record, or the name of a
            sweep, which stands for the best repeat of its best setting.
        storage: where the records are.
        uri: of the MLflow store that knows the sweeps; without one no sweep's name is known.
        mirror: brings a record whose whole name is known.

    Raises:
        UserError: none is meant by that, or several; says what there is.
    """
    if (File(run) / "trial.json").is_file():
        return File(run)
    trials = storage / "trials"
    if _NAME.fullmatch(run):
        mirror.pull(trials / run)
    if File(run).name == run and (trials / run / "trial.json").is_file():
        return trials / run
    found = _beginning(run, trials)
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{run}: begins the names of {_listed(found)}; write more of it")
    if uri is None or File(run).name != run:
        raise UserError(f"{run}: no trial in {trials}; there is {_listed(_all(trials))}")
    return _of_sweep(run, trials, uri, mirror)


def find_best_trial(frames: "SweepFrames") -> str | None:
    """Return the name of the best repeat of a sweep's best setting; None before any has ended."""
    from lab.reporting import stats

    answer = stats.compute_answer(frames)
    if answer is None:
        return None
    runs = stats.scored_trials(frames)
    mine = runs[runs["cell"] == answer.cells[0].label]
    order = mine.sort_values(
        "score", ascending=frames.metric.direction == "minimize", kind="stable"
    )
    return str(order.iloc[0]["fingerprint"])


def _of_sweep(name: str, trials: File, uri: str, mirror: Mirror) -> File:
    from lab.tracking import frames  # it takes seconds, and most names need none of it

    try:
        trial = find_best_trial(frames.load_frames(uri, name))
    except frames.FramesError as error:
        raise UserError(
            f"{name}: neither a trial in {trials}, where there is {_listed(_all(trials))}, "
            f"nor a sweep ({error})"
        ) from None
    if trial is None:
        raise UserError(f"{name}: no trial of that sweep has finished")
    mirror.pull(trials / trial)
    if not (trials / trial / "trial.json").is_file():
        raise UserError(f"{name}: its best trial is {trial}, whose record is not in {trials}")
    return trials / trial


def _beginning(run: str, trials: File) -> list[File]:
    if not _NAME.fullmatch(run):
        return []
    return [folder for folder in _all(trials) if folder.name.startswith(run)]


def _all(trials: File) -> list[File]:
    return sorted(
        file.parent for file in trials.glob("*/trial.json") if record.read_facts(file.parent)
    )


def _listed(folders: list[File]) -> str:
    if not folders:
        return "none yet"
    more = f" and {len(folders) - _FEW} more" if len(folders) > _FEW else ""
    return ", ".join(folder.name for folder in folders[:_FEW]) + more
