"""Log of a trial's process: a file in its record, which the driver copies to the sweep's log."""

import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path as File

from lab.storage import record

_LOGGER = logging.getLogger("lab")


@contextmanager
def log_to_record(folder: File) -> Iterator[None]:
    """Append the records of the logger `lab` to a file in a trial's record, within the context.

    Args:
        folder: folder of the trial's record.
    """
    handler = _RecordFile(folder / record.LOG)
    _LOGGER.setLevel(logging.INFO)
    _LOGGER.addHandler(handler)
    try:
        yield
    finally:
        _LOGGER.removeHandler(handler)


def copy_new_records(folder: File, start: int, trial: dict[str, str]) -> int:
    """Pass the log records of a trial's process to the logger `lab` of this process.

    Args:
        folder: folder of the trial's record.
        start: bytes of the file that have been copied before.
        trial: field `trial` of the records.

    Returns:
        The bytes that have been copied so far.
    """
    try:
        new = (folder / record.LOG).read_bytes()[start:]
    except OSError:
        return start
    complete, _, _ = new.rpartition(b"\n")
    for line in complete.splitlines():
        with suppress(ValueError):  # a process that was killed may leave a partial line
            _LOGGER.handle(logging.makeLogRecord(json.loads(line) | trial))
    return start + (len(complete) + 1 if complete else 0)


class _RecordFile(logging.Handler):
    """Writes records as lines of JSON, with the attributes of `logging.LogRecord`."""

    def __init__(self, file: File) -> None:
        super().__init__()
        self._file, self._worker = file, f"{socket.gethostname()}:{os.getpid()}"

    def emit(self, record: logging.LogRecord) -> None:
        """Append the record; a full disk does not end the trial."""
        names = ("name", "levelno", "levelname", "created", "msecs")
        attributes = {name: getattr(record, name) for name in names}
        attributes |= {"msg": self.format(record), "worker": self._worker}
        with suppress(OSError), self._file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(attributes) + "\n")
