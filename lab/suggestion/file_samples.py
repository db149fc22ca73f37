"""Samples of a text: the decompressed beginning of each file, from which the text is surveyed."""

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path as File
from typing import IO

from lab.config.data import TextFiles
from lab.data import sources, tabular
from lab.data.text_files import DAMAGE, PACKED, Text, unpack_stream
from lab.errors import UserError

_TOTAL = 32 * 2**20  # bytes to read from all files together
_FILE_MIN, _FILE_MAX = 2**16, 8 * 2**20  # bytes to read from one file
_FILES = _TOTAL // _FILE_MIN  # files to read

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class FileSample:
    """The beginning of a file.

    Attributes:
        file: path of the file.
        suffix: suffix of its format, without that of a compression: `.csv` for `a.csv.gz`.
        content: decompressed bytes, up to the end of a line; empty for Parquet.
        rows: number of rows to read from a Parquet file; 0 for other formats.
        share: share of the file that is read, in (0, 1]; estimated for compressed files.
        stored: size of the file on disk, in bytes.
    """

    file: File
    suffix: str
    content: bytes = b""
    rows: int = 0
    share: float = 1.0
    stored: int

    @property
    def whole(self) -> bool:
        """Whether the sample is the whole file."""
        return self.share == 1.0

    @contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """Return a stream of the content; for Parquet, of the whole decompressed file."""
        if self.suffix != ".parquet":
            yield io.BytesIO(self.content)
            return
        with self.file.open("rb") as packed:
            stream = unpack_stream(packed, self.file.suffix.lower())
            with sources.open_seekable(self.file, stream) as whole:
                yield whole

    def texts(self, source: TextFiles) -> Iterator[Text]:
        """Yield the documents of a source, and a `BadText` for each row that is not text.

        Raises:
            UserError: the file lacks the source's column, or the column holds no text.
        """
        with self.opened() as stream:
            if self.suffix == ".parquet":
                rows = tabular.read_parquet(str(self.file), stream, source.column)
                yield from islice(rows, self.rows)
                return
            previous: Text | None = None
            for text in sources.stream_texts(source, self.file, stream):
                if previous is not None:
                    yield previous
                previous = text
            # A last row that is not text may be a CSV record that the end of the sample cuts.
            if previous is not None and (self.whole or isinstance(previous, str)):
                yield previous


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Samples of a text's files.

    Attributes:
        samples: samples of the files that were read.
        files: number of all files.
        stored: size of all files on disk, in bytes.
    """

    samples: tuple[FileSample, ...]
    files: int
    stored: int

    @property
    def share(self) -> float:
        """Share of the text that was read, in (0, 1], measured in bytes on disk."""
        if len(self.samples) == self.files and all(sample.whole for sample in self.samples):
            return 1.0
        return sum(sample.stored * sample.share for sample in self.samples) / self.stored


def read_samples(paths: tuple[str, ...], say: Say = lambda _: None) -> Samples:
    """Read the beginning of each file; of many files, only of an evenly spaced subset.

    Args:
        paths: files and globs, as in a search space.
        say: callback that receives lines of progress.

    Raises:
        UserError: no file matches, a format is unknown, a file cannot be read, or all are empty.
    """
    files = sources.matching_files(TextFiles(kind="files", paths=paths))
    step = max(1, -(-len(files) // _FILES))
    chosen = files[::step]
    limit = min(_FILE_MAX, max(_FILE_MIN, _TOTAL // len(chosen)))
    samples = []
    for number, file in enumerate(chosen):
        say(f"reading file {number + 1} of {len(chosen)}")
        samples.append(_read_sample(file, limit))
    stored = sum(file.stat().st_size for file in files)
    if not stored:
        raise UserError(f"{files[0]}: empty file")
    return Samples(samples=tuple(samples), files=len(files), stored=stored)


def _read_sample(file: File, limit: int) -> FileSample:
    suffix, stored = sources.detect_format(file), file.stat().st_size
    if suffix == ".parquet":
        return _parquet_sample(FileSample(file=file, suffix=suffix, stored=stored), limit)
    try:
        with file.open("rb") as packed:
            stream = unpack_stream(packed, file.suffix.lower())
            content = stream.read(limit + 1)
            consumed = packed.tell()
    except DAMAGE as error:
        raise UserError(f"{file}: cannot be read: {error}") from None
    if len(content) <= limit:
        return FileSample(file=file, suffix=suffix, content=content, stored=stored)
    content = content[: content.rfind(b"\n") + 1] or content[:limit]
    read = min(consumed, stored - 1) if file.suffix.lower() in PACKED else len(content)
    return FileSample(
        file=file, suffix=suffix, content=content, share=max(read, 1) / stored, stored=stored
    )


def _parquet_sample(sample: FileSample, limit: int) -> FileSample:
    """Return a sample with the number of rows that average to `limit` decompressed bytes."""
    try:
        with sample.opened() as stream:
            rows, size = tabular.read_parquet_size(stream)
    except DAMAGE as error:
        raise UserError(f"{sample.file}: cannot be read: {error}") from None
    share = min(1.0, limit / max(1, size))
    return replace(sample, rows=math.ceil(rows * share), share=share)
