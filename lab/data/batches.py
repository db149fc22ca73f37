"""Prepared windows -> batches that are a function of the step.

Letters: B windows of a batch, N windows, T positions, V vocabulary.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lab.data.vocabulary import PAD, SEP, Vocabulary, open_vocabulary

Windows = npt.NDArray[np.unsignedinteger[Any]]


class Batch(NamedTuple):
    """Windows of text.

    Attributes:
        ids_BT: int64 tokens.
        example_B: int64 identities of the windows, for randomness by counter.
        offset: row of the position table at which the windows begin.
    """

    ids_BT: Tensor
    example_B: Tensor
    offset: int = 0

    @property
    def segment_BT(self) -> Tensor:
        """Return where each token stands, as `segment_ids` has it."""
        return segment_ids(self.ids_BT)

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on `device`."""
        return self._replace(ids_BT=self.ids_BT.to(device), example_B=self.example_B.to(device))

    def rows(self, start: int, end: int) -> "Batch":
        """Return some of the windows."""
        return self._replace(ids_BT=self.ids_BT[start:end], example_B=self.example_B[start:end])


def segment_ids(ids_BT: Tensor) -> Tensor:
    """Return 0 at padding, 1 in a window's first segment and 2 in its second, int64, (B, T).

    A segment ends with its [SEP]. Of the original text only: a generator may write one.
    """
    ends_BT = ids_BT == SEP
    before_BT = ends_BT.cumsum(1) - ends_BT.long()
    return torch.where(ids_BT == PAD, 0, before_BT.clamp(max=1) + 1)


class PartWindows(NamedTuple):
    """Some windows of a text that stand together.

    Attributes:
        windows: how many.
        weight: their share of what is read, relative to the other parts' weights.
    """

    windows: int
    weight: float


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Prepared text.

    Attributes:
        fingerprint: names its content, its tokenizer and how it was cut.
        train_NT: windows to learn from, mapped from disk.
        held_out_NT: windows of documents that training never sees.
        parts: of the training windows, in their order; one where the text is no mixture.
        vocabulary: its tokens.
        counts_V: how often each token stands in the training windows; 0 for special ones.
    """

    fingerprint: str
    train_NT: Windows
    held_out_NT: Windows
    parts: tuple[PartWindows, ...]
    vocabulary: Vocabulary
    counts_V: npt.NDArray[np.int64]


def open_corpus(folder: File) -> Corpus:
    """Open what `preparation` wrote; the windows stay on disk until they are read."""
    facts = json.loads((folder / "text.json").read_text())

    def windows(split: str) -> Windows:
        shape = (facts[split]["windows"], facts["length"])
        return np.memmap(folder / f"{split}.bin", facts["dtype"], "r", shape=shape)

    return Corpus(
        fingerprint=facts["fingerprint"],
        train_NT=windows("train"),
        held_out_NT=windows("held_out"),
        parts=tuple(map(PartWindows, facts["train"]["parts"], facts["weights"])),
        vocabulary=open_vocabulary(folder),
        counts_V=np.load(folder / "counts.npy", allow_pickle=False),
    )


class Batches:
    """The training windows in a seeded order, without end: a batch is a function of its place.

    An epoch is as many windows as there are. Of a mixture each part gives its share of them, and
    goes on in the next epoch where it stopped: no window of a part is read twice before all of it
    has been read once. A batch may span two epochs.
    """

    def __init__(self, windows_NT: Windows, seed: int, parts: Sequence[PartWindows] = ()) -> None:
        self._windows_NT = windows_NT
        self._seed = seed
        self._parts = tuple(parts) or (PartWindows(len(windows_NT), 1.0),)
        self._epoch = -1
        self._order_N: npt.NDArray[np.int64] = np.empty(0, np.int64)

    def between(self, start: int, end: int) -> Batch:
        """Return the windows from place `start` to before place `end` of the order."""
        N = len(self._windows_NT)
        rows_B = np.array([self._row(*divmod(place, N)) for place in range(start, end)])
        ids_BT = torch.from_numpy(self._windows_NT[rows_B].astype(np.int64))
        return Batch(ids_BT, torch.from_numpy(rows_B))

    def _row(self, epoch: int, place: int) -> int:
        if epoch != self._epoch:
            self._order_N = self._order(epoch)
            self._epoch = epoch
        return int(self._order_N[place])

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return an epoch's windows: each part's next ones, shuffled together."""
        weights = np.array([part.weight for part in self._parts])
        ends = np.round(len(self._windows_NT) * weights.cumsum() / weights.sum()).astype(int)
        quotas = np.diff(ends, prepend=0).tolist()
        first, chosen = 0, []
        for number, (part, quota) in enumerate(zip(self._parts, quotas, strict=True)):
            chosen.append(first + self._next(number, part.windows, epoch * quota, quota))
            first += part.windows
        return np.random.default_rng([self._seed, epoch]).permutation(np.concatenate(chosen))

    def _next(self, number: int, windows: int, start: int, count: int) -> npt.NDArray[np.int64]:
        """Return `count` places from `start` on in an endless row of permutations of a part."""
        rounds = range(start // windows, (start + count - 1) // windows + 1)
        row = [
            np.random.default_rng([self._seed, turn, number]).permutation(windows)
            for turn in rounds
        ]
        skipped = start - rounds.start * windows
        return np.concatenate([np.empty(0, np.int64), *row])[skipped : skipped + count]
