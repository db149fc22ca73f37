"""Markdown of the generated reference: tables, anchors, values and escaped text."""

import json
import re
from collections.abc import Iterator, Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table."""
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def slug(heading: str) -> str:
    """Return the anchor of a heading, as GitHub and MkDocs make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def value(content: object) -> str:
    """Return a value of a setting: a number as text, any other value as code."""
    match content:
        case bool():
            return f"`{json.dumps(content)}`"
        case int() | float():
            whole = content == int(content) and abs(content) < 1e12
            return f"{int(content):,}" if whole else f"{content:g}"
        case _:
            return f"`{content}`"


def escape(text: str) -> str:
    """Return text that Markdown shows as it is, also in a table; code in backticks stays code."""
    parts = text.replace("|", "\\|").split("`")
    for index in range(0, len(parts), 2):
        parts[index] = parts[index].replace("<", "&lt;").replace("*", "\\*")
    return "`".join(parts)
