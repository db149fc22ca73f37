"""Values that are longer than MLflow stores in a tag or parameter.

MLflow cuts them without a word, and a list that was cut is no JSON. Such a value is stored as an
artifact of the same run. The tag or parameter has a notice with its length, its hash and its
artifact, so two long values remain different.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

MOST_TAG, MOST_PARAM = 8_000, 6_000  # characters that MLflow stores
_FOLDER = "long_values"
_SHOWN = 200  # characters of the value in its notice
_NOTICE = re.compile(
    r"long value: [\d,]+ characters, SHA-256 [0-9a-f]{16}, in the artifact (\S+): "
)


class Shortened(NamedTuple):
    """Tags or parameters without long values, and the artifacts with these values.

    Attributes:
        values: values by name; notices for long ones.
        artifacts: long values by the path of the artifact.
    """

    values: dict[str, str]
    artifacts: dict[str, str]


def shorten(values: Mapping[str, str], most: int) -> Shortened:
    """Return values with notices instead of those that are too long, and the latter.

    Args:
        values: values of tags or parameters, by name.
        most: largest number of characters of a value.
    """
    shortened = Shortened(dict(values), {})
    for name, text in values.items():
        if len(text) > most or _NOTICE.match(text):  # a notice in a value must not be followed
            artifact = f"{_FOLDER}/{re.sub('[^A-Za-z0-9._-]', '_', name)}.txt"
            digest = hashlib.sha256(text.encode()).hexdigest()[:16]
            shortened.artifacts[artifact] = text
            shortened.values[name] = (
                f"long value: {len(text):,} characters, SHA-256 {digest}, in the artifact "
                f"{artifact}: {text[:_SHOWN]}…"
            )
    return shortened


def restore(
    values: dict[str, str], read: Callable[[str], str | None], known: dict[str, str]
) -> None:
    """Replace the notices in the tags of a run by the long values; a missing artifact leaves one.

    Args:
        values: tags of the run; changed in place.
        read: function that returns the content of an artifact of the run, None if it is missing.
        known: long values by notice, of runs that were restored before; extended in place.
    """
    for name, text in values.items():
        if (notice := _NOTICE.match(text)) is None:
            continue
        if text not in known and (content := read(notice[1])) is not None:
            known[text] = content
        values[name] = known.get(text, text)
