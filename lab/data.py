"""Text -> tokenizer -> packed windows -> batches that are a function of the step.

Documents are the unit of the split (by a hash of their name, so it survives reordering), and no
window crosses a document. Prepared once for each content, by the driver, into a folder that all
trials map into memory.
"""

import hashlib
import json
import lzma
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path as File
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from lab.errors import UserError
from lab.spec import Data, content_hash
from lab.vocabulary import CLS, MASK, PAD, ROLES, SEP, SPECIAL, UNK, Vocabulary, open_vocabulary

_HELD_OUT = 0.02  # share of the documents
_SHORTEST = 8  # a document's last window is dropped below this many tokens


class Batch(NamedTuple):
    """Windows of text.

    Attributes:
        ids_BT: int64 tokens.
        example_B: int64 identities of the windows, for randomness by counter.
    """

    ids_BT: Tensor
    example_B: Tensor

    @property
    def segment_BT(self) -> Tensor:
        """Return where each token stands, as `segments` has it."""
        return segments(self.ids_BT)

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on `device`."""
        return Batch(self.ids_BT.to(device), self.example_B.to(device))


def segments(ids_BT: Tensor) -> Tensor:
    """Return 0 at padding, 1 in a window's first segment and 2 in its second, int64, (B, T).

    A segment ends with its [SEP]. Of the original text only: a generator may write one.
    """
    ends_BT = ids_BT == SEP
    before_BT = ends_BT.cumsum(1) - ends_BT.long()
    return torch.where(ids_BT == PAD, 0, before_BT.clamp(max=1) + 1)


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Prepared text.

    Attributes:
        fingerprint: hash of the text, the tokenizer's settings and the window.
        train_NT: uint16 windows to learn from, mapped from disk.
        held_out_NT: uint16 windows of documents that training never sees.
        vocabulary: its tokens.
    """

    fingerprint: str
    train_NT: npt.NDArray[np.uint16]
    held_out_NT: npt.NDArray[np.uint16]
    vocabulary: Vocabulary

    def counts_V(self) -> npt.NDArray[np.int64]:
        """Return how often each token stands in the training windows; 0 for special ones."""
        counts = np.bincount(self.train_NT.reshape(-1), minlength=self.vocabulary.size)
        counts[[PAD, CLS, SEP, MASK]] = 0
        return counts


def prepare(data: Data, cache: File) -> File:
    """Return the folder of the prepared text, made first if it is not there.

    Atomic: a folder with this name is complete.
    """
    folder = cache / f"text-{_fingerprint(data)}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        partial = File(tempfile.mkdtemp(dir=cache, prefix="partial-"))
        try:
            _write(data, partial)
            partial.replace(folder)
        except OSError:
            if not folder.exists():  # another sweep may have finished the same text first
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def open_corpus(folder: File) -> Corpus:
    """Open what `prepare` wrote; the windows stay on disk until they are read."""
    return Corpus(
        fingerprint=json.loads((folder / "text.json").read_text())["fingerprint"],
        train_NT=np.load(folder / "train.npy", mmap_mode="r"),
        held_out_NT=np.load(folder / "held_out.npy", mmap_mode="r"),
        vocabulary=open_vocabulary(folder),
    )


