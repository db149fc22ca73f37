"""Prepare a text: write a folder of windows that all trials on a machine map into memory.

There are three passes: read the sources into a document store, train the tokenizer on the training
documents, and cut these into windows. Memory is bounded by one batch of documents plus sixteen
bytes per document. The driver prepares each text once, before trials start. A folder gets its
final name only when it is complete.

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

from lab.config.code_digest import TEXT, code_digest
from lab.config.data import DataConfig, HubDataset, Mixture, MixturePart, TrainedTokenizer
from lab.config.trial import content_hash
from lab.data import document_store, hub, sources, tokenizers
from lab.data.contamination import EvaluationNgrams
from lab.data.vocabulary import Vocabulary, open_vocabulary
from lab.data.windows import Document, WindowCounts, WindowWriter, window_type
from lab.errors import UserError
from lab.storage import temp_dirs
from lab.tasks import embedded, examples

_FORMAT = 2  # version of the files; part of the identity of a text
_TOKENIZER_BYTES = 2**27  # largest amount of text that a tokenizer is trained on
_SHARE, _HELD_OUT, _SAMPLE = 1, 2, 3  # purposes of `hash_fraction_D`
_PROGRESS = 2**26  # bytes or characters between two progress messages

Say = Callable[[str], None]
Mask = npt.NDArray[np.bool_]


def prepare_text(data: DataConfig, cache: File, say: Say = lambda _: None) -> File:
    """Return the folder of the prepared text; prepare it first if it does not exist.

    Args:
        data: settings of the text.
        cache: folder that holds prepared texts.
        say: callback for progress messages.

    Raises:
        UserError: the text cannot be prepared with these settings.
    """
    data = _pin_revisions(data)
    folder = _folder(data, cache)
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with temp_dirs.temporary_folder(cache, "partial-") as partial:
            written = partial / "text"
            written.mkdir()
            _write(data, folder.name.removeprefix("text-"), partial, say)
            try:
                written.replace(folder)
            except OSError:
                if not folder.exists():  # another sweep may have prepared the same text meanwhile
                    raise
    return folder


def find_prepared(data: DataConfig, cache: File) -> File | None:
    """Return the folder of the prepared text, or None if it has not been prepared.

    Args:
        data: settings of the text.
        cache: folder that holds prepared texts.

    Raises:
        UserError: the sources of the text cannot be read.
    """
    folder = _folder(_pin_revisions(data), cache)
    return folder if folder.exists() else None


def _folder(pinned: DataConfig, cache: File) -> File:
    return cache / f"text-{_identity(pinned)}"


def read_facts(folder: File) -> dict[str, Any]:
    """Return the counts and settings (`text.json`) of a prepared text."""
    facts: dict[str, Any] = json.loads((folder / "text.json").read_text())
    return facts


def is_decontaminated(facts: dict[str, Any], overlap: dict[str, Any]) -> bool:
    """Return whether lines that overlap with a task were removed after they were counted.

    Args:
        facts: counts and settings, as `read_facts` returns them.
        overlap: one of `facts["overlaps"]`.
    """
    return overlap["task"] in facts["data"]["decontaminate"]


def describe_text(folder: File) -> str:
    """Return a one-line description of a prepared text, for the report."""
    facts = read_facts(folder)
    train = facts["train"]
    overlaps = ", ".join(
        f"{overlap['found']:,} of {overlap['questions'] - overlap['short']:,} of {overlap['task']}"
        + (" (before these lines were removed)" if is_decontaminated(facts, overlap) else "")
        for overlap in facts["overlaps"]
    )
    return (
        f"{folder.name}: {train['windows']:,} windows of {facts['length']} tokens, "
        f"{train['tokens_in_windows']:,} tokens, {train['unknown_rate']:.2%} unknown, "
        f"{train['padded_share']:.2%} of positions padded; {facts['duplicates']:,} duplicate "
        f"documents dropped; evaluation examples that share 13 consecutive tokens with the text: "
        f"{overlaps}."
    )


def add_overlaps(
    folder: File, data: DataConfig, names: tuple[str, ...], say: Say = lambda _: None
) -> None:
    """Count the overlap of a prepared text with further tasks and add it to `text.json`.

    The sources are read again, because n-grams that cross the border of two windows cannot be
    found in the windows.

    Args:
        folder: folder of the prepared text.
        data: settings of the prepared text.
        names: names of the tasks; tasks counted before are skipped.
        say: callback for progress messages.
    """
    facts = read_facts(folder)
    new = tuple(name for name in names if name not in {o["task"] for o in facts["overlaps"]})
    if not new:
        return
    say(f"counting the overlap of the text with the evaluation of {', '.join(new)}")
    data, vocabulary = _pin_revisions(data), open_vocabulary(folder)
    with temp_dirs.temporary_folder(folder.parent, "partial-") as partial:
        store = document_store.DocumentStore(partial / "documents.bin")
        _read_sources(data, store, say)
        train_D, _ = _split(data, store)
        reported = _question_ngrams(new, vocabulary)
        writer = WindowWriter(
            data=data, vocabulary=vocabulary, parts=len(mixture_parts(data)), reported=reported
        )
        writer.write(partial / "again.bin", _documents(store, train_D))
        facts["overlaps"] += [asdict(overlap) for overlap in reported.overlaps()]
        (partial / "text.json").write_text(json.dumps(facts, indent=2) + "\n")
        (partial / "text.json").replace(folder / "text.json")


def mixture_parts(data: DataConfig) -> tuple[MixturePart, ...]:
    """Return the parts of a mixture; a single part with weight 1 for any other source."""
    match data.source:
        case Mixture(parts=several):
            return several
        case plain:
            return (MixturePart(weight=1.0, source=plain),)


def _pin_revisions(data: DataConfig) -> DataConfig:
    """Replace revisions of the hub by commit hashes, so that all passes read the same data."""
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
    """Return a hash of the content and settings of a text; paths of files are not part of it."""
    settings = asdict(data) | {
        "form": _FORMAT,
        "code": code_digest(TEXT),
        "source": [
            [part.weight, _without_paths(asdict(part.source)), sources.source_identity(part.source)]
            for part in mixture_parts(data)
        ],
        "tokenizer": tokenizers.tokenizer_identity(data.tokenizer),
        "decontaminate": [
            content_hash(examples.evaluation_questions(name)) for name in data.decontaminate
        ],
    }
    return content_hash(settings)


def _without_paths(source: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a source without its paths."""
    return {key: value for key, value in source.items() if key not in ("paths", "path")}


