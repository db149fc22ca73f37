"""Text that `datasets` finds: folders that it saved, and data sets of the Hugging Face hub.

Nothing is sent but the requests for the data, and no code that lies beside them is run. Memory
holds what `datasets` streams from the hub at once: of Parquet a row group.
"""

import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lab.config.data import HubDataset, SavedDataset
from lab.data.tabular import read_arrow, require_column
from lab.data.text_files import Text, expand_home
from lab.errors import UserError
from lab.tasks import hf_datasets

if TYPE_CHECKING:
    import pyarrow as pa

_MAPPED = 2**27  # bytes
_ROWS = 64  # looked at together; none is copied before its size is known


def read_saved_texts(source: SavedDataset) -> Iterator[Text]:
    """Yield the text of each row of a saved folder.

    Raises:
        UserError: it is no such folder, or has no such split or column.
    """
    yield from read_arrow(source.path, _saved_tables(source), source.column)


def _saved_tables(source: SavedDataset) -> "Iterator[pa.Table]":
    """Map the folder anew now and then: pages that were read count as memory until it is closed."""
    start, rows = 0, _saved(source)
    while start < len(rows):
        size = 0
        for table in rows.skip(start).iter(_ROWS):
            yield table
            start, size = start + len(table), size + table.nbytes
            if size > _MAPPED:
                break
        del table  # or it keeps all of them mapped
        rows = _saved(source)


def _saved(source: SavedDataset) -> Any:
    datasets = hf_datasets.import_datasets()
    try:
        saved = datasets.load_from_disk(expand_home(source.path), keep_in_memory=False)
    except Exception as error:
        raise UserError(f"data.source.path: {source.path!r}: {_said(error)}") from None
    if isinstance(saved, datasets.DatasetDict):
        if source.split not in saved:
            raise UserError(
                f"data.source.split: {source.path!r} has no {source.split!r}; "
                f"it has {', '.join(map(repr, saved))}"
            )
        saved = saved[source.split]
    require_column(source.path, source.column, saved.column_names)
    return saved.select_columns([source.column]).with_format("arrow")


def read_hub_texts(source: HubDataset) -> Iterator[Text]:
    """Yield the text of each row of a data set of the hub, at the commit of its revision.

    Raises:
        UserError: there is none of this name, configuration, split, revision or column, or the hub
            does not answer, be it in the middle.
    """
    with tempfile.TemporaryDirectory() as cache:  # of locks; streaming keeps nothing there
        try:
            yield from stream_texts(source, resolve_commit(source), cache)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{_named(source)}: {_said(error)}") from None


def resolve_commit(source: HubDataset) -> str:
    """Return the commit that the revision stands for.

    Raises:
        UserError: there is none of this name or revision, or the hub does not answer.
    """
    hf_datasets.import_datasets()
    from huggingface_hub import HfApi

    if expand_home(source.name).exists():  # which `datasets` would read instead
        raise UserError(
            f"data.source.name: {source.name!r} is a folder here; `kind: files` and `kind: saved` "
            "read what is local"
        )
    try:
        return str(HfApi().dataset_info(source.name, revision=source.revision).sha)
    except Exception as error:
        raise UserError(f"{_named(source)}: {_said(error)}") from None


def stream_texts(source: HubDataset, revision: str | None, cache: str) -> Iterator[Text]:
    """Yield the text of each row of what `datasets` finds under a name."""
    rows = hf_datasets.import_datasets().load_dataset(
        source.name,
        source.configuration or None,
        split=source.split,
        revision=revision,
        streaming=True,
        cache_dir=cache,
    )
    if rows.column_names is not None:  # as it is where the format has no schema
        require_column(_named(source), source.column, rows.column_names)
        rows = rows.select_columns([source.column])
    yield from read_arrow(source.name, rows.with_format("arrow").iter(_ROWS), source.column)


def _named(source: HubDataset) -> str:
    whole = " ".join(filter(None, (source.name, source.configuration, source.split)))
    return f"data.source: {whole} at {source.revision} on the hub"


def _said(error: Exception) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 300 else f"{words[:300]}…"
