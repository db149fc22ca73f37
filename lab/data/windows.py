"""Write documents to a file of windows, batch by batch, and count tokens, words and padding.

Letters: D documents, N windows, T positions, V vocabulary.
"""

import os
from array import array
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

_BATCH = 2**20  # characters of text per core in a batch
_MOST = 2**23  # largest batch over all cores, in characters

_In = TypeVar("_In")
_Out = TypeVar("_Out")
Lines = list[Ids]


class Document(NamedTuple):
    """A document to be cut into windows.

    Attributes:
        text: text of the document.
        seed: seed of the random choices in the "segments" layout.
        part: index of the part of the mixture that the document comes from.
    """

    text: str
    seed: int
    part: int


@dataclass
class WindowCounts:
    """Counts over the documents and windows of a file.

    Attributes:
        windows: number of windows of each part of the mixture; the file holds the parts in order.
        counts_V: frequency of each token in the windows; 0 for [PAD], [CLS], [SEP] and [MASK].
        windows_D: number of windows of each document, in the order of the file.
        padding: number of padded positions in the windows.
        characters: number of characters of the documents.
        words: number of words of the documents, separated by white space.
        tokens: number of tokens of the documents before they are cut into windows.
        unknown: number of [UNK] among `tokens`.
        cut: number of lines removed because they overlap with a task's evaluation split.
    """

    windows: list[int]
    counts_V: Ids
    windows_D: "array[int]" = field(default_factory=lambda: array("I"))
    padding: int = 0
    characters: int = 0
    words: int = 0
    tokens: int = 0
    unknown: int = 0
    cut: int = 0

    def facts(self, length: int) -> dict[str, Any]:
        """Return the counts and their ratios as a mapping for `text.json`."""
        positions = sum(self.windows) * length
        return {
            "documents": len(self.windows_D),
            "windows": sum(self.windows),
            "parts": self.windows,
            "padded_share": self.padding / positions if positions else 0.0,
            "characters": self.characters,
            "words": self.words,
            "tokens": self.tokens,
            "tokens_in_windows": int(self.counts_V.sum()),
            "tokens_per_word": self.tokens / max(1, self.words),
            "unknown_rate": self.unknown / max(1, self.tokens),
            "lines_cut": self.cut,
            "without_window": self.windows_D.count(0),
        }


@dataclass(frozen=True, kw_only=True)
class WindowWriter:
    """Tokenizes documents, cuts them into windows and writes these to a file.

    Attributes:
        data: settings of the text: window length, layout and decontamination.
        vocabulary: vocabulary of the windows.
        parts: number of parts of the mixture.
        reported: evaluation questions; overlap with them is counted, and lines are kept.
        unwanted: evaluation questions; lines that overlap with them are removed.
        say: callback for progress, called with the number of characters read.
    """

    data: DataConfig
    vocabulary: Vocabulary
    parts: int
    reported: EvaluationNgrams = field(default_factory=lambda: EvaluationNgrams({}))
    unwanted: EvaluationNgrams = field(default_factory=lambda: EvaluationNgrams({}))
    say: Callable[[float], None] = lambda _: None

    def write(self, file: File, documents: Iterable[Document]) -> WindowCounts:
        """Write the windows of all documents to a file and return the counts.

        Args:
            file: file to write; an existing one is replaced.
            documents: documents, sorted by part.
        """
        size = self.vocabulary.size
        counts = WindowCounts(windows=[0] * self.parts, counts_V=np.zeros(size, np.int64))
        with file.open("wb") as out:
            for batch, encoded in process_ahead(self._encode, batch_documents(documents)):
                rows = list(self._cut_windows(batch, encoded, counts))
                windows_NT = np.concatenate(rows)
                windows_NT.astype(window_type(size)).tofile(out)
                counts_V = np.bincount(windows_NT.reshape(-1), minlength=size)
                counts.padding += int(counts_V[PAD])
                counts_V[[PAD, CLS, SEP, MASK]] = 0
                counts.counts_V += counts_V
                self.say(counts.characters)
        return counts

    def _encode(self, batch: list[Document]) -> list[Lines]:
        """Return the token ids of each document, by line if the layout or removal needs lines."""
        by_line = self.data.layout == "segments" or bool(self.data.decontaminate)
        texts = [document.text.split("\n") if by_line else [document.text] for document in batch]
        encoded = iter(self.vocabulary.encode([line for lines in texts for line in lines]))
        return [[next(encoded) for _ in lines] for lines in texts]

    def _cut_windows(
        self, batch: list[Document], encoded: list[Lines], counts: WindowCounts
    ) -> Iterator[npt.NDArray[np.int64]]:
        """Yield the windows of each document, shape (N, T), and add to `counts`."""
        ids_T = np.concatenate(
            [np.empty(0, np.int64), *(ids for lines in encoded for ids in lines)]
        )
        counts.tokens += len(ids_T)
        counts.unknown += int((ids_T == UNK).sum())
        removed = self._find_unwanted(ids_T, encoded)
        counts.cut += sum(map(sum, removed))
        for document, lines, is_removed in zip(batch, encoded, removed, strict=True):
            counts.characters += len(document.text)
            counts.words += len(document.text.split())
            made = 0
            for stretch in remaining_stretches(lines, is_removed):
                rows_NT = pack_document(stretch, self.data.length, self.data.layout, document.seed)
                made += len(rows_NT)
                yield rows_NT
            counts.windows[document.part] += made
            counts.windows_D.append(made)
        yield np.empty((0, self.data.length), np.int64)

    def _find_unwanted(self, ids_T: Ids, encoded: list[Lines]) -> list[list[bool]]:
        """Return for each line whether it is removed; record the overlap with all questions."""
        sizes = [sum(map(len, lines)) for lines in encoded]
        document_T = np.repeat(np.arange(len(encoded)), sizes)
        self.reported.shared_T(ids_T, document_T)
        shared_T = self.unwanted.shared_T(ids_T, document_T)
        if not shared_T.any():
            return [[False] * len(lines) for lines in encoded]
        before_T = np.concatenate([[0], shared_T.cumsum()])  # shared tokens before each position
        ends = np.cumsum([0, *(len(ids) for lines in encoded for ids in lines)])
        is_removed = iter((before_T[ends[1:]] > before_T[ends[:-1]]).tolist())
        return [[next(is_removed) for _ in lines] for lines in encoded]


def remaining_stretches(lines: Lines, removed: list[bool]) -> Iterator[Lines]:
    """Yield the runs of consecutive lines that remain after the removal of lines.

    Args:
        lines: lines of a document.
        removed: whether each line is removed.
    """
    stretch: Lines = []
    for line, is_removed in zip(lines, removed, strict=True):
        if not is_removed:
            stretch.append(line)
        elif stretch:
            yield stretch
            stretch = []
    if stretch:
        yield stretch


def window_type(size: int) -> type[np.unsignedinteger[Any]]:
    """Return the smallest integer type on disk for a vocabulary of `size` tokens."""
    return np.uint16 if size <= 2**16 else np.uint32


def batch_documents(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Yield lists of documents; a list ends when its text reaches `_BATCH` for each core."""
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
    """Yield each item with its result while a thread computes the result of the next item."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        previous = None
        for item in items:
            current = item, pool.submit(work, item)
            if previous is not None:
                yield previous[0], previous[1].result()
            previous = current
        if previous is not None:
            yield previous[0], previous[1].result()
