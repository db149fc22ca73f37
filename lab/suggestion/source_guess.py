"""From paths to a source of text: which files, which encoding, which column, what a document is."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path as File
from statistics import median
from typing import Literal

from lab.config.data import TextFiles
from lab.data import tabular
from lab.data.text_files import PACKED, read_lines
from lab.errors import UserError
from lab.suggestion import encoding_guess
from lab.suggestion.file_samples import FileSample, Samples

_SUFFIXES = (".txt", ".jsonl", ".csv", ".tsv", ".parquet")  # that a folder is searched for
_ROWS = 300  # of each file by which columns are compared
_WORDS = 2  # in the mean cell of a column of prose
_SMALL_FILE = 100_000  # bytes; a larger file holds more than one document
_MANY_FILES = 20
_FEW_PARAGRAPHS = 20
_LONG_NAME = 60  # characters; a first line that is no header


@dataclass(frozen=True, kw_only=True)
class SourceGuess:
    """A source, and the reason for each of its settings.

    Attributes:
        source: as a search space has it.
        because: a sentence for `encoding`, `column` and `documents`, where they apply.
        damaged: whether bytes were found that are not of the encoding.
        median_line: characters of a line of plain text that is not blank; 0 for tables.
    """

    source: TextFiles
    because: dict[str, str]
    damaged: bool
    median_line: float = 0.0


def expand_paths(texts: Iterable[str]) -> tuple[str, ...]:
    """Return files and globs as they are, and for a folder the globs of the formats found in it.

    Raises:
        UserError: a folder holds none.
    """
    return tuple(path for text in texts for path in _paths(text))


def _paths(text: str) -> Iterator[str]:
    folder = File(text).expanduser()
    if not folder.is_dir():
        yield text
        return
    names = [name for _, _, names in os.walk(folder) for name in names]
    endings = [s + packed for s in _SUFFIXES for packed in ("", *PACKED)]
    found = [end for end in endings if any(name.endswith(end) for name in names)]
    if not found:
        raise UserError(f"{text}: no file in this folder ends with {', '.join(_SUFFIXES)}")
    yield from (str(File(text) / "**" / f"*{end}") for end in found)


def guess_source(paths: tuple[str, ...], read: Samples) -> SourceGuess:
    """Return the source that reads the files.

    Raises:
        UserError: no one source reads all of them; the message says what to change.
    """
    encoding = _encoding(read)
    source = TextFiles(kind="files", paths=paths, encoding=encoding.name)
    because = {"encoding": encoding.because}
    tables = [sample for sample in read.samples if sample.suffix != ".txt"]
    if tables:
        column, because["column"] = _column(source, tables)
        source = TextFiles(kind="files", paths=paths, encoding=encoding.name, column=column)
    plain = [sample for sample in read.samples if sample.suffix == ".txt"]
    if not plain:
        return SourceGuess(source=source, because=because, damaged=encoding.damaged)
    layout = _layout(plain, encoding.name)
    kind, because["documents"] = layout.documents()
    source = TextFiles(
        kind="files", paths=paths, encoding=encoding.name, column=source.column, documents=kind
    )
    return SourceGuess(
        source=source, because=because, damaged=encoding.damaged, median_line=layout.median_line
    )


def _encoding(read: Samples) -> encoding_guess.Encoding:
    """Return the one encoding of all files."""
    found = {
        sample.file: encoding_guess.guess_encoding(str(sample.file), sample.content)
        for sample in read.samples
        if sample.suffix != ".parquet"
    }
    if not found:
        return encoding_guess.Encoding(name="utf-8", because="Parquet is UTF-8.")
    # ASCII is all of them, and cp1252 holds all of Latin-1's characters.
    utf8 = [file for file, one in found.items() if one.name == "utf-8" and not _ascii(read, file)]
    other = [file for file, one in found.items() if one.name != "utf-8"]
    if utf8 and other:
        name = found[other[0]].name
        raise UserError(
            f"{other[0]}: {name}, and {utf8[0]} is UTF-8; convert the former: "
            f'iconv -f {name} -t utf-8 "{other[0]}" > converted.txt'
        )
    order = {"utf-8": 0, "latin-1": 1, "cp1252": 2}
    return max(found.values(), key=lambda one: (order[one.name], one.damaged))


def _ascii(read: Samples, file: File) -> bool:
    return all(sample.content.isascii() for sample in read.samples if sample.file == file)


def _column(source: TextFiles, tables: list[FileSample]) -> tuple[str, str]:
    """Return the column of prose with the longest mean text, among those that all files have."""
    names = [_names(source, sample) for sample in tables]
    shared = [name for name in names[0] if all(name in others for others in names)]
    means = {name: _mean(source, tables, name) for name in shared}
    texts = {name: mean for name, mean in means.items() if mean.characters}
    prose = {name: mean for name, mean in texts.items() if mean.words >= _WORDS} or texts
    if not prose:
        listed = ", ".join(map(repr, dict.fromkeys(name for each in names for name in each)))
        raise UserError(
            f"{tables[0].file}: no column of text that all files have; columns: {listed or 'none'}"
        )
    chosen = max(prose, key=lambda name: prose[name].characters)
    _check_header(tables[0].file, chosen, shared)
    others = ", ".join(
        f"{name} {mean.characters:,.0f}" for name, mean in texts.items() if name != chosen
    )
    return chosen, (
        f"Of the columns of text the one with the longest mean, {prose[chosen].characters:,.0f} "
        f"characters" + (f" (others: {others})." if others else ".")
    )


def _check_header(file: File, chosen: str, shared: list[str]) -> None:
    other = re.search("[;\t|]", chosen)
    if len(shared) == 1 and other:
        raise UserError(
            f"{file}: columns are separated by {other[0]!r}; save .csv with commas or .tsv with "
            f"tabs"
        )
    if len(chosen) > _LONG_NAME:
        raise UserError(
            f"{file}: the first line is no header ({chosen[:_LONG_NAME]!r}…); "
            f"put the names of the columns there"
        )


def _names(source: TextFiles, sample: FileSample) -> list[str]:
    with sample.opened() as stream:
        if sample.suffix == ".parquet":
            return tabular.read_parquet_names(stream)
        rows = read_lines(str(sample.file), stream, source.encoding)
        if sample.suffix in tabular.DELIMITERS:
            return tabular.read_csv_header(rows, tabular.DELIMITERS[sample.suffix])
        return tabular.read_json_keys(rows)


@dataclass(frozen=True, kw_only=True)
class _Mean:
    """Characters and words of the mean cell of a column; 0 where it holds no text."""

    characters: float
    words: float


def _mean(source: TextFiles, tables: list[FileSample], column: str) -> _Mean:
    read = TextFiles(kind="files", paths=source.paths, encoding=source.encoding, column=column)
    cells = [cell for sample in tables[:_MANY_FILES] for cell in _cells(read, sample)]
    count = max(1, len(cells))
    # An ideograph is a word; texts of other scripts without spaces are long, and few compete.
    words = sum(len(cell.split()) + len(re.findall("[\u3040-\u9fff]", cell)) for cell in cells)
    return _Mean(characters=sum(map(len, cells)) / count, words=words / count)


def _cells(source: TextFiles, sample: FileSample) -> Iterator[str]:
    """Yield the first cells of a column that are text; none where it holds no text."""
    try:
        for cell in islice(sample.texts(source), _ROWS):
            if isinstance(cell, str):
                yield cell
    except UserError:
        return


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """How plain text is laid out.

    Attributes:
        files: how many were looked into.
        median_file: bytes of one, estimated where it was not read to its end.
        rows: lines that are not blank.
        blank: blank lines.
        paragraphs: stretches of lines between blank ones.
        median_line: characters of a line that is not blank.
    """

    files: int
    median_file: float
    rows: int
    blank: int
    paragraphs: int
    median_line: float

    def documents(self) -> tuple[Literal["paragraph", "line", "file"], str]:
        """Return what a document is, and why."""
        seen = (
            f"{self.rows:,} lines, the median of {self.median_line:,.0f} characters, in "
            f"{self.paragraphs:,} paragraphs of {self.files:,} files"
        )
        if self.files >= _MANY_FILES and self.median_file <= _SMALL_FILE and not self.blank:
            size = f"{self.median_file:,.0f} bytes"
            return "file", f"{seen}: no blank lines, and files of {size} in the median."
        split = self.paragraphs - self.files  # what blank lines separate
        if split < _FEW_PARAGRAPHS and self.rows > 2 * self.paragraphs:
            return "line", f"{seen}: hardly any blank lines, so each line is a document."
        if not self.blank:
            return "line", f"{seen}: no blank lines, so each line is a document."
        return "paragraph", f"{seen}: blank lines separate documents."


def _layout(plain: list[FileSample], encoding: str) -> _Layout:
    widths: Counter[int] = Counter()
    blank = paragraphs = 0
    for sample in plain:
        inside = False
        with sample.opened() as stream:
            for line in read_lines(str(sample.file), stream, encoding):
                full = not isinstance(line, str) or bool(line.strip())
                paragraphs += full and not inside
                inside = full
                blank += not full
                widths[len(line) if isinstance(line, str) else 0] += full
    return _Layout(
        files=len(plain),
        median_file=median(len(sample.content) / sample.share for sample in plain),
        rows=widths.total(),
        blank=blank,
        paragraphs=paragraphs,
        median_line=weighted_median(widths),
    )


def weighted_median(counts: Counter[int]) -> float:
    """Return the value in the middle of values that occur as often as `counts` says."""
    left = counts.total() / 2
    for value in sorted(counts):
        left -= counts[value]
        if left <= 0:
            return float(value)
    return 0.0