def _write(data: DataConfig, identity: str, partial: File, say: Say) -> None:
    trained = isinstance(data.tokenizer, TrainedTokenizer)
    if not trained:  # reports errors in an existing tokenizer before the sources are read
        tokenizers.build_vocabulary(data.tokenizer, data.vocab, tuple)
    store = document_store.DocumentStore(partial / "documents.bin")
    source_counts = _read_sources(data, store, say)
    train_D, held_D = _split(data, store)
    sample_D = _sample_for_tokenizer(data, store, train_D)
    if trained:
        say(f"tokenizer: training on {int(sample_D.sum()):,} of {len(train_D):,} documents")
    vocabulary = tokenizers.build_vocabulary(
        data.tokenizer, data.vocab, lambda: store.read(sample_D)
    )
    folder = partial / "text"
    reported = _question_ngrams((*embedded.EMBEDDED, *data.decontaminate), vocabulary)
    writer = WindowWriter(
        data=data,
        vocabulary=vocabulary,
        parts=len(mixture_parts(data)),
        reported=reported,
        unwanted=_question_ngrams(data.decontaminate, vocabulary),
        say=_progress(say, "training windows: {:,.0f} million characters"),
    )
    train = writer.write(folder / "train.bin", _documents(store, train_D))
    writer = replace(writer, reported=EvaluationNgrams({}), unwanted=EvaluationNgrams({}))
    held_out = writer.write(folder / "held_out.bin", _documents(store, held_D))
    _check_windows(data, train, held_out)
    np.save(folder / "counts.npy", train.counts_V)
    vocabulary.save(folder)
    facts = {
        "fingerprint": identity,
        "length": data.length,
        "dtype": np.dtype(window_type(vocabulary.size)).name,
        "weights": [part.weight for part in mixture_parts(data)],
        **source_counts,
        "duplicates": int((~document_store.first_occurrence_D(store.digests_D())).sum()),
        "train": train.facts(data.length),
        "held_out": held_out.facts(data.length),
        "overlaps": [asdict(overlap) for overlap in reported.overlaps()],
        "data": asdict(data),
    }
    (folder / "text.json").write_text(json.dumps(facts, indent=2) + "\n")


