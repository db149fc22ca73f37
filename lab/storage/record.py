"""The record of a trial on disk: a folder named by the trial's fingerprint.

`trial.json` contains the trial, `state` its state, `curve.jsonl` the scored points so far,
`provenance.json` the code that computed them and `outcome.json` the result. `blocks.json` contains
the contributions of the blocks of a test set to the newest scores, and to those at step 0. Files
are replaced atomically (points are appended to the curve), and `state` is written last. So a record
in a final state is complete, and its trial is not trained again. MLflow and Optuna are filled from
these files.

JSON files, and each line of the curve, have a seal (`lab.storage.sealed`). Damaged content is read
as missing content: a record whose outcome or points are damaged has no outcome, and its trial runs
again. `lab.storage.record_damage` names the damaged files.
"""

import json
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path as File
from typing import Any, get_args

from pydantic import TypeAdapter

from lab import disk_space
from lab.config.metrics import untrained_name
from lab.config.results import MetricRow, Outcome, State
from lab.config.trial import Trial
from lab.errors import UserError
from lab.storage import atomic, regular_files, sealed

CURVE = "curve.jsonl"  # the scored points
LOG = "log.jsonl"  # log records of the trial's process (`lab.trials.process_log`)
ORIGIN = "origin.json"  # the shorter run that the trial was extended from
CHARGED = "charged_to.json"  # of a part of a trunk: the trial that is charged for it
# The files of a record except checkpoints, fine-tuning results and progress.
CORE_FILES = (
    "trial.json",
    "state",
    CURVE,
    "blocks.json",
    "provenance.json",
    "outcome.json",
    "traceback.txt",
    ORIGIN,
    CHARGED,
    LOG,
)
_OPEN: tuple[State, ...] = ("queued", "running")
# Keys of a stored outcome that earlier versions named differently.
_RENAMED_KEYS = {"began": "started_at", "tries": "attempts"}


def write_queued(folder: File, trial: Trial, lineage: str = "", text: str = "") -> None:
    """Create a record, or reopen that of a run to be continued; set the state to `queued`.

    Args:
        folder: folder of the record.
        trial: trial of the record.
        lineage: hash of the trial without the amount of its budget; equal for all trials that
            differ from it only in that amount.
        text: name of the prepared text's folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_facts(folder, trial, lineage, text)
    atomic.write_text(folder / "state", "queued")


def write_facts(folder: File, trial: Trial, lineage: str, text: str) -> None:
    """Write `trial.json`; the arguments are those of `write_queued`."""
    content = {"trial": asdict(trial), "lineage": lineage, "text": text}
    sealed.write(folder / "trial.json", content, indent=2)


def begin_record(folder: File, trial: Trial, lineage: str = "", text: str = "") -> None:
    """Set the state to `running`; create the record first if it does not exist.

    The arguments are those of `write_queued`.
    """
    if not (folder / "trial.json").exists():
        write_queued(folder, trial, lineage, text)
    atomic.write_text(folder / "state", "running")


def read_trial(folder: File) -> tuple[Trial, str]:
    """Return the trial of a record and the name of its prepared text's folder.

    Raises:
        UserError: there is no record, or another version of the lab wrote it.
    """
    file = folder / "trial.json"
    try:
        content = sealed.read(file)
        trial = _trial_type().validate_json(json.dumps(content["trial"]), strict=True)
        return trial, str(content["text"])
    except OSError:
        raise UserError(f"{folder}: no record of a trial") from None
    except sealed.DamagedError as error:
        raise UserError(
            f"{file}: damaged: {error}; run the trial's sweep again, which writes it again"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{file}: not as this version of the lab writes it") from None


@cache
def _trial_type() -> TypeAdapter[Trial]:
    return TypeAdapter(Trial)  # building it takes longer than reading a trial


def read_facts(folder: File) -> dict[str, Any]:
    """Return the content of `trial.json`: `trial`, `lineage` and `text`, unvalidated.

    The result is empty if the file is missing or damaged.
    """
    try:
        return sealed.read(folder / "trial.json")
    except (OSError, sealed.DamagedError):
        return {}


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The shorter run that a trial was extended from.

    Attributes:
        name: name of its record; empty for a trial that was not extended.
        charged_flops: FLOPs of the trial's beginning for which other trials are charged.
    """

    name: str = ""
    charged_flops: float = 0.0


