"""Compare the HTML pages of two reports: their texts, drawings and data of interactive figures.

The code of the page, which includes Plotly's library, has no numbers of the report and is left out.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from lab.reporting.verification.differences import (
    Difference,
    compare_figures,
    compare_lines,
    contrast,
)

# Templates escape `<` in texts, and both kinds of script have no `</script` inside.
_BLOCK = re.compile(r"<svg\b.*?</svg>|<script\b[^>]*>(.*?)</script>", re.DOTALL)
_DATA = '<script type="application/json">'
_HASHES = re.compile(r"sha256-[\w+/=]+")  # of the code, in the content security policy
_INSIDE = "\v"  # stands for a line end inside of a block
_ABSENT = object()


@dataclass(frozen=True, kw_only=True)
class _Block:
    """A drawing or the data of a figure, and the number of its first line in the page."""

    line: int
    text: str


@dataclass(frozen=True, kw_only=True)
class _Page:
    """Parts of a page: numbered lines of its text, drawings (SVG), and data of figures (JSON)."""

    lines: list[tuple[int, str]]
    drawings: list[_Block]
    data: list[_Block]


def compare_pages(name: str, written: str, recomputed: str) -> Iterator[Difference]:
    """Yield the differences between two pages.

    These are the differing lines of the text, the first differing line of each drawing, and the
    differing values of each figure's data, whose places are JSON pointers (RFC 6901).

    Args:
        name: path of the page below the folder of the report.
        written: content of the page.
        recomputed: recomputed content.
    """
    old, new = _split(written), _split(recomputed)
    yield from compare_lines(name, old.lines, [text for _, text in new.lines])
    if len(old.drawings) == len(new.drawings):  # otherwise the text differs as well
        for drawing, other in zip(old.drawings, new.drawings, strict=True):
            yield from compare_figures(name, drawing.text, other.text, drawing.line)
    if len(old.data) == len(new.data):
        for data, other in zip(old.data, new.data, strict=True):
            yield from _compare_data(name, data, other)


def _split(page: str) -> _Page:
    drawings: list[_Block] = []
    data: list[_Block] = []

    def take_out(match: re.Match[str]) -> str:
        line, block = page.count("\n", 0, match.start()) + 1, match[0]
        if block.startswith("<svg"):
            drawings.append(_Block(line=line, text=block))
        elif block.startswith(_DATA):
            data.append(_Block(line=line, text=match[1]))
        return block[:4] + _INSIDE * block.count("\n")  # marks the place

    lines, number = [], 1
    for line in _BLOCK.sub(take_out, page).split("\n"):
        lines.append((number, _HASHES.sub("", line.replace(_INSIDE, ""))))
        number += 1 + line.count(_INSIDE)
    return _Page(lines=lines, drawings=drawings, data=data)


def _compare_data(name: str, written: _Block, recomputed: _Block) -> Iterator[Difference]:
    if written.text == recomputed.text:
        return
    place = f"line {written.line}"
    try:
        old = json.loads(written.text)
    except ValueError:
        yield Difference(file=name, place=place, text="the data of the figure is not JSON")
        return
    found = False
    for pointer, left, right in _compare_values("", old, json.loads(recomputed.text)):
        found = True
        shown = (None if each is _ABSENT else json.dumps(each) for each in (left, right))
        yield Difference(file=name, place=f"{place}, {pointer}", text=contrast(*shown))
    if not found:
        text = "the data of the figure differs in spacing or notation"
        yield Difference(file=name, place=place, text=text)


def _compare_values(pointer: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the JSON pointers at which two contents differ, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            escaped = key.replace("~", "~0").replace("/", "~1")
            values = old.get(key, _ABSENT), new.get(key, _ABSENT)
            yield from _compare_values(f"{pointer}/{escaped}", *values)
    elif isinstance(old, list) and isinstance(new, list):
        for index, values in enumerate(zip_longest(old, new, fillvalue=_ABSENT)):
            yield from _compare_values(f"{pointer}/{index}", *values)
    elif old != new:
        yield pointer, old, new
