"""Choose the settings of a text source from its files: encoding, column and kind of document."""

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path as File
from statistics import median
from typing import Literal

from lab.config.data import TextFiles
from lab.data import tabular
from lab.data.encodings import encoding_guess
from lab.data.text_files import PACKED, read_lines
from lab.errors import UserError
from lab.suggestion.file_samples import FileSample, Samples

_SUFFIXES = (".txt", ".jsonl", ".csv", ".tsv", ".parquet")  # formats that a folder is searched for
_ROWS = 300  # rows of each file by which columns are compared
_WORDS = 2  # least number of words in the mean cell of a column of prose
_SMALL_FILE = 100_000  # bytes; larger files are assumed to hold more than one document
_MANY_FILES = 20
_FEW_PARAGRAPHS = 20
_LONG_NAME = 60  # characters; a longer column name is assumed to be a row without a header


@dataclass(frozen=True, kw_only=True)
class SourceGuess:
    """A text source and the reasons for its settings.

    Attributes:
        source: the source, as in a search space.
        because: one sentence for each of `encoding`, `column` and `documents` that applies.
        damaged: whether the files have bytes that are invalid in the encoding.
        median_line: median number of characters of the nonblank lines of plain text; 0 for tables.
    """

    source: TextFiles
    because: dict[str, str]
    damaged: bool
    median_line: float = 0.0


def expand_paths(texts: Iterable[str]) -> tuple[str, ...]:
    """Return files and globs unchanged; replace a folder by globs of the formats that it holds.

    Raises:
        UserError: a file or folder does not exist, or a folder has no file of a known format, or
            one that is no regular file, such as a link to nothing.
    """
    return tuple(path for text in texts for path in _expand(text))


def _expand(text: str) -> Iterator[str]:
    if not text.strip():
        raise UserError(f"{text!r}: an empty path; must be a file, a folder or a pattern")
    folder = File(text).expanduser()
    if not glob.has_magic(text) and not folder.exists():
        raise UserError(f"{text}: no such file or folder")
    if not folder.is_dir():
        yield text
        return
    files = sorted(File(parent, name) for parent, _, names in os.walk(folder) for name in names)
    endings = [suffix + packed for suffix in _SUFFIXES for packed in ("", *PACKED)]
    of_formats = [(f, end) for end in endings for f in files if f.name.lower().endswith(end)]
    odd = (str(file) for file, _ in of_formats if not file.is_file())
    if (first := next(odd, None)) is not None:
        raise UserError(f"{first}: no regular file; remove it, or name the files to read")
    present = dict.fromkeys(file.name[-len(end) :] for file, end in of_formats)
    if not present:
        raise UserError(f"{text}: no file in this folder ends with {', '.join(_SUFFIXES)}")
    # Escaped, since the brackets in the name of a folder are no pattern.
    yield from (str(File(glob.escape(text)) / "**" / f"*{end}") for end in present)


def guess_source(paths: tuple[str, ...], samples: Samples) -> SourceGuess:
    """Return the text source for some files.

    Args:
        paths: files and globs, as in a search space.
        samples: samples of the files.

    Raises:
        UserError: no single source can read all files; the message says how to change them.
    """
    encoding = _encoding(samples)
    source = TextFiles(kind="files", paths=paths, encoding=encoding.name)
    because = {"encoding": encoding.because}
    tables = [sample for sample in samples.samples if sample.suffix != ".txt"]
    if tables:
        column, because["column"] = _column(source, tables)
        source = TextFiles(kind="files", paths=paths, encoding=encoding.name, column=column)
    plain = [sample for sample in samples.samples if sample.suffix == ".txt"]
    if not plain:
        return SourceGuess(source=source, because=because, damaged=encoding.damaged)
    layout = _measure_layout(plain, encoding.name)
    kind, because["documents"] = layout.documents()
    source = TextFiles(
        kind="files", paths=paths, encoding=encoding.name, column=source.column, documents=kind
    )
    return SourceGuess(
        source=source, because=because, damaged=encoding.damaged, median_line=layout.median_line
    )