def write_origin(folder: File, origin: Origin) -> None:
    """Store the shorter run that a trial was extended from."""
    sealed.write(folder / ORIGIN, asdict(origin))


def read_origin(folder: File) -> Origin:
    """Return the shorter run that a trial was extended from.

    Raises:
        UserError: the file is damaged.
    """
    origin: Origin = _read_part(folder / ORIGIN, Origin)
    return origin


def delete_origin(folder: File) -> None:
    """Delete the origin of a trial that starts again from its beginning."""
    (folder / ORIGIN).unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class _Charged:
    """The trial that is charged for a part of a trunk."""

    trial: str = ""


def write_charged(folder: File, name: str) -> None:
    """Store the name of the trial that is charged for a part of a trunk.

    Args:
        folder: record of the part.
        name: name of the trial's record.
    """
    sealed.write(folder / CHARGED, asdict(_Charged(trial=name)))


def read_charged(folder: File) -> str:
    """Return the name of the trial that is charged for a part of a trunk; empty if none is.

    Raises:
        UserError: the file is damaged.
    """
    charged: _Charged = _read_part(folder / CHARGED, _Charged)
    return charged.trial


def _read_part(file: File, kind: Any) -> Any:
    """Return the content of a file that few records have; of a missing one, the default."""
    try:
        content = sealed.read(file)
        if content.keys() != {field.name for field in fields(kind)}:
            raise ValueError
        return TypeAdapter(kind).validate_json(json.dumps(content), strict=True)
    except FileNotFoundError:
        return kind()
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
    except sealed.DamagedError as error:
        reason = str(error)
    except ValueError:
        reason = "not as the lab writes it"
    raise UserError(
        f"{file}: damaged: {reason}; add `--fresh {file.parent.name}` to the command of its sweep "
        "to train it again"
    )


def truncate_curve(folder: File, count: int) -> tuple[MetricRow, ...]:
    """Truncate the curve to its first `count` points and return them.

    An interrupted run may have left points that are newer than its checkpoint. The continued run
    scores these points again.
    """
    rows = read_curve(folder)[:count]
    write_rows(folder, rows)
    return rows


def append_row(folder: File, row: MetricRow) -> None:
    """Append a scored point to the curve."""
    with (folder / CURVE).open("a") as curve:
        curve.write(sealed.to_line(row) + "\n")


def amend_last_row(folder: File, more: MetricRow) -> MetricRow:
    """Add entries to the last point of the curve and return the point."""
    *rows, last = read_curve(folder)
    write_rows(folder, (*rows, last | more))
    return last | more


def write_rows(folder: File, rows: Iterable[MetricRow], *, without: Iterable[str] = ()) -> None:
    """Replace the curve.

    Args:
        folder: folder of the record.
        rows: points of the curve.
        without: names of entries to omit, together with all entries below them (`name/...`).
    """
    prefixes = tuple(f"{name}/" for name in without)
    kept_rows = [
        {name: value for name, value in row.items() if not f"{name}/".startswith(prefixes)}
        for row in rows
    ]
    atomic.write_text(folder / CURVE, "\n".join(map(sealed.to_line, kept_rows)))


def write_blocks(folder: File, blocks: Mapping[str, Sequence[float]]) -> None:
    """Write the contributions of the blocks of a test set to the newest scores, by metric.

    Those to the scores at step 0 have the names of `metrics.untrained_name`.
    """
    sealed.write(folder / "blocks.json", blocks)


def no_checkpoint(folder: File) -> UserError:
    """Return the error for a record without a checkpoint that can be read."""
    state = read_state(folder)
    remedy = (
        f"add `--fresh {folder.name}` to the command of its sweep to train it again"
        if state is not None and not is_running(state)
        else "only a trial that has been trained has weights"
    )
    return UserError(
        f"{folder}: no checkpoint that can be read, and its state is {state}; {remedy}"
    )


def read_blocks(folder: File) -> dict[str, list[float]]:
    """Return the contributions that `write_blocks` wrote; empty if missing or damaged."""
    try:
        blocks = sealed.read(folder / "blocks.json")
    except (OSError, sealed.DamagedError):
        return {}
    return blocks if all(isinstance(values, list) for values in blocks.values()) else {}


