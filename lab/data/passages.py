"""Passages of the held-out documents as plain text, for scores that do not depend on the tokenizer.

The held-out documents are selected by hashes of their text. The passages therefore depend on the
sources and on the shares of used and held-out documents, but not on vocabulary, window or layout.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path as File
from typing import NamedTuple

_FILE = "passages.json"
_CHARACTERS = 2**19  # of all passages together, about
_PASSAGE = 4_000  # characters of a passage, at most; longer than a window of 512 tokens


class Passage(NamedTuple):
    """A passage of a held-out document.

    Attributes:
        document: index of the document among the held-out documents.
        text: text of the passage.
    """

    document: int
    text: str


def write_passages(folder: File, documents: Iterable[str], characters: int) -> None:
    """Write passages, evenly spaced over the documents, to the folder of a prepared text.

    Args:
        folder: folder of the prepared text.
        documents: texts of the held-out documents.
        characters: number of characters of all documents.
    """
    share = min(1.0, _CHARACTERS / max(1, characters))
    passages = (
        Passage(number, text)
        for number, document in enumerate(documents)
        for text in split_passages(document)
    )
    kept = [
        passage
        for number, passage in enumerate(passages)
        if int((number + 1) * share) > int(number * share)
    ]
    (folder / _FILE).write_text(json.dumps(kept), encoding="utf-8")


def read_passages(folder: File) -> tuple[Passage, ...]:
    """Return the passages that `write_passages` wrote, in the order of their documents."""
    rows = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    return tuple(Passage(*row) for row in rows)


def split_passages(document: str) -> Iterator[str]:
    """Yield the passages of a document, cut at white space where there is some."""
    start = 0
    while len(document) - start > _PASSAGE:
        cut = max(document.rfind(space, start + 1, start + _PASSAGE) for space in " \n")
        end = cut if cut > start else start + _PASSAGE
        yield document[start:end]
        start = end
    if document[start:].strip():
        yield document[start:]
