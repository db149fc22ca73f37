"""Documents -> a file of windows, batch by batch, and what is counted on the way.

Letters: D documents, N windows, T positions, V vocabulary.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from lab.config.data import DataConfig
from lab.data.contamination import EvaluationNgrams
from lab.data.packing import pack_document
from lab.data.vocabulary import CLS, MASK, PAD, SEP, UNK, Ids, Vocabulary

_BATCH = 2**20  # bytes of text that a core encodes at once
_MOST = 2**23  # and all cores together

_In = TypeVar("_In")
_Out = TypeVar("_Out")
Lines = list[Ids]


class Document(NamedTuple):
    """One document.

    Attributes:
        text: itself.
        seed: for what is left to chance in it.
        part: of the mixture.
    """

    text: str
    seed: int
    part: int


@dataclass
class WindowCounts:
    """What a file of windows holds.

    Attributes:
        documents: that were read.
        windows: of each part of the mixture, which stand one behind the other.
        padding: positions of them without a token.
        characters: of the documents.
        words: what white space separates in them.
        tokens: they have, before they are cut into windows.
        unknown: of these tokens.
        cut: lines that were left out because a task's evaluation split has them.
        counts_V: how often each token stands in the windows; 0 for special ones.
    """

    windows: list[int]
    counts_V: Ids
    documents: int = 0
    padding: int = 0
    characters: int = 0
    words: int = 0
    tokens: int = 0
    unknown: int = 0
    cut: int = 0

    def facts(self, length: int) -> dict[str, Any]:
        """Return what to tell of it."""
        places = sum(self.windows) * length
        return {
            "documents": self.documents,
            "windows": sum(self.windows),
            "parts": self.windows,
            "padded_share": self.padding / places if places else 0.0,
            "characters": self.characters,
            "words": self.words,
            "tokens": self.tokens,
            "tokens_in_windows": int(self.counts_V.sum()),
            "tokens_per_word": self.tokens / max(1, self.words),
            "unknown_rate": self.unknown / max(1, self.tokens),
            "lines_cut": self.cut,
        }


@dataclass(frozen=True, kw_only=True)
class WindowWriter:
    """How documents become windows.

    Attributes:
        data: length and layout.
        vocabulary: their tokens.
        parts: of the mixture.
        reported: questions whose presence is counted.
        unwanted: questions whose lines are cut out.
        say: called with lines of progress.
    """

    data: DataConfig
    vocabulary: Vocabulary
    parts: int
    reported: EvaluationNgrams = field(default_factory=lambda: EvaluationNgrams({}))
    unwanted: EvaluationNgrams = field(default_factory=lambda: EvaluationNgrams({}))
    say: Callable[[float], None] = lambda _: None

    def write(self, file: File, documents: Iterable[Document]) -> WindowCounts:
        """Write the windows of `documents`, whose parts follow each other, and return counts."""
        size = self.vocabulary.size
        split = WindowCounts(windows=[0] * self.parts, counts_V=np.zeros(size, np.int64))
        with file.open("wb") as out:
            for batch, encoded in process_ahead(self._encode, batch_documents(documents)):
                rows = list(self._windows(batch, encoded, split))
                windows_NT = np.concatenate(rows)
                windows_NT.astype(window_type(size)).tofile(out)
                counts_V = np.bincount(windows_NT.reshape(-1), minlength=size)
                split.padding += int(counts_V[PAD])
                counts_V[[PAD, CLS, SEP, MASK]] = 0
                split.counts_V += counts_V
                self.say(split.characters)
        return split

    def _encode(self, batch: list[Document]) -> list[Lines]:
        """Return each document's tokens, line by line where lines matter."""
        by_line = self.data.layout == "segments" or bool(self.data.decontaminate)
        texts = [document.text.split("\n") if by_line else [document.text] for document in batch]
        encoded = iter(self.vocabulary.encode([line for lines in texts for line in lines]))
        return [[next(encoded) for _ in lines] for lines in texts]

    def _windows(
        self, batch: list[Document], encoded: list[Lines], split: WindowCounts
    ) -> Iterator[npt.NDArray[np.int64]]:
        """Yield the windows of each document, and count."""
        ids_T = np.concatenate(
            [np.empty(0, np.int64), *(ids for lines in encoded for ids in lines)]
        )
        split.documents += len(batch)
        split.tokens += len(ids_T)
        split.unknown += int((ids_T == UNK).sum())
        cut = self._cut(ids_T, encoded)
        split.cut += sum(map(sum, cut))
        for document, lines, gone in zip(batch, encoded, cut, strict=True):
            split.characters += len(document.text)
            split.words += len(document.text.split())
            for stretch in remaining_stretches(lines, gone):
                rows_NT = pack_document(stretch, self.data.length, self.data.layout, document.seed)
                split.windows[document.part] += len(rows_NT)
                yield rows_NT
        yield np.empty((0, self.data.length), np.int64)

    def _cut(self, ids_T: Ids, encoded: list[Lines]) -> list[list[bool]]:
        """Return which lines of each document go, and count what the questions are shared by."""
        sizes = [sum(map(len, lines)) for lines in encoded]
        document_T = np.repeat(np.arange(len(encoded)), sizes)
        self.reported.shared_T(ids_T, document_T)
        shared_T = self.unwanted.shared_T(ids_T, document_T)
        if not shared_T.any():
            return [[False] * len(lines) for lines in encoded]
        behind_T = np.concatenate([[0], shared_T.cumsum()])
        ends = np.cumsum([0, *(len(ids) for lines in encoded for ids in lines)])
        gone = iter((behind_T[ends[1:]] > behind_T[ends[:-1]]).tolist())
        return [[next(gone) for _ in lines] for lines in encoded]


def remaining_stretches(lines: Lines, gone: list[bool]) -> Iterator[Lines]:
    """Yield what is left of a document between the lines that are gone."""
    left: Lines = []
    for line, goes in zip(lines, gone, strict=True):
        if not goes:
            left.append(line)
        elif left:
            yield left
            left = []
    if left:
        yield left


def window_type(size: int) -> type[np.unsignedinteger[Any]]:
    """Return the type that holds `size` different tokens on disk."""
    return np.uint16 if size <= 2**16 else np.uint32


def batch_documents(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Yield documents in groups of about as much text as the cores encode at once."""
    most = min(_MOST, _BATCH * len(os.sched_getaffinity(0)))
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= most:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def process_ahead(work: Callable[[_In], _Out], items: Iterable[_In]) -> Iterator[tuple[_In, _Out]]:
    """Yield each item and what `work` makes of it, while the next is being worked on."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        before = None
        for item in items:
            doing = item, pool.submit(work, item)
            if before is not None:
                yield before[0], before[1].result()
            before = doing
        if before is not None:
            yield before[0], before[1].result()
