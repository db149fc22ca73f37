"""The durable record of a trial: a folder named by its fingerprint.

`trial.json` says what was asked, `read_state` where it stands, `curve.jsonl` holds each scored point
from the moment it is reached, and `outcome.json` says how it ended. Each is written in one piece,
the state last, so a record that says it has ended is complete, and its trial is not trained again.
MLflow and Optuna are filled from these files.
"""

import json
import math
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path as File
from typing import Any, get_args

from pydantic import TypeAdapter

from lab.config.results import MetricRow, Outcome, State
from lab.config.trial import Trial
from lab.errors import UserError

SMALL = ("trial.json", "state", "curve.jsonl", "outcome.json", "origin")  # all but checkpoints
_OPEN: tuple[State, ...] = ("queued", "running")


def write_queued(folder: File, trial: Trial, lineage: str = "", text: str = "") -> None:
    """Open a record, or open it again where a run goes on: it waits for its slot.

    Args:
        folder: of the record.
        trial: what it is of.
        lineage: names all trials that differ from it in the budget's amount alone.
        text: name of the prepared text's folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stop_file(folder).unlink(missing_ok=True)
    asked = {"trial": asdict(trial), "lineage": lineage, "text": text}
    write_json(folder / "trial.json", json.dumps(asked, indent=2))
    write_json(folder / "state", "queued")


def begin_record(folder: File, trial: Trial, lineage: str = "", text: str = "") -> None:
    """Say that a trial has its slot and runs."""
    if not (folder / "trial.json").exists():
        write_queued(folder, trial, lineage, text)
    write_json(folder / "state", "running")


def read_trial(folder: File) -> tuple[Trial, str]:
    """Return what a record is of, and the name of its prepared text's folder.

    Raises:
        UserError: there is no record, or it is of another version.
    """
    file = folder / "trial.json"
    try:
        found = json.loads(file.read_text())
        trial = TypeAdapter(Trial).validate_json(json.dumps(found["trial"]), strict=True)
        return trial, str(found["text"])
    except FileNotFoundError:
        raise UserError(f"{folder}: no record of a trial") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{file}: not as this version of the lab writes it") from None


def read_facts(folder: File) -> dict[str, Any]:
    """Return `trial`, `lineage` and `text` of `trial.json`; nothing where it is not whole."""
    try:
        found = json.loads((folder / "trial.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_origin(folder: File, name: str) -> None:
    """Say which shorter run a trial goes on from."""
    write_json(folder / "origin", name)


def read_origin(folder: File) -> str:
    """Return which shorter run a trial goes on from; empty where it began by itself."""
    file = folder / "origin"
    return file.read_text().strip() if file.exists() else ""


def keep_rows(folder: File, count: int) -> tuple[MetricRow, ...]:
    """Keep the first `count` points; what a run that was cut off left after them is taken again."""
    rows = read_curve(folder)[:count]
    write_rows(folder, rows)
    return rows


def append_row(folder: File, row: MetricRow) -> None:
    """Add a scored point to the curve."""
    with (folder / "curve.jsonl").open("a") as curve:
        curve.write(json.dumps(row) + "\n")


def amend_last_row(folder: File, more: MetricRow) -> MetricRow:
    """Add numbers to the last point, which is returned."""
    *rows, last = read_curve(folder)
    write_rows(folder, (*rows, last | more))
    return last | more


def write_rows(folder: File, rows: Iterable[MetricRow], *, without: Iterable[str] = ()) -> None:
    """Write the whole curve.

    Args:
        folder: of the record.
        rows: its points.
        without: names of numbers to leave out, with all that stands below them (`name/...`).
    """
    left = tuple(f"{name}/" for name in without)
    kept = [{n: v for n, v in row.items() if not f"{n}/".startswith(left)} for row in rows]
    write_json(folder / "curve.jsonl", "\n".join(json.dumps(row) for row in kept))


def write_outcome(folder: File, outcome: Outcome) -> None:
    """Complete the record."""
    fields = asdict(outcome) | {"rows": len(outcome.rows)}
    write_json(folder / "outcome.json", json.dumps(fields, indent=2))
    write_json(folder / "state", outcome.state)


def forget(folder: File) -> None:
    """Remove a record with all that belongs to it."""
    shutil.rmtree(folder, ignore_errors=True)


def read_state(folder: File) -> State | None:
    """Return where a trial stands; None where it was never asked for."""
    try:
        said = (folder / "state").read_text().strip()
    except FileNotFoundError:
        return None
    return next((state for state in get_args(State) if state == said), None)


def is_running(state: State) -> bool:
    """Return whether a trial in `read_state` is yet to end."""
    return state in _OPEN


def read_outcome(folder: File) -> Outcome | None:
    """Return how a trial ended, or None where it has not, or its record is not whole."""
    if read_state(folder) in (None, *_OPEN):
        return None
    ended = read_last_outcome(folder)
    if ended is None or len(ended.rows) != _fields(folder).get("rows"):
        return None
    return ended


def read_last_outcome(folder: File) -> Outcome | None:
    """Return how a trial ended the last time, though it may run again; None before that."""
    try:
        return Outcome(**_fields(folder) | {"rows": read_curve(folder)})
    except TypeError:  # nothing, or not all of it
        return None


def _fields(folder: File) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = json.loads((folder / "outcome.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return fields


def count_tries(folder: File) -> int:
    """Return which try the present one is, counting those that failed."""
    before = read_last_outcome(folder)
    if before is None:
        return 1
    return before.tries + (before.state == "failed")


def read_curve(folder: File) -> tuple[MetricRow, ...]:
    """Return the scored points so far; a line cut short by a kill is left out."""
    rows = []
    file = folder / "curve.jsonl"
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return tuple(rows)


def stop_file(folder: File) -> File:
    """Return the file whose presence asks a running trial to save its state and end."""
    return folder / "stop"


def non_finite_metrics(row: MetricRow) -> str | None:
    """Return the name of a number of a point that is none, if there is one."""
    return next((name for name, value in row.items() if not math.isfinite(value)), None)


def write_json(file: File, text: str) -> None:
    """Write a file in one piece: it is as it was, or as it should be."""
    partial = file.with_name(f"{file.name}.partial")
    with partial.open("w") as opened:
        opened.write(f"{text}\n" if text else "")
        opened.flush()
        os.fsync(opened.fileno())
    partial.replace(file)
