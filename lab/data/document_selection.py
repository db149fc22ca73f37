"""Select the documents of a text: training, held out, and the sample for the tokenizer.

Documents are selected by hashes of their text, so the selection does not depend on their order.

Letters: D documents.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from lab.config.data import DataConfig
from lab.data.document_store import Digests, DocumentStore, first_occurrence_D, hash_fraction_D
from lab.data.windows import Document
from lab.errors import UserError

_TOKENIZER_BYTES = 2**27  # largest amount of text that a tokenizer is trained on
SURVEYED_BYTES = 2**24  # word counts are taken from at most this amount of text
_MEASURED_BYTES = 2**20  # amount of text of each part that a vocabulary is measured on
_SHARE, _HELD_OUT, _SAMPLE = 1, 2, 3  # purposes of `hash_fraction_D`

Mask = npt.NDArray[np.bool_]


def split_documents(data: DataConfig, store: DocumentStore) -> tuple[Mask, Mask]:
    """Return the masks of the training and the held-out documents, without duplicates.

    Args:
        data: settings of the text, with the shares of used and of held-out documents.
        store: all documents of the text.

    Raises:
        UserError: fewer than two documents are used.
    """
    digests_D = store.digests_D()
    used_D = first_occurrence_D(digests_D) & (hash_fraction_D(digests_D, _SHARE) < data.share)
    _check_count(data, digests_D, used_D)
    fraction_D = np.where(used_D, hash_fraction_D(digests_D, _HELD_OUT), 2.0)
    held_D = fraction_D < data.held_out
    if not held_D.any():  # possible with few documents: hold out at least one
        held_D[fraction_D.argmin()] = True
    if held_D.sum() == used_D.sum():
        held_D[np.where(used_D, fraction_D, -1.0).argmax()] = False
    return used_D & ~held_D, held_D


def _check_count(data: DataConfig, digests_D: Digests, used_D: Mask) -> None:
    """Raise `UserError` with the cause if there are fewer than two documents to use."""
    if used_D.sum() >= 2:
        return
    needed = "at least 2 are needed (training and held-out)"
    distinct = int(first_occurrence_D(digests_D).sum())
    if distinct >= 2:
        raise UserError(
            f"base.data.share: {data.share:g} of {distinct:,} documents leaves {used_D.sum()}, and "
            f"{needed}; increase it"
        )
    cause = (
        "a single document" if len(digests_D) == 1 else f"{len(digests_D):,} copies of one document"
    )
    raise UserError(
        f"base.data.source: {cause}, and {needed}; add text, or divide plain text into more "
        f"documents (base.data.source.documents: paragraph or line)"
    )


def sample_for_tokenizer(
    store: DocumentStore, train_D: Mask, weights: Sequence[float], most: int = _TOKENIZER_BYTES
) -> Mask:
    """Return the mask of the documents that the tokenizer is trained on.

    These are all training documents, or a sample of about `most` bytes in which each part of
    a mixture has its weight.

    Args:
        store: all documents of the text.
        train_D: mask of the training documents.
        weights: weight of each part of the mixture.
        most: largest number of bytes.
    """
    part_D, bytes_D = store.part_D(), store.bytes_D()
    fraction_D = hash_fraction_D(store.digests_D(), _SAMPLE)
    sample_D = np.zeros_like(train_D)
    for number, weight in enumerate(weights):
        in_part_D = train_D & (part_D == number)
        room = most * weight / sum(weights)
        sample_D |= in_part_D & (fraction_D < room / max(1, int(bytes_D[in_part_D].sum())))
    return sample_D if sample_D.any() else train_D


def sample_of_part(store: DocumentStore, used_D: Mask, part: int) -> Mask:
    """Return the mask of a sample of about `_MEASURED_BYTES` of a part, at least one document.

    Args:
        store: all documents of the text.
        used_D: mask of the documents to choose from.
        part: index of the part of the mixture.
    """
    in_part = np.flatnonzero(used_D & (store.part_D() == part))
    order = in_part[np.argsort(hash_fraction_D(store.digests_D()[in_part], _SAMPLE))]
    before = np.cumsum(store.bytes_D()[order]) - store.bytes_D()[order]
    sample_D = np.zeros_like(used_D)
    sample_D[order[before < _MEASURED_BYTES]] = True
    return sample_D


def read_documents(store: DocumentStore, selected_D: Mask) -> Iterator[Document]:
    """Yield the selected documents, each with its seed and the number of its part."""
    seeds = store.digests_D()[selected_D].tolist()
    parts = store.part_D()[selected_D].tolist()
    for text, seed, part in zip(store.read(selected_D), seeds, parts, strict=True):
        yield Document(text, seed, part)
