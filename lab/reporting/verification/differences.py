"""Compare the files of a report with the recomputed ones: the place and both contents of each."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path as File

from lab.reporting.verification.report_file import Cells, read_cells

_SHOWN = 100  # characters of each content
NOTHING = "nothing"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A place of a report that does not agree with what is recomputed.

    Attributes:
        file: path of the file below the folder of the report.
        place: line, and column of a table; empty for the whole file.
        text: the content of the file there and the recomputed one, in words.
    """

    file: str
    place: str = ""
    text: str

    def __str__(self) -> str:
        place = f", {self.place}" if self.place else ""
        return f"{self.file}{place}: {self.text}"


def compare_texts(name: str, written: str, recomputed: str) -> Iterator[Difference]:
    """Yield the differing lines of a text; a line that was added or left out moves no other line.

    Args:
        name: path of the file below the folder of the report.
        written: content of the file.
        recomputed: recomputed content.
    """
    yield from compare_lines(name, [*enumerate(written.split("\n"), 1)], recomputed.split("\n"))


def compare_lines(
    name: str, written: Sequence[tuple[int, str]], recomputed: Sequence[str]
) -> Iterator[Difference]:
    """Yield the differing lines as `compare_texts` does.

    Args:
        name: path of the file below the folder of the report.
        written: lines of the file that are compared, with their numbers.
        recomputed: recomputed lines.
    """
    old, new = [text for _, text in written], list(recomputed)
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for kind, start, end, new_start, new_end in matcher.get_opcodes():
        if kind != "equal":
            pairs = zip_longest(old[start:end], new[new_start:new_end])
            for line, (left, right) in enumerate(pairs, start):
                number, _ = written[min(line, len(old) - 1)]
                yield Difference(file=name, place=f"line {number}", text=contrast(left, right))


def compare_tables(name: str, written: File, recomputed: File) -> Iterator[Difference]:
    """Yield the differing cells of a CSV file, or its differing headings.

    Raises:
        ReportFileError: the file is not a CSV file.
    """
    if written.read_bytes() == recomputed.read_bytes():
        return
    old, new = read_cells(written), read_cells(recomputed)
    if not old or old[0] != new[0]:
        headings = (",".join(old[0]) if old else None, ",".join(new[0]))
        yield Difference(file=name, place="line 1", text=contrast(*headings))
        return
    found = list(_compare_rows(name, old, new))
    yield from found or [Difference(file=name, text="differs in spacing, quotes or line ends")]


def _compare_rows(name: str, old: Cells, new: Cells) -> Iterator[Difference]:
    for line, (left, right) in enumerate(zip_longest(old[1:], new[1:]), start=2):
        if left is None or right is None or len(left) != len(right):
            rows = [None if row is None else ",".join(row) for row in (left, right)]
            yield Difference(file=name, place=f"line {line}", text=contrast(*rows))
            continue
        for heading, cell, other in zip(new[0], left, right, strict=True):
            if cell != other:
                place = f"line {line}, column {heading}"
                yield Difference(file=name, place=place, text=contrast(cell, other))


def compare_figures(
    name: str, written: str, recomputed: str, start: int = 1
) -> Iterator[Difference]:
    """Yield the first differing line of an SVG drawing, with the number of the others.

    Args:
        name: path of the file below the folder of the report.
        written: the drawing in the file.
        recomputed: the recomputed drawing.
        start: number of the drawing's first line in the file.
    """
    pairs = enumerate(zip_longest(written.split("\n"), recomputed.split("\n")), start)
    found = [(line, *pair) for line, pair in pairs if pair[0] != pair[1]]
    if found:
        line, left, right = found[0]
        others = f"; {len(found) - 1} later lines differ as well" if len(found) > 1 else ""
        text = contrast(left, right) + others
        yield Difference(file=name, place=f"line {line}", text=text)


def contrast(written: str | None, recomputed: str | None) -> str:
    """Return the parts in which two lines differ, as whole words; None stands for no line."""
    if written is not None and recomputed is not None:
        written, recomputed = _differing_part(written, recomputed)
    return f"{_quote(written)} stands there; recomputed: {_quote(recomputed)}"


def _differing_part(first: str, second: str) -> tuple[str, str]:
    shorter = min(len(first), len(second))
    start = next((i for i in range(shorter) if first[i] != second[i]), shorter)
    left = shorter - start  # characters that the common end may have
    end = next((i for i in range(left) if first[-1 - i] != second[-1 - i]), left)
    start = first.rfind(" ", 0, start) + 1
    tail = first[len(first) - end :]
    end = len(tail) - tail.find(" ") if " " in tail else 0
    return first[start : len(first) - end], second[start : len(second) - end]


def _quote(text: str | None) -> str:
    if text is None:
        return NOTHING
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
