"""Text -> a folder of windows that all trials of a machine map into memory.

Three passes: sources are read into a spool, the tokenizer learns from the documents that are kept,
and these become windows. Memory is bounded by a batch and sixteen bytes a document. Done once for
each content, by the driver, before trials start; a folder that has its name is complete.

Letters: D documents.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path as File
from typing import Any

import numpy as np
import numpy.typing as npt

from lab.config.data import DataConfig, HubDataset, Mixture, MixturePart, TrainedTokenizer
from lab.config.trial import content_hash
from lab.data import document_store, hub, sources, tokenizers
from lab.data.contamination import EvaluationNgrams
from lab.data.vocabulary import Vocabulary, open_vocabulary
from lab.data.windows import Document, WindowCounts, WindowWriter, window_type
from lab.errors import UserError
from lab.storage import temp_dirs
from lab.tasks import embedded, examples

_FORM = 2  # of what is written; another one is another text
_LEARNT = 2**27  # bytes of text that a tokenizer is trained on, at most
_SHARE, _HELD_OUT, _SAMPLE = 1, 2, 3  # purposes of a document's place
_SAID = 2**26  # bytes between two lines of progress

Say = Callable[[str], None]
Chosen = npt.NDArray[np.bool_]


def prepare_text(data: DataConfig, cache: File, say: Say = lambda _: None) -> File:
    """Return the folder of the prepared text, made first if it is not there.

    Args:
        data: what is asked for.
        cache: folder of prepared texts.
        say: called with lines of progress.

    Raises:
        UserError: the text cannot be had as it is asked for.
    """
    data = _pinned(data)
    folder = _folder(data, cache)
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with temp_dirs.temporary_folder(cache, "partial-") as partial:
            made = partial / "text"
            made.mkdir()
            _write(data, folder.name.removeprefix("text-"), partial, say)
            try:
                made.replace(folder)
            except OSError:
                if not folder.exists():  # another sweep may have finished the same text first
                    raise
    return folder


def find_prepared(data: DataConfig, cache: File) -> File | None:
    """Return the folder of a text that has been prepared before; None where it has not.

    Raises:
        UserError: its sources cannot be read.
    """
    folder = _folder(_pinned(data), cache)
    return folder if folder.exists() else None


def _folder(pinned: DataConfig, cache: File) -> File:
    return cache / f"text-{_identity(pinned)}"


def read_facts(folder: File) -> dict[str, Any]:
    """Return what was counted when a text was prepared."""
    found: dict[str, Any] = json.loads((folder / "text.json").read_text())
    return found


def describe_text(folder: File) -> str:
    """Return what a report says of a prepared text."""
    said = read_facts(folder)
    train = said["train"]
    told = ", ".join(
        f"{overlap['found']:,} of {overlap['questions'] - overlap['short']:,} of {overlap['task']}"
        for overlap in said["overlaps"]
    )
    return (
        f"{folder.name}: {train['windows']:,} windows of {said['length']}, "
        f"{train['tokens_in_windows']:,} tokens, {train['unknown_rate']:.2%} unknown, "
        f"{train['padded_share']:.2%} of positions padded; {said['duplicates']:,} duplicates "
        f"dropped; questions that share 13 tokens in a row with it: {told}."
    )


def add_overlaps(
    folder: File, data: DataConfig, names: tuple[str, ...], say: Say = lambda _: None
) -> None:
    """Add to the facts how much of more tasks' questions a prepared text holds.

    The sources are read again for it: windows do not hold all that stands in a row.

    Args:
        folder: of the prepared text.
        data: its settings.
        names: tasks; those that were counted before are left out.
        say: called with lines of progress.
    """
    said = read_facts(folder)
    new = tuple(name for name in names if name not in {o["task"] for o in said["overlaps"]})
    if not new:
        return
    say(f"looking for the questions of {', '.join(new)} in the text")
    data, vocabulary = _pinned(data), open_vocabulary(folder)
    with temp_dirs.temporary_folder(folder.parent, "partial-") as partial:
        spooled = document_store.DocumentStore(partial / "documents.bin")
        _read(data, spooled, say)
        train_D, _ = _split(data, spooled)
        reported = _questions(new, vocabulary)
        how = WindowWriter(
            data=data, vocabulary=vocabulary, parts=len(mixture_parts(data)), reported=reported
        )
        how.write(partial / "again.bin", _documents(spooled, train_D))
        said["overlaps"] += [asdict(overlap) for overlap in reported.overlaps()]
        (partial / "text.json").write_text(json.dumps(said, indent=2) + "\n")
        (partial / "text.json").replace(folder / "text.json")


def mixture_parts(data: DataConfig) -> tuple[MixturePart, ...]:
    """Return what a text is mixed of; one part where it is not."""
    match data.source:
        case Mixture(parts=several):
            return several
        case plain:
            return (MixturePart(weight=1.0, source=plain),)


def _pinned(data: DataConfig) -> DataConfig:
    """Name the commit of what comes from the hub, so that all passes read the same."""
    pinned = tuple(
        replace(part, source=replace(part.source, revision=hub.resolve_commit(part.source)))
        if isinstance(part.source, HubDataset)
        else part
        for part in mixture_parts(data)
    )
    if isinstance(data.source, Mixture):
        return replace(data, source=replace(data.source, parts=pinned))
    return replace(data, source=pinned[0].source)


def _identity(data: DataConfig) -> str:
    """Name a text by its content: where it lies is no part of it."""
    settings = asdict(data) | {
        "form": _FORM,
        "source": [
            [part.weight, _manner(asdict(part.source)), sources.source_identity(part.source)]
            for part in mixture_parts(data)
        ],
        "tokenizer": tokenizers.tokenizer_identity(data.tokenizer),
        "decontaminate": [
            content_hash(examples.evaluation_questions(name)) for name in data.decontaminate
        ],
    }
    return content_hash(settings)


def _manner(source: dict[str, Any]) -> dict[str, Any]:
    """Leave out where a source lies, and keep how it is read."""
    return {key: value for key, value in source.items() if key not in ("paths", "path")}


def _write(data: DataConfig, identity: str, partial: File, say: Say) -> None:
    trained = isinstance(data.tokenizer, TrainedTokenizer)
    if not trained:  # what is given is looked at before anything is read
        tokenizers.build_vocabulary(data.tokenizer, data.vocab, tuple)
    spooled = document_store.DocumentStore(partial / "documents.bin")
    counted = _read(data, spooled, say)
    train_D, held_D = _split(data, spooled)
    learnt_D = _learnt_D(data, spooled, train_D)
    if trained:
        say(f"tokenizer: learning from {int(learnt_D.sum()):,} of {len(train_D):,} documents")
    vocabulary = tokenizers.build_vocabulary(
        data.tokenizer, data.vocab, lambda: spooled.read(learnt_D)
    )
    folder = partial / "text"
    reported = _questions((*embedded.EMBEDDED, *data.decontaminate), vocabulary)
    how = WindowWriter(
        data=data,
        vocabulary=vocabulary,
        parts=len(mixture_parts(data)),
        reported=reported,
        unwanted=_questions(data.decontaminate, vocabulary),
        say=_every(say, "training windows: {:,.0f} million characters"),
    )
    train = how.write(folder / "train.bin", _documents(spooled, train_D))
    how = replace(how, reported=EvaluationNgrams({}), unwanted=EvaluationNgrams({}))
    held_out = how.write(folder / "held_out.bin", _documents(spooled, held_D))
    _check(data, train, held_out)
    np.save(folder / "counts.npy", train.counts_V)
    vocabulary.save(folder)
    body = {
        "fingerprint": identity,
        "length": data.length,
        "dtype": np.dtype(window_type(vocabulary.size)).name,
        "weights": [part.weight for part in mixture_parts(data)],
        **counted,
        "duplicates": int((~document_store.first_occurrence_D(spooled.digests_D())).sum()),
        "train": train.facts(data.length),
        "held_out": held_out.facts(data.length),
        "overlaps": [asdict(overlap) for overlap in reported.overlaps()],
        "data": asdict(data),
    }
    (folder / "text.json").write_text(json.dumps(body, indent=2) + "\n")


def _read(data: DataConfig, spooled: document_store.DocumentStore, say: Say) -> dict[str, Any]:
    """Read all parts into the spool, and return what was counted."""
    skipped: Counter[str] = Counter()
    examples: list[str] = []
    done, progress = 0, _every(say, "read {:,.0f} MB")
    for part in mixture_parts(data):
        read = sources.SourceReader(part.source, data.bad_text)
        for size in spooled.add(read.documents()):
            done += size
            progress(done)
        skipped += read.skipped
        examples += read.examples
    return {
        "documents": sum(spooled.parts),
        "bytes": done,
        "skipped": dict(skipped),
        "examples": examples,
    }


def _every(say: Say, line: str) -> Callable[[float], None]:
    """Return a function that says how far things are, now and then."""
    said = 0.0

    def progress(done: float) -> None:
        nonlocal said
        if done >= said + _SAID:
            said = done
            say(line.format(done / 1e6))

    return progress


def _split(data: DataConfig, spooled: document_store.DocumentStore) -> tuple[Chosen, Chosen]:
    """Return which documents are learnt from and which are held out; a text stands in one only."""
    digests_D = spooled.digests_D()
    used_D = document_store.first_occurrence_D(digests_D) & (
        document_store.hash_fraction_D(digests_D, _SHARE) < data.share
    )
    if used_D.sum() < 2:
        raise UserError(
            f"data: {used_D.sum()} of {len(used_D)} documents are left, and it takes two different "
            f"ones, to learn from and to hold out; take a larger data.share or data.source"
        )
    place_D = np.where(used_D, document_store.hash_fraction_D(digests_D, _HELD_OUT), 2.0)
    held_D = place_D < data.held_out
    if not held_D.any():  # of a few documents the one that comes nearest
        held_D[place_D.argmin()] = True
    if held_D.sum() == used_D.sum():
        held_D[np.where(used_D, place_D, -1.0).argmax()] = False
    return used_D & ~held_D, held_D


def _learnt_D(data: DataConfig, spooled: document_store.DocumentStore, train_D: Chosen) -> Chosen:
    """Return which documents the tokenizer learns from: all, or as many of each part as fit."""
    part_D, bytes_D = spooled.part_D(), spooled.bytes_D()
    place_D = document_store.hash_fraction_D(spooled.digests_D(), _SAMPLE)
    total = sum(part.weight for part in mixture_parts(data))
    learnt_D = np.zeros_like(train_D)
    for number, part in enumerate(mixture_parts(data)):
        mine_D = train_D & (part_D == number)
        room = _LEARNT * part.weight / total
        learnt_D |= mine_D & (place_D < room / max(1, int(bytes_D[mine_D].sum())))
    return learnt_D if learnt_D.any() else train_D


def _documents(spooled: document_store.DocumentStore, wanted_D: Chosen) -> Iterator[Document]:
    seeds = spooled.digests_D()[wanted_D].tolist()
    of_parts = spooled.part_D()[wanted_D].tolist()
    for text, seed, part in zip(spooled.read(wanted_D), seeds, of_parts, strict=True):
        yield Document(text, seed, part)


def _questions(names: tuple[str, ...], vocabulary: Vocabulary) -> EvaluationNgrams:
    return EvaluationNgrams(
        {name: vocabulary.encode(examples.evaluation_questions(name)) for name in names}
    )


def _check(data: DataConfig, train: WindowCounts, held_out: WindowCounts) -> None:
    for split, name in ((train, "to learn from"), (held_out, "held out")):
        if not sum(split.windows):
            raise UserError(
                f"data: {split.documents} documents {name} make no window of {data.length} tokens; "
                f"take a larger data.share or data.held_out"
            )
    for number, windows in enumerate(train.windows):
        if not windows:
            raise UserError(
                f"data.source.parts.{number}: no window of {data.length} tokens to learn from"
            )