class Batches:
    """The training windows in a seeded order, without end: batch n is a function of n.

    Each epoch is a permutation of its own; a batch may span two epochs.

    Attributes:
        size: windows of a batch.
    """

    def __init__(self, windows_NT: npt.NDArray[np.uint16], size: int, seed: int) -> None:
        self._windows_NT = windows_NT
        self.size = size
        self._seed = seed
        self._epoch = -1
        self._order_N: npt.NDArray[np.int64] = np.empty(0, np.int64)

    def __getitem__(self, step: int) -> Batch:
        return self.part(step, 0, 1)

    def part(self, step: int, index: int, parts: int) -> Batch:
        """Return the `index`-th of `parts` consecutive parts of a batch, alike in size."""
        N, first = len(self._windows_NT), step * self.size
        ends = (first + self.size * end // parts for end in (index, index + 1))
        places_B = np.arange(*ends)
        rows_B = np.array([self._row(*divmod(place, N)) for place in places_B.tolist()])
        ids_BT = torch.from_numpy(self._windows_NT[rows_B].astype(np.int64))
        return Batch(ids_BT, torch.from_numpy(rows_B))

    def _row(self, epoch: int, place: int) -> int:
        if epoch != self._epoch:
            self._order_N = np.random.default_rng([self._seed, epoch]).permutation(
                len(self._windows_NT)
            )
            self._epoch = epoch
        return int(self._order_N[place])


def documents() -> Iterator[tuple[str, str]]:
    """Yield the embedded corpus as (name, text)."""
    for file in _corpus_files():
        with file.open("rb") as packed, lzma.open(packed, "rt", encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                yield row["doc"], row["text"]


def _corpus_files() -> list[resources.abc.Traversable]:
    folder = resources.files("lab").joinpath("text", "corpus")
    return sorted((f for f in folder.iterdir() if f.name.endswith(".xz")), key=lambda f: f.name)


def _fingerprint(data: Data) -> str:
    text = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in _corpus_files()}
    return content_hash({"text": text, "data": asdict(data), "held_out": _HELD_OUT})


def _place(name: str, purpose: str) -> float:
    """Return a document's place in [0, 1), by a hash of its name."""
    digest = hashlib.sha256(f"{purpose} {name}".encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48


def _write(data: Data, folder: File) -> None:
    chosen = [(n, text) for n, text in documents() if _place(n, "share") < data.share]
    held_out = [_place(name, "held out") < _HELD_OUT for name, _ in chosen]
    if all(held_out) or not any(held_out):
        raise UserError(
            f"data.share: {data.share:g} leaves {held_out.count(False)} documents to learn from "
            f"and {held_out.count(True)} held out; take a larger share"
        )
    texts = [text for _, text in chosen]
    tokenizer = train_tokenizer(
        (text for text, held in zip(texts, held_out, strict=True) if not held), data.vocab
    )
    vocabulary = Vocabulary(tokenizer, dict(zip(ROLES, SPECIAL, strict=True)))
    encoded = [ids.tolist() for ids in vocabulary.encode(texts)]
    for file, wanted in (("train.npy", False), ("held_out.npy", True)):
        split = (ids for ids, held in zip(encoded, held_out, strict=True) if held is wanted)
        rows = [window for ids in split for window in windows(ids, data.length)]
        np.save(folder / file, np.array(rows, dtype=np.uint16))
    vocabulary.save(folder)
    facts = {"fingerprint": _fingerprint(data), **asdict(data)}
    (folder / "text.json").write_text(json.dumps(facts, indent=2) + "\n")


def train_tokenizer(texts: Iterator[str], vocab: int) -> Tokenizer:
    """Train lower-case WordPiece with BERT's normalisation and splitting.

    The library numbers the alphabet in the order of a hash map and breaks ties between merges by
    number, so the same text would give another vocabulary each time. Hence twice: once to find
    the alphabet, once with its order given.
    """
    kept = list(texts)
    alphabet = sorted(set(_train(kept, 0, SPECIAL)) - set(SPECIAL))
    pieces = _train(kept, vocab, (*SPECIAL, *alphabet))
    tokenizer = _split_as_bert(models.WordPiece(pieces, unk_token=SPECIAL[UNK]))
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def _train(texts: list[str], vocab: int, first: tuple[str, ...]) -> dict[str, int]:
    tokenizer = _split_as_bert(models.WordPiece(unk_token=SPECIAL[UNK]))
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab, special_tokens=list(first), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.get_vocab()


def _split_as_bert(model: models.WordPiece) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def windows(ids: list[int], length: int) -> Iterator[list[int]]:
    """Yield a document's tokens as [CLS] … [SEP] windows of `length`, the last one padded."""
    room = length - 2
    for start in range(0, len(ids), room):
        piece = ids[start : start + room]
        if len(piece) >= min(_SHORTEST, room):
            yield [CLS, *piece, SEP] + [PAD] * (room - len(piece))
