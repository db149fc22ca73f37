"""JSON with a seal: a digest of the content beside it, which shows that nothing has changed it.

Records of trials are small files that are written often, by several processes. A seal is part of
the JSON, so that the files stay readable for other programs, and that a file and its digest are
replaced together. Content without a seal is accepted: earlier versions wrote none.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path as File
from typing import Any

from lab.storage import atomic, regular_files

_KEY = "seal"
_DIGITS = 16  # hexadecimal digits of SHA-256; a change stays unnoticed with a probability of 2**-64


class DamagedError(ValueError):
    """Content is not as it was written; the message says how, without the file."""


def write(file: File, content: Mapping[str, Any], *, indent: int | None = None) -> None:
    """Write content as a JSON object with a seal, atomically."""
    plain = json.loads(json.dumps(content))
    atomic.write_text(file, json.dumps(plain | {_KEY: _digest(plain)}, indent=indent))


def read(file: File) -> dict[str, Any]:
    """Return the content that `write` wrote.

    Raises:
        OSError: the file is missing or cannot be read.
        DamagedError: the content is no JSON object, or differs from its seal.
    """
    try:
        content = json.loads(regular_files.read_text(file))
    except (ValueError, RecursionError):
        raise DamagedError("not JSON") from None
    if not isinstance(content, dict):
        raise DamagedError("not a JSON object")
    seal = content.pop(_KEY, None)
    if seal is None:
        _check_unsealed(content, _digest)
    elif seal != _digest(content):
        raise DamagedError("its content differs from its seal")
    return content


def to_line(content: Mapping[str, Any]) -> str:
    """Return a nonempty object as a line of JSON with a seal, without the line feed."""
    text = json.dumps(content)
    return f'{text[:-1]}, "{_KEY}": "{_digest_text(text)}"}}'


def from_line(line: str) -> dict[str, Any]:
    """Return the object of a line that `to_line` made.

    Raises:
        DamagedError: the line is no JSON object, or differs from its seal.
    """
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        raise DamagedError("not JSON") from None
    if not isinstance(content, dict):
        raise DamagedError("not a JSON object")
    if content.pop(_KEY, None) is None:
        _check_unsealed(content, lambda rest: _digest_text(json.dumps(rest)))
        return content
    text, _, seal = line.rpartition(f', "{_KEY}": "')
    if seal != f'{_digest_text(f"{text}}}")}"}}':
        raise DamagedError("its content differs from its seal")
    return content


def _check_unsealed(content: Mapping[str, Any], digest: Callable[[object], str]) -> None:
    """Raise DamagedError if the last value is the digest of the others: it was a seal."""
    *others, last = content.items() or [("", None)]
    if last[1] == digest(dict(others)):
        raise DamagedError("the name of its seal is damaged")


def _digest(content: object) -> str:
    return _digest_text(json.dumps(content, sort_keys=True))


def _digest_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