def _read_sources(
    data: DataConfig, store: document_store.DocumentStore, say: Say
) -> dict[str, Any]:
    """Read all parts into the store; return the counts of documents, bytes and skipped rows."""
    skipped: Counter[str] = Counter()
    examples: list[str] = []
    done, report_progress = 0, _progress(say, "read {:,.0f} MB")
    for part in mixture_parts(data):
        reader = sources.SourceReader(part.source, data.bad_text)
        for size in store.add(reader.documents()):
            done += size
            report_progress(done)
        skipped += reader.skipped
        examples += reader.examples
    return {
        "documents": sum(store.parts),
        "bytes": done,
        "skipped": dict(skipped),
        "examples": examples,
    }


def _progress(say: Say, line: str) -> Callable[[float], None]:
    """Return a callback that reports progress once for every `_PROGRESS` bytes or characters.

    Args:
        say: callback for progress messages.
        line: format of a message; its field is the progress in millions.
    """
    reported = 0.0

    def report_progress(done: float) -> None:
        nonlocal reported
        if done >= reported + _PROGRESS:
            reported = done
            say(line.format(done / 1e6))

    return report_progress


def _split(data: DataConfig, store: document_store.DocumentStore) -> tuple[Mask, Mask]:
    """Return the masks of the training and the held-out documents, without duplicates."""
    digests_D = store.digests_D()
    used_D = document_store.first_occurrence_D(digests_D) & (
        document_store.hash_fraction_D(digests_D, _SHARE) < data.share
    )
    if used_D.sum() < 2:
        raise UserError(
            f"data: {used_D.sum()} of {len(used_D)} documents are left after data.share and the "
            f"removal of duplicates, and at least 2 are needed (training and held-out); increase "
            f"data.share or add documents to data.source"
        )
    fraction_D = np.where(used_D, document_store.hash_fraction_D(digests_D, _HELD_OUT), 2.0)
    held_D = fraction_D < data.held_out
    if not held_D.any():  # possible with few documents: hold out at least one
        held_D[fraction_D.argmin()] = True
    if held_D.sum() == used_D.sum():
        held_D[np.where(used_D, fraction_D, -1.0).argmax()] = False
    return used_D & ~held_D, held_D


def _sample_for_tokenizer(
    data: DataConfig, store: document_store.DocumentStore, train_D: Mask
) -> Mask:
    """Return the mask of the documents that the tokenizer is trained on.

    These are all training documents, or a sample of about `_TOKENIZER_BYTES` in which each part of
    a mixture has its weight.
    """
    part_D, bytes_D = store.part_D(), store.bytes_D()
    fraction_D = document_store.hash_fraction_D(store.digests_D(), _SAMPLE)
    total = sum(part.weight for part in mixture_parts(data))
    sample_D = np.zeros_like(train_D)
    for number, part in enumerate(mixture_parts(data)):
        in_part_D = train_D & (part_D == number)
        room = _TOKENIZER_BYTES * part.weight / total
        sample_D |= in_part_D & (fraction_D < room / max(1, int(bytes_D[in_part_D].sum())))
    return sample_D if sample_D.any() else train_D


def _documents(store: document_store.DocumentStore, selected_D: Mask) -> Iterator[Document]:
    seeds = store.digests_D()[selected_D].tolist()
    parts = store.part_D()[selected_D].tolist()
    for text, seed, part in zip(store.read(selected_D), seeds, parts, strict=True):
        yield Document(text, seed, part)


def _question_ngrams(names: tuple[str, ...], vocabulary: Vocabulary) -> EvaluationNgrams:
    return EvaluationNgrams(
        {name: vocabulary.encode(examples.evaluation_questions(name)) for name in names}
    )


def _check_windows(data: DataConfig, train: WindowCounts, held_out: WindowCounts) -> None:
    for split, name in ((train, "training"), (held_out, "held-out")):
        if not sum(split.windows):
            raise UserError(
                f"data: the {split.documents} {name} documents make no window of {data.length} "
                f"tokens; increase data.share or data.held_out, or decrease data.length"
            )
    for number, windows in enumerate(train.windows):
        if not windows:
            raise UserError(
                f"data.source.parts.{number}: the documents make no training window of "
                f"{data.length} tokens"
            )
