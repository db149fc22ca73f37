"""Find the files of a trial's record that are damaged: changed, truncated, emptied or removed.

A sweep reads damaged files as missing ones (`lab.storage.record`). This module says which they are,
so that no trial runs again, and no number is left out, without a message.
"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path as File

from lab.config.results import State
from lab.errors import UserError
from lab.storage import provenance, record, sealed

_MISSING = "missing"


def find_damage(folder: File) -> list[str]:
    """Return the damaged files of a record, each with the reason; empty if there is no record.

    An incomplete last line of the curve is no damage in a record without a final state: the process
    of the trial was killed.
    """
    if not any((folder / name).exists() for name in ("trial.json", "curve.jsonl", "outcome.json")):
        return []
    state = record.read_state(folder)
    found = (_of_facts(folder), _of_state(folder, state), _of_results(folder, state))
    return [*chain(*found), *_of_origin(folder)]


def _of_facts(folder: File) -> Iterator[str]:
    if reason := _reason(folder, "trial.json"):
        yield f"trial.json ({reason})"


def _of_state(folder: File, state: State | None) -> Iterator[str]:
    if state is not None:
        return
    if (folder / "state").exists():
        yield "state (not a state)"
    elif (folder / "outcome.json").exists() or record.curve_lines(folder):
        yield f"state ({_MISSING})"


def _of_results(folder: File, state: State | None) -> Iterator[str]:
    ended = state is not None and not record.is_running(state)
    reason = _reason(folder, "outcome.json") if ended else ""
    # A full disk may leave no room for the outcome and the last point of an interrupted trial.
    may_lack = not ended or state == "interrupted"
    if reason and not (may_lack and reason == _MISSING):
        yield f"outcome.json ({reason})"
    rows, lines = record.read_curve(folder), record.curve_lines(folder)
    if len(rows) < len(lines) - may_lack:
        yield f"curve.jsonl (line {len(rows) + 1})"
    elif ended and not reason and len(rows) < sealed.read(folder / "outcome.json").get("rows", 0):
        yield "curve.jsonl (points are missing)"
    if state == "finished":
        yield from _of_details(folder)


def _of_details(folder: File) -> Iterator[str]:
    """Yield the damaged files beside the scores of a finished trial."""
    if reason := _reason(folder, "blocks.json"):
        yield f"blocks.json ({reason})"
    if not provenance.read_provenance(folder):
        exists = (folder / provenance.NAME).exists()
        yield f"{provenance.NAME} ({'damaged' if exists else _MISSING})"


def _of_origin(folder: File) -> Iterator[str]:
    readers = ((record.ORIGIN, record.read_origin), (record.CHARGED, record.read_charged))
    for name, read in readers:
        try:
            read(folder)
        except UserError:
            yield f"{name} ({_reason(folder, name) or 'not as the lab writes it'})"


def _reason(folder: File, name: str) -> str:
    """Return why a sealed file cannot be used; empty if it can be."""
    try:
        sealed.read(folder / name)
    except FileNotFoundError:
        return _MISSING
    except OSError as error:
        return (error.strerror or "cannot be read").lower()
    except sealed.DamagedError as error:
        return str(error)
    return ""
