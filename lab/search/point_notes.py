"""The notes of a cell's search: the setting of each point asked for, as a line of JSON with a seal.

A lost study is rebuilt from them.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path as File
from typing import Any, NamedTuple

from lab.config.trial import Path, Value
from lab.storage import atomic, sealed

_LOG = logging.getLogger(__name__)


class Note(NamedTuple):
    """Setting of a point.

    Attributes:
        tuned: values of the nuisance parameters, by dotted path.
        proposed_by: name of the earlier sweep that proposed it; empty without one.
    """

    tuned: dict[Path, Value]
    proposed_by: str = ""


def write_notes(file: File, notes: Mapping[int, Note]) -> None:
    """Replace all notes, atomically; they are given by the number of the point."""
    atomic.write_text(file, "\n".join(_to_line(index, note) for index, note in notes.items()))


def append_note(file: File, index: int, note: Note) -> None:
    """Append the note of point `index`."""
    # The newline comes first: a killed process may have left an incomplete line.
    with file.open("a") as notes:
        notes.write("\n" + _to_line(index, note))


def read_notes(file: File) -> dict[int, Note]:
    """Return the notes by the number of the point; empty if the file is missing.

    The last line may be incomplete, if the process was killed before the point was run. Other
    damaged lines are skipped with a warning: the study, or a design without scores, has the same
    parameters; an adaptive sampler without its study chooses new ones.
    """
    noted: dict[int, Note] = {}
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        try:
            noted |= [_parse(line)] if line else ()
        except (ValueError, KeyError, TypeError) as error:
            if number < len(lines):
                _LOG.warning("%s:%d: damaged: %s", file, number, error)
    return noted


def _to_line(index: int, note: Note) -> str:
    content: dict[str, Any] = {"point": index, "tuned": note.tuned}
    if note.proposed_by:
        content["proposed_by"] = note.proposed_by
    return sealed.to_line(content)


def _parse(line: str) -> tuple[int, Note]:
    if line.startswith("["):  # earlier versions wrote a list, without a seal
        index, tuned, *rest = json.loads(line)
        proposed_by = rest[0] if rest else ""
    else:
        content = sealed.from_line(line)
        index, tuned = content["point"], content["tuned"]
        proposed_by = content.get("proposed_by", "")
    return int(index), Note(dict(tuned), str(proposed_by))
