"""Find a trial's record by the trial's name, the record's folder or the name of a sweep."""

import re
from pathlib import Path as File
from typing import TYPE_CHECKING, NamedTuple

from lab.errors import UserError
from lab.storage import identity, record
from lab.storage.mirror import LocalOnly, Mirror

if TYPE_CHECKING:
    from lab.reporting.stats import Answer
    from lab.tracking.frames import SweepFrames

_LOCAL = LocalOnly()
_LISTED = 5  # trials that an error message lists
_NAME = re.compile(r"[0-9a-f]{4,12}")


class FoundTrial(NamedTuple):
    """A trial that a user has named.

    Attributes:
        folder: folder of its record.
        reason: choice of the trial among those of the sweep, in one sentence; empty if the user has
            named the trial itself.
    """

    folder: File
    reason: str = ""


class BestTrial(NamedTuple):
    """The best trial of a sweep.

    Attributes:
        name: name of the trial.
        reason: its setting and score, and whether the sweep separates this setting from the others.
    """

    name: str
    reason: str


def resolve_run(
    run: str, storage: File, uri: str | None = None, mirror: Mirror = _LOCAL
) -> FoundTrial:
    """Return the record of a trial, or of the best trial of a sweep.

    Args:
        run: a trial, as in `resolve_trial`, or the name of a sweep, which selects the best repeat
            of its best setting.
        storage: storage folder, with the records in `trials`.
        uri: URI of the MLflow tracking store with the sweep; None for the database in `storage`.
        mirror: remote copy of the storage, from which the record is pulled.

    Raises:
        UserError: no trial or more than one trial matches; the message lists existing trials.
    """
    trials = storage / "trials"
    found = _find_trial(run, trials, mirror)
    if found is not None:
        return FoundTrial(found)
    if File(run).name != run:
        raise _no_trial(run, trials)
    from lab.tracking.client import default_uri

    return _find_best_of_sweep(run, storage, uri or default_uri(storage), mirror)


def resolve_trial(name: str, storage: File, mirror: Mirror = _LOCAL) -> File:
    """Return the folder of a trial's record.

    Args:
        name: a trial's name or a unique beginning of it, or the path of a record.
        storage: storage folder, with the records in `trials`.
        mirror: remote copy of the storage, from which the record is pulled.

    Raises:
        UserError: no trial or more than one trial matches; the message lists existing trials.
    """
    trials = storage / "trials"
    found = _find_trial(name, trials, mirror)
    if found is None:
        raise _no_trial(name, trials)
    return found


def is_name(text: str) -> bool:
    """Return whether a text can be the name of a trial or the beginning of one."""
    return _NAME.fullmatch(text) is not None


def _find_trial(run: str, trials: File, mirror: Mirror) -> File | None:
    """Return the folder of the trial's record; None if no trial matches."""
    if (File(run) / "trial.json").is_file():
        return File(run)
    if _NAME.fullmatch(run):
        mirror.pull(trials / run)
    if File(run).name == run and (trials / run / "trial.json").is_file():
        return trials / run
    matches = _starting_with(run, trials)
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UserError(f"{run}: begins the names of {_list(matches)}; write more of it")
    return None


def _no_trial(run: str, trials: File) -> UserError:
    return UserError(f"{run}: no trial in {trials}; there is {_list(_all(trials))}")


def find_best_trial(frames: "SweepFrames") -> BestTrial | None:
    """Return the best repeat of a sweep's best setting, and why; None without a score."""
    from lab.reporting import stats

    answer = stats.compute_answer(frames)
    if answer is None:
        return None
    runs = stats.scored_trials(frames)
    best_cell = runs[runs["cell"] == answer.cells[0].label]
    ranked = best_cell.sort_values(
        "score", ascending=frames.metric.direction == "minimize", kind="stable"
    )
    first, trials = ranked.iloc[0], len(ranked)
    chosen = f"the best of its {trials} trials" if trials > 1 else "its only trial with a score"
    reason = (
        f"trial {first['number']}, {frames.metric.name} {first['score']:.4f}, {chosen} of the "
        f"setting with the best mean, {answer.cells[0].label}; {_describe_separation(answer)}"
    )
    return BestTrial(str(first["fingerprint"]), reason)


def _describe_separation(answer: "Answer") -> str:
    """Return whether the best setting is significantly better than all others."""
    if len(answer.cells) == 1:
        return "no other setting has a score"
    others = len(answer.cells) - 1
    if answer.separable:
        rest = f"{others} other settings" if others > 1 else "the other setting"
        return f"the sweep separates it from {rest}"
    tied = answer.tied_labels[1:]
    shown = "; ".join(tied[:_LISTED]) + (
        f" and {len(tied) - _LISTED} more" if len(tied) > _LISTED else ""
    )
    return f"the sweep does not separate it from {shown}: these settings tie"


def _find_best_of_sweep(name: str, storage: File, uri: str, mirror: Mirror) -> FoundTrial:
    from lab.tracking import frames  # the import takes seconds; names of trials do not need it

    trials = storage / "trials"
    mirror.pull(storage / identity.NAME)
    try:
        table = frames.load_frames(uri, name, storage=identity.read_identity(storage))
        trial = find_best_trial(table)
    except frames.FramesError as error:
        raise UserError(
            f"{name}: neither a trial in {trials}, where there is {_list(_all(trials))}, "
            f"nor a sweep ({error})"
        ) from None
    if trial is None:
        raise UserError(f"{name}: no trial of that sweep has finished")
    folder = trials / trial.name
    mirror.pull(folder)
    if not (folder / "trial.json").is_file():
        raise UserError(f"{name}: its best trial is {trial.name}, whose record is not in {trials}")
    return FoundTrial(folder, f"sweep {name}: {trial.reason}")


def _starting_with(run: str, trials: File) -> list[File]:
    if not _NAME.fullmatch(run):
        return []
    return [folder for folder in _all(trials) if folder.name.startswith(run)]


def _all(trials: File) -> list[File]:
    return sorted(
        file.parent for file in trials.glob("*/trial.json") if record.read_facts(file.parent)
    )


def _list(folders: list[File]) -> str:
    if not folders:
        return "none yet"
    more = f" and {len(folders) - _LISTED} more" if len(folders) > _LISTED else ""
    return ", ".join(folder.name for folder in folders[:_LISTED]) + more
