"""Read the parts of a text, a single source or a mixture, into the store of documents."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from lab.config.data import DataConfig, HubDataset, Mixture, MixturePart
from lab.data import hub, sources
from lab.data.document_store import DocumentStore
from lab.errors import UserError

_PROGRESS = 2**26  # bytes or characters between two progress messages

Say = Callable[[str], None]


def mixture_parts(data: DataConfig) -> tuple[MixturePart, ...]:
    """Return the parts of a mixture; a single part with weight 1 for any other source."""
    match data.source:
        case Mixture(parts=several):
            return several
        case plain:
            return (MixturePart(weight=1.0, source=plain),)


@contextmanager
def naming_part(data: DataConfig, number: int) -> Iterator[None]:
    """Replace the path of the source in an error by that of a part of a mixture."""
    try:
        yield
    except UserError as error:
        raise UserError(_name_part(data, number, str(error))) from None


def _name_part(data: DataConfig, number: int, message: str) -> str:
    """Return a message with the path of the source replaced by that of a part of a mixture."""
    if not isinstance(data.source, Mixture):
        return message
    path = f"base.data.source.parts.{number}.source"
    return re.sub(r"base\.data\.source(?!\.parts)", path, message)


def pin_revisions(data: DataConfig) -> DataConfig:
    """Replace revisions of the hub by commit hashes, so that all passes read the same data."""
    pinned = []
    for number, part in enumerate(mixture_parts(data)):
        source = part.source
        if isinstance(source, HubDataset):
            with naming_part(data, number):
                source = replace(source, revision=hub.resolve_commit(source))
        pinned.append(replace(part, source=source))
    if isinstance(data.source, Mixture):
        return replace(data, source=replace(data.source, parts=tuple(pinned)))
    return replace(data, source=pinned[0].source)


def read_sources(data: DataConfig, store: DocumentStore, say: Say) -> dict[str, Any]:
    """Read all parts into the store; return the counts of documents, bytes and skipped rows."""
    skipped: Counter[str] = Counter()
    examples: list[str] = []
    done, report_progress = 0, progress_lines(say, "read {:,.0f} MB")
    for number, part in enumerate(mixture_parts(data)):
        reader = sources.SourceReader(part.source, data.bad_text)
        with naming_part(data, number):
            for size in store.add(reader.documents()):
                done += size
                report_progress(done)
        skipped += reader.skipped
        examples += [_name_part(data, number, example) for example in reader.examples]
    counts = {
        "documents": sum(store.parts),
        "bytes": done,
        "skipped": dict(skipped),
        "examples": examples,
    }
    if not counts["documents"]:
        raise UserError(f"base.data.source: no text in it{describe_skipped(counts)}")
    return counts


def describe_skipped(counts: dict[str, Any]) -> str:
    """Return the end of a message: rows that were skipped; empty if there are none."""
    skipped = counts["skipped"]
    if not skipped:
        return ""
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in skipped.items())
    return f"; skipped rows: {reasons}; the first is {counts['examples'][0]}"


def progress_lines(say: Say, line: str) -> Callable[[float], None]:
    """Return a callback that reports progress once for every `_PROGRESS` bytes or characters.

    Args:
        say: callback for progress messages.
        line: format of a message; its field is the progress in millions.
    """
    reported = 0.0

    def report_progress(done: float) -> None:
        nonlocal reported
        if done >= reported + _PROGRESS:
            reported = done
            say(line.format(done / 1e6))

    return report_progress
