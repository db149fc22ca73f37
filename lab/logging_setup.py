"""Handlers of the logger `lab`: the log file of a sweep, and standard error with `--verbose`.

Modules log with `logging.getLogger(__name__)`. A record may have two more fields, given by `extra`:
`trial` (number of the job and name of its record) and `worker` (host and process of the trial).
"""

import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from logging.handlers import MemoryHandler, RotatingFileHandler
from pathlib import Path as File
from typing import IO

_LOGGER = logging.getLogger("lab")
_FORMAT = "%(asctime)s %(levelname)s trial=%(trial)s worker=%(worker)s %(message)s"
_MAX_BYTES = 2**20  # of one log file
_OLD_FILES = 2  # full log files that are kept, with the suffixes .1 and .2
_BUFFERED = 10_000  # records before `CommandLog.start`; a sweep logs fewer than a hundred


class CommandLog(MemoryHandler):
    """Records of a command: in memory until `start`, or until an error; then in a log file.

    Records are kept in memory first, so that a command that is refused because of bad input writes
    no file. A command without a log file never writes them.
    """

    def __init__(self) -> None:
        super().__init__(_BUFFERED, flushLevel=logging.ERROR, flushOnClose=False)
        self._file: _LogFile | None = None
        self._upload: Callable[[File], None] | None = None

    def set_file(self, file: File, upload: Callable[[File], None]) -> None:
        """Set the log file, which is appended to.

        Args:
            file: the log file.
            upload: function that copies the file to the storage when the command ends.
        """
        self._file, self._upload = _LogFile(file), upload
        self.setTarget(self._file)

    @property
    def written(self) -> File | None:
        """The log file; None without one, and if a record could not be written to it."""
        if self._file is None or self._file.failed or not File(self._file.baseFilename).exists():
            return None
        return File(self._file.baseFilename)

    def start(self) -> None:
        """Write the records so far, and each later record at once."""
        self.flush()

    def flush(self) -> None:
        """Write the records in memory; after the first call with a file, none are kept there."""
        super().flush()
        if self._file is not None:
            self.capacity = 1

    def close(self) -> None:
        """Close the log file and upload it."""
        super().close()
        if self._file is not None:
            self._file.close()
        if self._upload is not None and (file := self.written) is not None:
            with suppress(Exception):  # the storage may be the reason why the command ends
                self._upload(file)


@contextmanager
def handle_records(*, verbose: bool) -> Iterator[CommandLog]:
    """Configure the logger `lab` for one command; on exit, close its handlers.

    Args:
        verbose: whether records are written to standard error.
    """
    propagate, level = _LOGGER.propagate, _LOGGER.level
    _LOGGER.propagate = False  # MLflow and Ray add handlers to the root logger
    _LOGGER.setLevel(logging.INFO)
    log = CommandLog()
    handlers: list[logging.Handler] = [log, _StandardError()] if verbose else [log]
    for handler in handlers:
        _LOGGER.addHandler(handler)
    try:
        yield log
    finally:
        for handler in handlers:
            _LOGGER.removeHandler(handler)
            handler.close()
        _LOGGER.propagate = propagate
        _LOGGER.setLevel(level)


def command_log() -> CommandLog:
    """Return the log of the running command; a new one, which writes nothing, without a command."""
    logs = (handler for handler in _LOGGER.handlers if isinstance(handler, CommandLog))
    return next(logs, CommandLog())


class _LogFile(RotatingFileHandler):
    """Rotating file that is created with its folder at its first record.

    Attributes:
        failed: whether a record could not be written, for example because the disk is full.
    """

    def __init__(self, file: File) -> None:
        super().__init__(
            file, maxBytes=_MAX_BYTES, backupCount=_OLD_FILES, encoding="utf-8", delay=True
        )
        self.failed = False
        self.setFormatter(_formatter())

    def _open(self) -> IO[str]:  # type: ignore[override]
        File(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002
        """Note the failure; a sweep does not end because of its log."""
        self.failed = True

    def close(self) -> None:
        """Close the file. Records that do not fit on a full disk are lost."""
        try:
            super().close()
        except OSError:
            self.failed = True


class _StandardError(logging.Handler):
    """Writes records to standard error, above a live table if both are in the same terminal.

    While a live table is shown, Rich replaces `sys.stderr` by a stream that prints above the table.
    """

    def __init__(self) -> None:
        super().__init__()
        self._stream = sys.stderr
        self.setFormatter(_formatter())

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError, ValueError, RuntimeError):  # closed, or interrupted in a write
            stream = sys.stderr if self._stream.isatty() else self._stream
            print(self.format(record), file=stream, flush=True)


class _WithoutSecrets(logging.Formatter):
    """Formats a record, and removes credentials and parameters from the URIs in it."""

    def format(self, record: logging.LogRecord) -> str:
        text = re.sub(r"(?<=://)[^\s'\"]*@", "***@", super().format(record))
        return re.sub(r"(://[^\s'\"?]*\?)[^\s'\"]+", r"\1***", text)


def _formatter() -> logging.Formatter:
    return _WithoutSecrets(_FORMAT, defaults={"trial": "-", "worker": "-"})
