"""Read text through `datasets`: folders that it saved, and data sets of the Hugging Face hub.

Only the requests for the data are sent, and no code of a data set's repository is run. Data sets
of the hub are streamed; memory holds one chunk of the stream, for Parquet one row group.
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

_MAPPED = 2**27  # bytes read before a saved folder is mapped again
_ROWS = 64  # rows of a table; the size of a cell is checked before it is copied


def read_saved_texts(source: SavedDataset) -> Iterator[Text]:
    """Yield the text of each row of a saved folder.

    Raises:
        UserError: `source.path` is not a saved folder, or lacks the split or column.
    """
    yield from read_arrow(source.path, _saved_tables(source), source.column)


def _saved_tables(source: SavedDataset) -> "Iterator[pa.Table]":
    """Yield tables of the folder; reopen it after every `_MAPPED` bytes.

    Pages that were read count as memory of the process until the memory map is closed.
    """
    start, rows = 0, _open_saved(source)
    while start < len(rows):
        size = 0
        for table in rows.skip(start).iter(_ROWS):
            yield table
            start, size = start + len(table), size + table.nbytes
            if size > _MAPPED:
                break
        del table  # a reference would keep the whole map open
        rows = _open_saved(source)


def _open_saved(source: SavedDataset) -> Any:
    datasets = hf_datasets.import_datasets()
    try:
        saved = datasets.load_from_disk(expand_home(source.path), keep_in_memory=False)
    except Exception as error:
        raise UserError(f"data.source.path: {source.path!r}: {_message(error)}") from None
    if isinstance(saved, datasets.DatasetDict):
        if source.split not in saved:
            raise UserError(
                f"data.source.split: {source.path!r} has no split {source.split!r}; "
                f"splits: {', '.join(map(repr, saved))}"
            )
        saved = saved[source.split]
    require_column(source.path, source.column, saved.column_names)
    return saved.select_columns([source.column]).with_format("arrow")


def read_hub_texts(source: HubDataset) -> Iterator[Text]:
    """Yield the text of each row of a data set of the hub, at the commit of its revision.

    Raises:
        UserError: the name, configuration, split, revision or column does not exist, or a request
            to the hub fails, also after some rows.
    """
    with tempfile.TemporaryDirectory() as cache:  # for lock files; streaming stores no data
        try:
            yield from stream_texts(source, resolve_commit(source), cache)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{_describe(source)}: {_message(error)}") from None


def resolve_commit(source: HubDataset) -> str:
    """Return the commit hash of the revision.

    Raises:
        UserError: the name or revision does not exist, or the request to the hub fails.
    """
    hf_datasets.import_datasets()
    from huggingface_hub import HfApi

    if expand_home(source.name).exists():  # `datasets` would read the folder instead of the hub
        raise UserError(
            f"data.source.name: {source.name!r} is a local folder; use `kind: files` or "
            "`kind: saved` for local data"
        )
    try:
        return str(HfApi().dataset_info(source.name, revision=source.revision).sha)
    except Exception as error:
        raise UserError(f"{_describe(source)}: {_message(error)}") from None


def stream_texts(source: HubDataset, revision: str | None, cache: str) -> Iterator[Text]:
    """Yield the text of each row of a data set, streamed by `datasets`.

    Args:
        source: data set and column.
        revision: commit hash, or None for the default.
        cache: cache folder of `datasets`.
    """
    rows = hf_datasets.import_datasets().load_dataset(
        source.name,
        source.configuration or None,
        split=source.split,
        revision=revision,
        streaming=True,
        cache_dir=cache,
    )
    if rows.column_names is not None:  # None for formats without a schema
        require_column(_describe(source), source.column, rows.column_names)
        rows = rows.select_columns([source.column])
    yield from read_arrow(source.name, rows.with_format("arrow").iter(_ROWS), source.column)


def _describe(source: HubDataset) -> str:
    whole = " ".join(filter(None, (source.name, source.configuration, source.split)))
    return f"data.source: {whole} at {source.revision} on the hub"


def _message(error: Exception) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 300 else f"{words[:300]}…"
