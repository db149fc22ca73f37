"""The beginning of each file of a text, unpacked, as much as is looked at to describe the text."""

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

_TOTAL = 32 * 2**20  # bytes that are read of all files together
_LEAST, _MOST = 2**16, 8 * 2**20  # and of one of them
_FILES = _TOTAL // _LEAST

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class FileSample:
    """The beginning of a file.

    Attributes:
        file: its path.
        suffix: of its format, for example `.csv`, whatever it is packed as.
        content: unpacked bytes, up to the end of a line; empty for Parquet.
        rows: of Parquet, that are read.
        share: of the file that is read, in (0, 1]; estimated where it is packed.
        stored: bytes of the file on disk.
    """

    file: File
    suffix: str
    content: bytes = b""
    rows: int = 0
    share: float = 1.0
    stored: int

    @property
    def whole(self) -> bool:
        """Whether it is the whole file."""
        return self.share == 1.0

    @contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """Return a stream of the content; of Parquet, of the whole unpacked file."""
        if self.suffix != ".parquet":
            yield io.BytesIO(self.content)
            return
        with self.file.open("rb") as packed:
            stream = unpack_stream(packed, self.file.suffix.lower())
            with sources.open_seekable(self.file, stream) as whole:
                yield whole

    def texts(self, source: TextFiles) -> Iterator[Text]:
        """Yield the documents that a source reads, and what is no text.

        Raises:
            UserError: the source's column is not there, or holds no text.
        """
        with self.opened() as stream:
            if self.suffix == ".parquet":
                rows = tabular.read_parquet(str(self.file), stream, source.column)
                yield from islice(rows, self.rows)
                return
            before: Text | None = None
            for text in sources.stream_texts(source, self.file, stream):
                if before is not None:
                    yield before
                before = text
            if before is not None and (self.whole or isinstance(before, str)):
                yield before  # otherwise a record of CSV that the sample's end cuts


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What was read of a text's files.

    Attributes:
        samples: of the files that were looked into.
        files: how many there are.
        stored: bytes of all of them on disk.
    """

    samples: tuple[FileSample, ...]
    files: int
    stored: int

    @property
    def share(self) -> float:
        """Share of the text that was read, in (0, 1], by bytes on disk."""
        if len(self.samples) == self.files and all(one.whole for one in self.samples):
            return 1.0
        return sum(one.stored * one.share for one in self.samples) / self.stored


def read_samples(paths: tuple[str, ...], say: Say = lambda _: None) -> Samples:
    """Read the beginning of the files, of evenly spread ones where there are many.

    Args:
        paths: files and globs, as a search space has them.
        say: called with lines of progress.

    Raises:
        UserError: there is no such file, its format is unknown, or it cannot be opened.
    """
    files = sources.matching_files(TextFiles(kind="files", paths=paths))
    step = max(1, -(-len(files) // _FILES))
    chosen = files[::step]
    limit = min(_MOST, max(_LEAST, _TOTAL // len(chosen)))
    samples = []
    for number, file in enumerate(chosen):
        say(f"reading file {number + 1} of {len(chosen)}")
        samples.append(_sample(file, limit))
    stored = sum(file.stat().st_size for file in files)
    if not stored:
        raise UserError(f"{files[0]}: empty file")
    return Samples(samples=tuple(samples), files=len(files), stored=stored)


def _sample(file: File, limit: int) -> FileSample:
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
    """Return a sample of as many rows as have `limit` unpacked bytes in the mean."""
    try:
        with sample.opened() as stream:
            rows, size = tabular.read_parquet_size(stream)
    except DAMAGE as error:
        raise UserError(f"{sample.file}: cannot be read: {error}") from None
    share = min(1.0, limit / max(1, size))
    return replace(sample, rows=math.ceil(rows * share), share=share)