def read_untrained_blocks(folder: File) -> dict[str, list[float]]:
    """Return those of `read_blocks` to the scores at step 0, with the same names."""
    prefix = untrained_name("")
    return {name: values for name, values in read_blocks(folder).items() if name.startswith(prefix)}


def write_outcome(folder: File, outcome: Outcome) -> Outcome:
    """Write the outcome of a trial and set its final state.

    Returns:
        The outcome. If the disk is full, an outcome `interrupted`, of which only the state is
        written, so that the trial continues from its checkpoint.
    """
    try:
        _write_outcome(folder, outcome)
    except OSError as error:
        if not disk_space.is_disk_full(error):
            raise
        with suppress(OSError), (folder / "state").open("r+") as state:  # needs no new block
            state.write("interrupted\n")
            state.truncate()
        reason = outcome.reason if outcome.state == "interrupted" else ""
        return replace(
            outcome,
            state="interrupted",
            reason=reason or disk_space.describe_full(folder),
            traceback="",
        )
    return outcome


def _write_outcome(folder: File, outcome: Outcome) -> None:
    fields = asdict(outcome) | {"rows": len(outcome.rows)}
    if trace := fields.pop("traceback"):
        atomic.write_text(folder / "traceback.txt", trace)
    else:
        (folder / "traceback.txt").unlink(missing_ok=True)
    sealed.write(folder / "outcome.json", fields, indent=2)
    atomic.write_text(folder / "state", outcome.state)


def delete_record(folder: File) -> None:
    """Delete a record with its checkpoints.

    Raises:
        UserError: a part of it cannot be deleted. The trial would continue from its checkpoints.
    """
    try:
        if folder.is_symlink():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be deleted, to run its trial again: "
            f"{(error.strerror or 'no access').lower()}"
        ) from None


def read_state(folder: File) -> State | None:
    """Return the state of a trial; None if there is no record or its state is damaged."""
    try:
        content = regular_files.read_text(folder / "state", "replace").strip()
    except OSError:
        return None
    return next((state for state in get_args(State) if state == content), None)


def is_running(state: State) -> bool:
    """Return whether a state is `queued` or `running`."""
    return state in _OPEN


def read_outcome(folder: File) -> Outcome | None:
    """Return the outcome of a trial that has ended; None if it has not or the record is damaged."""
    if read_state(folder) in (None, *_OPEN):
        return None
    outcome = read_last_outcome(folder)
    if outcome is None or len(outcome.rows) != _outcome_fields(folder).get("rows"):
        return None
    return outcome


def read_last_outcome(folder: File) -> Outcome | None:
    """Return the latest outcome of a trial, which may be running again; None if there is none.

    The rows are those of the present curve.
    """
    fields, file = _outcome_fields(folder), folder / "traceback.txt"
    failed = fields.get("state") == "failed" and file.is_file()
    fields["traceback"] = regular_files.read_text(file, "replace").strip() if failed else ""
    try:
        return Outcome(**fields | {"rows": read_curve(folder)})
    except TypeError:  # the file is missing or lacks a field
        return None


def _outcome_fields(folder: File) -> dict[str, Any]:
    try:
        fields = sealed.read(folder / "outcome.json")
    except (OSError, sealed.DamagedError):
        return {}
    return {_RENAMED_KEYS.get(key, key): value for key, value in fields.items()}


def count_attempts(folder: File) -> int:
    """Return the number of the present try of a trial: 1 plus the number of failed tries."""
    previous = read_last_outcome(folder)
    if previous is None:
        return 1
    return previous.attempts + (previous.state == "failed")


def read_curve(folder: File) -> tuple[MetricRow, ...]:
    """Return the scored points before the first damaged line.

    A killed process may have left an incomplete last line.
    """
    rows: list[MetricRow] = []
    for line in curve_lines(folder):
        try:
            rows.append(sealed.from_line(line))
        except sealed.DamagedError:
            break
        if not all(type(value) in (int, float) for value in rows[-1].values()):
            rows.pop()
            break
    return tuple(rows)


def curve_lines(folder: File) -> list[str]:
    """Return the lines of the curve, damaged ones included."""
    file = folder / CURVE
    if not file.is_file():
        return []
    return regular_files.read_text(file, "replace").splitlines()


def non_finite_metrics(row: MetricRow) -> str | None:
    """Return the name of the first entry that is NaN or infinite, or None."""
    return next((name for name, value in row.items() if not math.isfinite(value)), None)
