"""Read data sets through `datasets`: folders that it saved, and data sets of the Hugging Face hub.

Training texts and tasks are read by these functions. Only the requests for the data are sent, and
no code of a data set's repository is run.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path as File
from typing import Any

from lab.config.data import HubDataset, SavedDataset
from lab.config.tasks import HubRows, SavedRows
from lab.errors import UserError


def open_saved(source: SavedDataset | SavedRows, where: str) -> Any:
    """Return the rows of a saved folder, as a memory-mapped `datasets.Dataset`.

    The split is not used for a folder without splits.

    Args:
        source: folder and split.
        where: dotted path of `source`, for error messages.

    Raises:
        UserError: `source.path` is not a saved folder, or lacks the split.
    """
    datasets = _import_datasets()
    try:
        # Unlike `Path.expanduser`, this accepts a `~` without a home directory.
        path = os.path.expanduser(source.path)  # noqa: PTH111
        saved = datasets.load_from_disk(path, keep_in_memory=False)
    except Exception as error:  # `datasets` passes on the errors of its backends
        raise UserError(
            f"{where}.path: {source.path!r}: not a folder saved by `datasets`: {_shorten(error)}"
        ) from None
    if not isinstance(saved, datasets.DatasetDict):
        return saved
    if source.split not in saved:
        raise UserError(
            f"{where}.split: {source.path!r} has no split {source.split!r}; "
            f"splits: {', '.join(map(repr, saved))}"
        )
    return saved[source.split]


def resolve_commit(source: HubDataset | HubRows, where: str) -> str:
    """Return the commit hash of a data set's revision.

    Args:
        source: data set of the hub.
        where: dotted path of `source`, for error messages.

    Raises:
        UserError: the name or revision does not exist, or the request to the hub fails.
    """
    with _hub_errors(source, where):
        _import_datasets()
        from huggingface_hub import HfApi

        return str(HfApi().dataset_info(source.name, revision=source.revision).sha)


def download(source: HubDataset | HubRows, where: str) -> Any:
    """Return the rows of a data set of the hub, as a `datasets.Dataset` in the cache of `datasets`.

    Args:
        source: data set of the hub.
        where: dotted path of `source`, for error messages.

    Raises:
        UserError: the name, configuration, split or revision does not exist, or a request fails.
    """
    with _hub_errors(source, where):
        return _load(source, source.revision)


@contextmanager
def stream(source: HubDataset | HubRows, revision: str, where: str, cache: str) -> Iterator[Any]:
    """Yield the rows of a data set of the hub, as a `datasets.IterableDataset`.

    Memory holds one chunk of the stream, for Parquet one row group. Errors of requests during the
    `with` statement are converted as well.

    Args:
        source: data set of the hub.
        revision: commit hash.
        where: dotted path of `source`, for error messages.
        cache: cache folder of `datasets`, for lock files; no data is stored.

    Raises:
        UserError: the name, configuration, split or revision does not exist, or a request fails.
    """
    with _hub_errors(source, where):
        yield _load(source, revision, streaming=True, cache_dir=cache)


def describe_hub(source: HubDataset | HubRows) -> str:
    """Return name, configuration, split and revision of a data set, for error messages."""
    whole = " ".join(filter(None, (source.name, source.configuration, source.split)))
    return f"{whole} at {source.revision} on the hub"


def _load(source: HubDataset | HubRows, revision: str, **options: Any) -> Any:
    return _import_datasets().load_dataset(
        source.name,
        source.configuration or None,
        split=source.split,
        revision=revision,
        **options,
    )


@contextmanager
def _hub_errors(source: HubDataset | HubRows, where: str) -> Iterator[None]:
    """Check the name of a data set, and convert errors of `datasets` to a `UserError`."""
    if File(source.name).exists():  # `datasets` would read the folder instead of the hub
        raise UserError(
            f"{where}.name: {source.name!r} is a local folder; use `kind: saved` for a folder "
            "saved by `datasets`, or name local files"
        )
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # `datasets` passes on the errors of its backends
        raise UserError(f"{where}: {describe_hub(source)}: {_shorten(error)}") from None


def _import_datasets() -> Any:
    """Return the module `datasets` with telemetry, download counts, progress bars and logs off."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read at import of `huggingface_hub`
    import datasets
    import huggingface_hub.constants

    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    return datasets


def _shorten(error: Exception) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 300 else f"{words[:300]}…"