def _encoding(samples: Samples) -> encoding_guess.Encoding:
    """Return the encoding of all files.

    Raises:
        UserError: no encoding can read all files.
    """
    encodings = {
        sample.file: encoding_guess.guess_encoding(str(sample.file), sample.content)
        for sample in samples.samples
        if sample.suffix != ".parquet"
    }
    if not encodings:
        return encoding_guess.Encoding(name="utf-8", because="Parquet files are UTF-8.")
    # ASCII is valid in UTF-8, Latin-1 and cp1252, and cp1252 has all printable characters of
    # Latin-1.
    order = {"utf-8": 0, "latin-1": 1, "cp1252": 2}
    utf8 = [
        file
        for file, encoding in encodings.items()
        if encoding.name == "utf-8" and not _is_ascii(samples, file)
    ]
    other = [file for file, encoding in encodings.items() if encoding.name != "utf-8"]
    wide = [file for file in other if encodings[file].name not in order]
    odd = (wide or other or utf8)[:1]
    against = [*utf8, *(file for file in other if encodings[file].name != encodings[odd[0]].name)]
    if odd and (wide or utf8) and other and against:
        name, known = encodings[odd[0]].name, encodings[against[0]].name
        raise UserError(
            f"{odd[0]}: {name}, and {against[0]} is {known.upper()}; convert the former: "
            f'iconv -f {name} -t utf-8 "{odd[0]}" > converted.txt'
        )
    return max(
        encodings.values(), key=lambda encoding: (order.get(encoding.name, 3), encoding.damaged)
    )


def _is_ascii(samples: Samples, file: File) -> bool:
    return all(sample.content.isascii() for sample in samples.samples if sample.file == file)


def _column(source: TextFiles, tables: list[FileSample]) -> tuple[str, str]:
    """Return the column with the longest mean text that all files have, and the reason.

    Columns of fewer than `_WORDS` words in the mean are taken only if there is no other.
    """
    names = [_read_names(source, sample) for sample in tables]
    shared = [name for name in names[0] if all(name in columns for columns in names)]
    means = {name: _mean_cell(source, tables, name) for name in shared}
    texts = {name: mean for name, mean in means.items() if mean.characters}
    prose = {name: mean for name, mean in texts.items() if mean.words >= _WORDS} or texts
    if not prose:
        listed = ", ".join(map(repr, dict.fromkeys(name for columns in names for name in columns)))
        raise UserError(
            f"{tables[0].file}: no column of text that all files have; columns: {listed or 'none'}"
        )
    chosen = max(prose, key=lambda name: prose[name].characters)
    check_header(tables[0].file, chosen, shared)
    others = ", ".join(
        f"{name} {mean.characters:,.0f}" for name, mean in texts.items() if name != chosen
    )
    return chosen, (
        f"The column of text with the longest mean, {prose[chosen].characters:,.0f} "
        f"characters" + (f" (others: {others})." if others else ".")
    )


def check_header(file: File, name: str, names: Sequence[str]) -> None:
    """Check that a column's name comes from a header with the expected delimiter.

    Args:
        file: path of the table, for error messages.
        name: name of the column.
        names: names of all columns.

    Raises:
        UserError: the name is too long for a name, or holds all columns.
    """
    delimiter = re.search("[;\t|]", name)
    if len(names) == 1 and delimiter:
        raise UserError(
            f"{file}: columns are separated by {delimiter[0]!r}; save .csv with commas or .tsv "
            f"with tabs"
        )
    if len(name) > _LONG_NAME:
        raise UserError(
            f"{file}: the first line is no header ({name[:_LONG_NAME]!r}…); "
            f"add a first line with the names of the columns"
        )


