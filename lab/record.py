"""The durable record of a trial: a folder named by its fingerprint.

`trial.json` says what was asked, `curve.jsonl` holds each scored point from the moment it is
reached, and `outcome.json` says how it ended. The last is written in one piece, so a folder that
has it is complete, and its trial is not trained again. MLflow is filled from these files.
"""

import json
import math
from dataclasses import asdict
from pathlib import Path as File

from lab.spec import Outcome, Row, Trial


def begin(folder: File, trial: Trial) -> None:
    """Open a record, or open it again where a run goes on: it has not ended any more."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "outcome.json").unlink(missing_ok=True)
    _write(folder / "trial.json", asdict(trial))


def keep(folder: File, count: int) -> tuple[Row, ...]:
    """Keep the first `count` points; what a run that was cut off left after them is taken again."""
    rows = curve(folder)[:count]
    partial = folder / "curve.partial"
    partial.write_text("".join(json.dumps(row) + "\n" for row in rows))
    partial.replace(folder / "curve.jsonl")
    return rows


def append(folder: File, row: Row) -> None:
    """Add a scored point to the curve."""
    with (folder / "curve.jsonl").open("a") as curve:
        curve.write(json.dumps(row) + "\n")


def end(folder: File, outcome: Outcome) -> None:
    """Complete the record."""
    _write(folder / "outcome.json", {k: v for k, v in asdict(outcome).items() if k != "rows"})


def read(folder: File) -> Outcome | None:
    """Return how a trial ended, or None where it has not."""
    try:
        ended = json.loads((folder / "outcome.json").read_text())
    except FileNotFoundError:
        return None
    return Outcome(rows=curve(folder), **ended)


def curve(folder: File) -> tuple[Row, ...]:
    """Return the scored points so far; a line cut short by a kill is left out."""
    rows = []
    file = folder / "curve.jsonl"
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return tuple(rows)


def not_finite(row: Row) -> str | None:
    """Return the name of a number of a point that is none, if there is one."""
    return next((name for name, value in row.items() if not math.isfinite(value)), None)


def _write(file: File, content: object) -> None:
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.replace(file)
