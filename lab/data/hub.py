"""Read the text column of folders saved by `datasets`, and of data sets of the Hugging Face hub.

Data sets of the hub are streamed; saved folders are memory-mapped.
"""

import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lab.config.data import HubDataset, SavedDataset
from lab.data.tabular import read_arrow, require_column
from lab.data.text_files import Text
from lab.tasks import hf_datasets

if TYPE_CHECKING:
    import pyarrow as pa

_WHERE = "base.data.source"
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
    start, rows = 0, _open_saved_column(source)
    while start < len(rows):
        size = 0
        for table in rows.skip(start).iter(_ROWS):
            yield table
            start, size = start + len(table), size + table.nbytes
            if size > _MAPPED:
                break
        del table  # a reference would keep the whole map open
        rows = _open_saved_column(source)


def _open_saved_column(source: SavedDataset) -> Any:
    saved = hf_datasets.open_saved(source, _WHERE)
    require_column(source.path, source.column, saved.column_names)
    return saved.select_columns([source.column]).with_format("arrow")


def resolve_commit(source: HubDataset) -> str:
    """Return the commit hash of the revision.

    Raises:
        UserError: the name or revision does not exist, or the request to the hub fails.
    """
    return hf_datasets.resolve_commit(source, _WHERE)


def read_hub_texts(source: HubDataset) -> Iterator[Text]:
    """Yield the text of each row of a data set of the hub, at the commit of its revision.

    Raises:
        UserError: the name, configuration, split, revision or column does not exist, or a request
            to the hub fails, also after some rows.
    """
    with (
        tempfile.TemporaryDirectory() as cache,
        hf_datasets.stream(source, resolve_commit(source), _WHERE, cache) as rows,
    ):
        yield from _read_column(source, rows)


def _read_column(source: HubDataset, rows: Any) -> Iterator[Text]:
    if rows.column_names is not None:  # None for formats without a schema
        name = f"{_WHERE}: {hf_datasets.describe_hub(source)}"
        require_column(name, source.column, rows.column_names)
        rows = rows.select_columns([source.column])
    yield from read_arrow(source.name, rows.with_format("arrow").iter(_ROWS), source.column)