def _read_names(source: TextFiles, sample: FileSample) -> list[str]:
    with sample.opened() as stream:
        if sample.suffix == ".parquet":
            return tabular.read_parquet_names(stream)
        rows = read_lines(str(sample.file), stream, source.encoding)
        if sample.suffix in tabular.DELIMITERS:
            return tabular.read_csv_header(rows, tabular.DELIMITERS[sample.suffix])
        return tabular.read_json_keys(rows)


@dataclass(frozen=True, kw_only=True)
class _MeanCell:
    """Mean number of characters and words of a column's cells; 0 if the column holds no text."""

    characters: float
    words: float


def _mean_cell(source: TextFiles, tables: list[FileSample], column: str) -> _MeanCell:
    source = TextFiles(kind="files", paths=source.paths, encoding=source.encoding, column=column)
    cells = [cell for sample in tables[:_MANY_FILES] for cell in _cells(source, sample)]
    count = max(1, len(cells))
    # Each ideograph counts as a word. Other scripts without spaces are not counted correctly.
    words = sum(len(cell.split()) + len(re.findall("[\u3040-\u9fff]", cell)) for cell in cells)
    return _MeanCell(characters=sum(map(len, cells)) / count, words=words / count)


def _cells(source: TextFiles, sample: FileSample) -> Iterator[str]:
    """Yield the first `_ROWS` cells of a column that are text; none if it holds no text."""
    try:
        for cell in islice(sample.texts(source), _ROWS):
            if isinstance(cell, str):
                yield cell
    except UserError:
        return


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """The layout of plain text.

    Attributes:
        files: number of files that were read.
        median_file: median size of a file, in bytes; estimated from samples of large files.
        rows: number of nonblank lines.
        blank: number of blank lines.
        paragraphs: number of runs of nonblank lines.
        median_line: median number of characters of the nonblank lines.
    """

    files: int
    median_file: float
    rows: int
    blank: int
    paragraphs: int
    median_line: float

    def documents(self) -> tuple[Literal["paragraph", "line", "file"], str]:
        """Return the setting `documents` and its reason."""
        counts = (
            f"{self.rows:,} lines with a median of {self.median_line:,.0f} characters, in "
            f"{self.paragraphs:,} paragraphs of {self.files:,} files"
        )
        if self.files >= _MANY_FILES and self.median_file <= _SMALL_FILE and not self.blank:
            size = f"{self.median_file:,.0f} bytes"
            return "file", f"{counts}: no blank lines, and files with a median of {size}."
        boundaries = self.paragraphs - self.files  # blank lines between paragraphs
        if boundaries < _FEW_PARAGRAPHS and self.rows > 2 * self.paragraphs:
            return "line", f"{counts}: hardly any blank lines, so each line is a document."
        if not self.blank:
            return "line", f"{counts}: no blank lines, so each line is a document."
        return "paragraph", f"{counts}: blank lines separate documents."


def _measure_layout(plain: list[FileSample], encoding: str) -> _Layout:
    widths: Counter[int] = Counter()
    blank = paragraphs = 0
    for sample in plain:
        inside = False
        with sample.opened() as stream:
            for line in read_lines(str(sample.file), stream, encoding):
                nonblank = not isinstance(line, str) or bool(line.strip())
                paragraphs += nonblank and not inside
                inside = nonblank
                blank += not nonblank
                widths[len(line) if isinstance(line, str) else 0] += nonblank
    return _Layout(
        files=len(plain),
        median_file=median(len(sample.content) / sample.share for sample in plain),
        rows=widths.total(),
        blank=blank,
        paragraphs=paragraphs,
        median_line=weighted_median(widths),
    )


def weighted_median(counts: Counter[int]) -> float:
    """Return the (lower) median of values, given the number of occurrences of each."""
    left = counts.total() / 2
    for value in sorted(counts):
        left -= counts[value]
        if left <= 0:
            return float(value)
    return 0.0
