"""Prepare a text: write a folder of windows that all trials on a machine map into memory.

There are three passes: read the sources into a document store, train the tokenizer on the training
documents, and cut these into windows. Memory is bounded by one batch of documents plus twenty
bytes per document. The driver prepares each text once, before trials start. A folder gets its
final name only when it is complete.

Letters: D documents.
"""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path as File
from typing import Any

import numpy as np

from lab.config.code_digest import TEXT, code_digest
from lab.config.data import (
    DataConfig,
    LearnedTokenizer,
    TokenizerConfig,
    TrainedTokenizer,
    WordPieceFile,
)
from lab.config.metrics import PAIRS
from lab.config.trial import content_hash
from lab.data import document_store, sources, tokenizers
from lab.data.contamination import EvaluationNgrams
from lab.data.document_selection import (
    SURVEYED_BYTES,
    Mask,
    read_documents,
    sample_for_tokenizer,
    sample_of_part,
    split_documents,
)
from lab.data.passages import write_passages
from lab.data.prepared_files import check_files, read_facts, write_facts
from lab.data.text_parts import (
    Say,
    describe_skipped,
    mixture_parts,
    naming_part,
    pin_revisions,
    progress_lines,
    read_sources,
)
from lab.data.tokenization import coverage
from lab.data.tokenization.long_words import LongWords, Texts
from lab.data.tokenization.marks import MarkSurvey, survey_marks
from lab.data.tokenization.normalization import word_limit
from lab.data.vocabulary import FIRST_WORD, Vocabulary, open_vocabulary
from lab.data.windows import WindowCounts, WindowWriter, window_type
from lab.errors import UserError
from lab.storage import atomic, temp_dirs
from lab.tasks import embedded, examples

_FORMAT = 3  # version of the files; part of the identity of a text


def prepare_text(data: DataConfig, cache: File, say: Say = lambda _: None) -> File:
    """Return the folder of the prepared text; prepare it first if it does not exist.

    Args:
        data: settings of the text.
        cache: folder that holds prepared texts.
        say: callback for progress messages.

    Raises:
        UserError: the text cannot be prepared with these settings, or was and is damaged now.
    """
    data = pin_revisions(data)
    folder = _folder(data, cache)
    if folder.exists():
        check_files(folder)
    else:
        cache.mkdir(parents=True, exist_ok=True)
        try:
            with (
                temp_dirs.temporary_folder(cache, atomic.PREFIX) as scratch,
                atomic.write_folder(folder) as partial,
            ):
                store = document_store.DocumentStore(scratch / "documents.bin")
                _write(data, folder.name.removeprefix("text-"), store, partial, say)
        except FileExistsError:
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
    folder = _folder(pin_revisions(data), cache)
    return folder if folder.exists() else None


def _folder(pinned: DataConfig, cache: File) -> File:
    return cache / f"text-{_identity(pinned)}"


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
    data, vocabulary = pin_revisions(data), open_vocabulary(folder)
    with temp_dirs.temporary_folder(folder.parent, atomic.PREFIX) as scratch:
        store = document_store.DocumentStore(scratch / "documents.bin")
        read_sources(data, store, say)
        train_D, _ = split_documents(data, store)
        reported = _question_ngrams(new, vocabulary)
        writer = WindowWriter(
            data=data, vocabulary=vocabulary, parts=len(mixture_parts(data)), reported=reported
        )
        writer.write(scratch / "windows.bin", read_documents(store, train_D))
        facts["overlaps"] += [asdict(overlap) for overlap in reported.overlaps()]
        write_facts(folder, facts)


def _identity(data: DataConfig) -> str:
    """Return a hash of the content and settings of a text; paths of files are not part of it."""
    contents = []
    for number, part in enumerate(mixture_parts(data)):
        with naming_part(data, number):
            identity = sources.source_identity(part.source)
        contents.append([part.weight, _without_paths(asdict(part.source)), identity])
    settings = asdict(data) | {
        "form": _FORMAT,
        "code": code_digest(TEXT),
        "source": contents,
        "tokenizer": tokenizers.tokenizer_identity(data.tokenizer),
        "decontaminate": [
            content_hash(examples.evaluation_questions(name)) for name in data.decontaminate
        ],
    }
    return content_hash(settings)


