"""Read prepared windows; a batch is a function of its position in the training order.

Letters: B windows of a batch, N windows, T positions, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lab.data.passages import Passage, read_passages
from lab.data.prepared_files import check_files, read_facts
from lab.data.vocabulary import PAD, SEP, Vocabulary, open_vocabulary

Windows = npt.NDArray[np.unsignedinteger[Any]]


class Batch(NamedTuple):
    """A batch of windows.

    Attributes:
        ids_BT: token ids, int64.
        example_B: index of each window in its text, int64; a key of the counter-based random
            numbers.
        offset: row of the position table for the first position of the windows.
    """

    ids_BT: Tensor
    example_B: Tensor
    offset: int = 0

    @property
    def segment_BT(self) -> Tensor:
        """Segment of each position: 0 padding, 1 first, 2 second (see `segment_ids`)."""
        return segment_ids(self.ids_BT)

    def to(self, device: torch.device) -> "Batch":
        """Return a copy of the batch on `device`."""
        return self._replace(ids_BT=self.ids_BT.to(device), example_B=self.example_B.to(device))

    def rows(self, start: int, end: int) -> "Batch":
        """Return the windows from index `start` up to, but not including, `end`."""
        return self._replace(ids_BT=self.ids_BT[start:end], example_B=self.example_B[start:end])


def segment_ids(ids_BT: Tensor) -> Tensor:
    """Return the segment of each position: 0 padding, 1 first, 2 second segment; int64, (B, T).

    A segment ends with its [SEP]. Use only on the original text: a generator may sample a [SEP].
    """
    ends_BT = ids_BT == SEP
    before_BT = ends_BT.cumsum(1) - ends_BT.long()
    return torch.where(ids_BT == PAD, 0, before_BT.clamp(max=1) + 1)


class PartWindows(NamedTuple):
    """Size and weight of one part of a mixture, a contiguous range of the training windows.

    Attributes:
        windows: number of windows in the part.
        weight: relative share of the windows read in training that come from this part.
    """

    windows: int
    weight: float


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A prepared text, opened for reading.

    Attributes:
        fingerprint: hash of the documents, the tokenizer and the windowing settings.
        train_NT: training windows, memory-mapped.
        held_out_NT: windows of documents excluded from training, memory-mapped.
        document_N: index of the document of each held-out window, ascending.
        parts: parts of the mixture in the order of `train_NT`; a single one without a mixture.
        vocabulary: tokenizer and token ids of the text.
        counts_V: frequency of each token in the training windows; 0 for [PAD], [CLS], [SEP] and
            [MASK].
        passages: passages of the held-out documents as plain text (`data.passages`).
    """

    fingerprint: str
    train_NT: Windows
    held_out_NT: Windows
    document_N: npt.NDArray[np.int64]
    parts: tuple[PartWindows, ...]
    vocabulary: Vocabulary
    counts_V: npt.NDArray[np.int64]
    passages: tuple[Passage, ...]

    @property
    def epoch_tokens(self) -> float:
        """Positions that training reads until a part of the text begins to be repeated."""
        length, total = self.train_NT.shape[1], sum(part.weight for part in self.parts)
        return float(min(length * part.windows * total / part.weight for part in self.parts))


def open_corpus(folder: File) -> Corpus:
    """Open a folder that `preparation.prepare_text` wrote; the windows are memory-mapped.

    Raises:
        UserError: a file is missing or damaged.
    """
    metadata = read_facts(folder)
    check_files(folder)

    def windows(split: str) -> Windows:
        shape = (metadata[split]["windows"], metadata["length"])
        return np.memmap(folder / f"{split}.bin", metadata["dtype"], "r", shape=shape)

    return Corpus(
        fingerprint=metadata["fingerprint"],
        train_NT=windows("train"),
        held_out_NT=windows("held_out"),
        document_N=_read_document_indices(folder),
        parts=tuple(map(PartWindows, metadata["train"]["parts"], metadata["weights"])),
        vocabulary=open_vocabulary(folder),
        counts_V=np.load(folder / "counts.npy", allow_pickle=False),
        passages=read_passages(folder),
    )


def _read_document_indices(folder: File) -> npt.NDArray[np.int64]:
    """Return the index of the document of each held-out window."""
    windows_D = np.load(folder / "held_out_documents.npy", allow_pickle=False)
    return np.repeat(np.arange(len(windows_D)), windows_D)


class Batches:
    """The training windows in an endless seeded order, with random access by position.

    An epoch has as many windows as the text. In a mixture, each part contributes its share of
    every epoch and continues in the next epoch where it stopped, so no window of a part is read
    again before all windows of that part have been read. A batch may span two epochs.

    Args:
        windows_NT: training windows.
        seed: seed of the order.
        parts: parts of the mixture in the order of `windows_NT`; by default a single one.
    """

    def __init__(self, windows_NT: Windows, seed: int, parts: Sequence[PartWindows] = ()) -> None:
        self._windows_NT = windows_NT
        self._seed = seed
        self._parts = tuple(parts) or (PartWindows(len(windows_NT), 1.0),)
        self._epoch = -1
        self._order_N: npt.NDArray[np.int64] = np.empty(0, np.int64)

    def __len__(self) -> int:
        """Return the number of windows, which is that of an epoch."""
        return len(self._windows_NT)

    def between(self, start: int, end: int) -> Batch:
        """Return the windows at positions `start` to `end - 1` of the order."""
        N = len(self._windows_NT)
        rows_B = np.array([self._row(*divmod(position, N)) for position in range(start, end)])
        ids_BT = torch.from_numpy(self._windows_NT[rows_B].astype(np.int64))
        return Batch(ids_BT, torch.from_numpy(rows_B))

    def _row(self, epoch: int, position: int) -> int:
        if epoch != self._epoch:
            self._order_N = self._order(epoch)
            self._epoch = epoch
        return int(self._order_N[position])

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return the rows of an epoch: the next windows of each part, shuffled together."""
        weights = np.array([part.weight for part in self._parts])
        ends = np.round(len(self._windows_NT) * weights.cumsum() / weights.sum()).astype(int)
        quotas = np.diff(ends, prepend=0).tolist()
        first, chosen = 0, []
        for number, (part, quota) in enumerate(zip(self._parts, quotas, strict=True)):
            chosen.append(first + self._next(number, part.windows, epoch * quota, quota))
            first += part.windows
        return np.random.default_rng([self._seed, epoch]).permutation(np.concatenate(chosen))

    def _next(self, number: int, windows: int, start: int, count: int) -> npt.NDArray[np.int64]:
        """Return elements `start` to `start + count - 1` of concatenated permutations of a part.

        Round r of the part is the permutation seeded with [seed, r, part number].
        """
        rounds = range(start // windows, (start + count - 1) // windows + 1)
        permutations = [
            np.random.default_rng([self._seed, round_, number]).permutation(windows)
            for round_ in rounds
        ]
        skipped = start - rounds.start * windows
        return np.concatenate([np.empty(0, np.int64), *permutations])[skipped : skipped + count]
