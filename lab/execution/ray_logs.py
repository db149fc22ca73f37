"""Log files of Ray: kept in the storage when a cluster is lost; its messages go to the log."""

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path as File
from typing import Any

from ray._private import worker

from lab.execution.cluster_watch import ClusterLostError

_LOG = logging.getLogger(__name__)
_MAX_BYTES = 2**20  # of each file; its end is kept
_KEPT = 3  # folders of lost clusters


def log_messages() -> None:
    """Write the messages that Ray prints, such as the state of a dead node, to the log instead."""
    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = _log_message


@contextmanager
def keep_logs(scratch: str | None, logs: File) -> Iterator[None]:
    """Copy Ray's log files if the cluster is lost within the context.

    Args:
        scratch: temporary folder of Ray; None for a cluster that was joined.
        logs: log folder of the storage, in which a new folder is made.
    """
    try:
        yield
    except ClusterLostError:
        copy_logs(scratch, logs)
        raise


def copy_logs(scratch: str | None, logs: File) -> None:
    """Copy Ray's log files of a lost cluster; the arguments are those of `keep_logs`."""
    if scratch is not None:
        with suppress(OSError):  # of a full disk: the sweep ends in any case
            _copy(File(scratch) / "session_latest" / "logs", logs)


def _log_message(data: dict[str, Any], **_: Any) -> None:
    _LOG.warning("Ray (%s): %s", data.get("pid"), "\n".join(data.get("lines", ())))


def _copy(source: File, logs: File) -> None:
    logs.mkdir(parents=True, exist_ok=True)
    target = logs / f"ray-{time.strftime('%Y%m%d-%H%M%S')}"
    target.mkdir(exist_ok=True)
    for file in source.iterdir():
        if file.is_file() and file.stat().st_size:
            with file.open("rb") as opened, (target / file.name).open("wb") as copy:
                opened.seek(max(0, file.stat().st_size - _MAX_BYTES), os.SEEK_SET)
                shutil.copyfileobj(opened, copy)
    _LOG.error("log files of Ray: %s", target)
    for old in sorted(logs.glob("ray-*"))[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