def _without_paths(source: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a source without its paths."""
    return {key: value for key, value in source.items() if key not in ("paths", "path")}


def _write(
    data: DataConfig, identity: str, store: document_store.DocumentStore, folder: File, say: Say
) -> None:
    learned = isinstance(data.tokenizer, LearnedTokenizer)
    if not learned:  # reports errors in an existing tokenizer before the sources are read
        tokenizers.build_vocabulary(data.tokenizer, data.vocab, tuple)
    source_counts = read_sources(data, store, say)
    try:
        train_D, held_D = split_documents(data, store)
    except UserError as error:
        raise UserError(f"{error}{describe_skipped(source_counts)}") from None
    weights = [part.weight for part in mixture_parts(data)]
    sample_D = sample_for_tokenizer(store, train_D, weights)
    if learned:
        say(f"tokenizer: training on {int(sample_D.sum()):,} of {len(train_D):,} documents")
    surveyed_D = sample_for_tokenizer(store, train_D, weights, SURVEYED_BYTES)
    surveyed = _survey_marks(data.tokenizer, lambda: store.read(surveyed_D))
    settings = _with_marks(data.tokenizer, surveyed)
    long_words = _count_long_words(settings, store, sample_D)
    vocabulary = tokenizers.build_vocabulary(settings, data.vocab, lambda: store.read(sample_D))
    measured = [
        coverage.measure_coverage(
            vocabulary, store.read(sample_of_part(store, train_D | held_D, part))
        )
        for part in range(len(weights))
    ]
    coverage.check_coverage(data.tokenizer, measured)
    reported = _question_ngrams((*embedded.EMBEDDED, PAIRS, *data.decontaminate), vocabulary)
    writer = WindowWriter(
        data=data,
        vocabulary=vocabulary,
        parts=len(weights),
        reported=reported,
        unwanted=_question_ngrams(data.decontaminate, vocabulary),
        say=progress_lines(say, "training windows: {:,.0f} million characters"),
    )
    train = writer.write(folder / "train.bin", read_documents(store, train_D))
    writer = replace(writer, reported=EvaluationNgrams({}), unwanted=EvaluationNgrams({}))
    held_out = writer.write(folder / "held_out.bin", read_documents(store, held_D))
    _check_windows(data, train, held_out)
    np.save(folder / "counts.npy", train.counts_V)
    np.save(folder / "held_out_documents.npy", np.array(held_out.windows_D, np.int64))
    write_passages(folder, store.read(held_D), held_out.characters)
    vocabulary.save(folder)
    facts = {
        "fingerprint": identity,
        "length": data.length,
        "dtype": np.dtype(window_type(vocabulary.size)).name,
        "weights": weights,
        **source_counts,
        "coverage": [part.facts() for part in measured],
        "marks": None if surveyed is None else surveyed.facts(),
        "left_out": {
            "words": sum(part.words for part in long_words),
            "characters": sum(part.characters for part in long_words),
        },
        "duplicates": int((~document_store.first_occurrence_D(store.digests_D())).sum()),
        "train": train.facts(data.length),
        "held_out": held_out.facts(data.length),
        "overlaps": [asdict(overlap) for overlap in reported.overlaps()],
        "data": asdict(data),
    }
    write_facts(folder, facts)


def _survey_marks(settings: TokenizerConfig, texts: Texts) -> MarkSurvey | None:
    """Return the survey of marks for a WordPiece tokenizer; None for other tokenizers."""
    if isinstance(settings, TrainedTokenizer | WordPieceFile):
        return survey_marks(settings, texts)
    return None


def _with_marks(settings: TokenizerConfig, surveyed: MarkSurvey | None) -> TokenizerConfig:
    """Return the settings with the treatment of marks that the text decides."""
    if isinstance(settings, TrainedTokenizer) and surveyed is not None:
        return replace(settings, accents=surveyed.accents, joiners=surveyed.joiners)
    return settings


def _count_long_words(
    settings: TokenizerConfig, store: document_store.DocumentStore, sample_D: Mask
) -> list[LongWords]:
    """Return the number of words that training the tokenizer leaves out, of each part.

    Raises:
        UserError: a part has too many of them.
    """
    if not isinstance(settings, TrainedTokenizer):
        return []
    limit, part_D = word_limit(settings), store.part_D()
    parts = [
        limit.count(partial(store.read, sample_D & (part_D == number)))
        for number in range(len(store.parts))
    ]
    coverage.check_long_words(settings, parts)
    return parts


def _question_ngrams(names: tuple[str, ...], vocabulary: Vocabulary) -> EvaluationNgrams:
    return EvaluationNgrams(
        {name: vocabulary.encode(examples.evaluation_questions(name)) for name in names}
    )


def _check_windows(data: DataConfig, train: WindowCounts, held_out: WindowCounts) -> None:
    for split, name in ((train, "training"), (held_out, "held-out")):
        if not sum(split.windows):
            raise UserError(
                f"base.data: the {len(split.windows_D)} {name} documents make no window of "
                f"{data.length} tokens; increase base.data.share or base.data.held_out, or "
                f"decrease base.data.length"
            )
        if not split.counts_V[FIRST_WORD:].any():
            raise UserError(
                f"base.data.tokenizer: all tokens of the {name} windows are unknown; take kind "
                f"byte_level, or a vocabulary that fits the text"
            )
    for number, windows in enumerate(train.windows):
        if not windows:
            raise UserError(
                f"base.data.source.parts.{number}: the documents make no training window of "
                f"{data.length} tokens"
            )
