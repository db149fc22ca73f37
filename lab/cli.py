"""Shared parts of all commands: parsers, options, exit statuses and one-line errors.

docs/commands.md lists the exit statuses.
"""

import argparse
import errno
import io
import logging
import os
import platform
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path as File
from typing import NoReturn, TextIO

from lab import __version__, disk_space, leave, logging_setup
from lab.control_characters import make_visible
from lab.errors import UserError, one_line

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
_LONGEST_NAME = 100  # characters of a name that is too long
_LONGEST_ERROR = 4_000  # characters; messages quote names, cells and keys of any length
UNREAD = 141  # 128 + SIGPIPE, as in a shell
SCRIPT = "electra-lab"  # console script, see `lab.commands`
_LOG = logging.getLogger(__name__)
_LOGGED_PACKAGES = ("torch", "ray", "optuna", "mlflow", "transformers")


def build_parser(name: str, description: str, example: str) -> argparse.ArgumentParser:
    """Return the parser of a command, with --verbose and without its other arguments.

    Its texts name the command as it was called: `python -m lab.NAME` or `electra-lab NAME`.

    Args:
        name: the command's module below `lab`, for example "sweep".
        description: one sentence on the command.
        example: command lines that work from the project's root, shown below the options; they
            begin with `python -m lab.`.
    """
    prefix = f"{SCRIPT} " if _is_script() else "python -m lab."
    example = example.replace("python -m lab.", prefix)
    indented = "".join(f"\n  {line}" for line in example.splitlines())
    parser = argparse.ArgumentParser(
        prog=f"{prefix}{name}",
        description=description,
        epilog=f"example:{indented}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="print log records to standard error (default: only errors)",
    )
    return parser


def add_search_space(parser: argparse.ArgumentParser, override: str) -> None:
    """Add the positional argument FILE and the option --set.

    Args:
        parser: the parser.
        override: an example of PATH=VALUE.
    """
    parser.add_argument(
        "file",
        metavar="FILE",
        type=File,
        help="search space, for example search_spaces/gen_ratio.yaml",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        dest="overrides",
        help=f"override a dotted path of FILE, for example {override}; may be repeated "
        "(default: no override)",
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the positional argument RUN."""
    parser.add_argument(
        "run",
        metavar="RUN",
        help="a trial's name or enough of its beginning, the folder of its record, or a sweep's "
        "name for its best trial",
    )


def add_storage(parser: argparse.ArgumentParser) -> None:
    """Add the option --storage."""
    parser.add_argument(
        "--storage",
        default="runs",
        metavar="FOLDER|URI",
        help="records and caches: a folder that all machines can access, or a URI such as s3://, "
        "gs:// or hdfs:// (default: %(default)s)",
    )


def add_tracking_uri(parser: argparse.ArgumentParser) -> None:
    """Add the option --tracking-uri."""
    parser.add_argument(
        "--tracking-uri",
        metavar="URI",
        help="MLflow tracking store: sqlite:///... or http(s)://... (default: SQLite in the folder "
        "of --storage)",
    )


def add_reports(parser: argparse.ArgumentParser) -> None:
    """Add the option --reports."""
    parser.add_argument(
        "--reports",
        default=File("reports"),
        metavar="FOLDER",
        type=File,
        help="the report is written to FOLDER/NAME, with the sweep's name (default: %(default)s)",
    )


def run(
    name: str,
    remaining: str,
    body: Callable[[argparse.Namespace], int | None],
    options: argparse.Namespace,
) -> int:
    """Run the body of a command, print a one-line message if it fails, and return the exit status.

    Modules that take seconds to import are imported in the body, so that an interrupt during the
    import is handled here as well.

    Args:
        name: the command, for example "lab.sweep"; errors begin with it, or with
            "electra-lab sweep" if the command was called by this name.
        remaining: the state that an interrupted or failed command leaves on disk, in words.
        body: the work of the command; returns an exit status, or None for 0.
        options: parsed arguments of the command, passed to the body.
    """
    if _is_script():
        name = name.replace("lab.", f"{SCRIPT} ", 1)
    _open_closed_streams()
    _escape_unsupported_characters()
    if signal.getsignal(signal.SIGINT) is leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with logging_setup.handle_records(verbose=options.verbose):
        try:
            _log_start(name, options)
            status = body(options) or 0
            sys.stdout.flush()
        except BaseException as error:  # SystemExit and others that are not expected are raised
            status, line = _describe_end(error, name, remaining, options)
            _print_error(line)
        _LOG.info("%s ends with status %d", name, status)
    return status


def _open_closed_streams() -> None:
    """Open the null device in place of standard streams that the caller has closed.

    The first files that are opened would get their descriptors otherwise, and a library that prints
    would write into them: into a database, for example.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdout = sys.stdout or _open_null()
    sys.stderr = sys.stderr or _open_null()


def _open_null() -> TextIO:
    return File(os.devnull).open("w", encoding="utf-8")


def _escape_unsupported_characters() -> None:
    """Print escapes for characters that the encoding of the output does not have.

    A question or the name of a file may have any characters, and a locale may have few.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _log_start(name: str, options: argparse.Namespace) -> None:
    arguments = " ".join(f"{key}={value}" for key, value in vars(options).items())
    packages = " ".join(f"{each} {metadata.version(each)}" for each in _LOGGED_PACKAGES)
    python = f"Python {platform.python_version()} {packages}"
    _LOG.info("%s starts: %s", name, arguments)
    _LOG.info("electra-lab %s, %s, process %d", __version__, python, os.getpid())


def _describe_end(
    error: BaseException, name: str, remaining: str, options: argparse.Namespace
) -> tuple[int, str]:
    """Log the exception that ends a command; return the exit status and the line to print.

    Raises:
        BaseException: `error`, if it is neither an `Exception` nor an interrupt.
    """
    if _is_interrupt(error):
        _LOG.warning("interrupted")
        return INTERRUPTED, f"interrupted; {remaining}"
    if disk_space.is_disk_full(error):
        reason = _describe_full_disks(error, options)
        _LOG.error("%s", reason, exc_info=error)
        return FAILED, f"{name}: failed: {reason}; free some room; {remaining}"
    match error:
        case UserError():
            message = one_line(" ".join(str(error).split()))
            _LOG.warning("bad input: %s", message)
            return BAD_INPUT, f"{name}: error: {message}"
        case OSError(errno=errno.ENAMETOOLONG):
            message = one_line(f"{str(error.filename)[:_LONGEST_NAME]}…: file name too long")
            _LOG.warning("bad input: %s", message)
            return BAD_INPUT, f"{name}: error: {message}"
        case BrokenPipeError():
            discard_output()
            _LOG.warning("standard output is closed")
            return UNREAD, f"{name}: the output is closed; {remaining}"
        case Exception():  # of a disk, a node or a database; bad input raises UserError
            _LOG.error("unexpected error", exc_info=error)
            line = one_line(f"{type(error).__name__}: {error}".splitlines()[0])[:300]
            where = _write_traceback(error)
            return FAILED, f"{name}: failed: {line}; {remaining}{where}"
    raise error


def _describe_full_disks(error: BaseException, options: argparse.Namespace) -> str:
    """Return the folders on full disks, among those that a command writes to."""
    if isinstance(error, disk_space.DiskFullError):
        return str(error)
    named = (getattr(options, key, None) for key in ("storage", "reports", "output"))
    local = [File(each) for each in named if each is not None and "://" not in str(each)]
    folders = [*local, File(tempfile.gettempdir())]
    full = disk_space.find_full(folders) or folders[:1]  # room may have been freed meanwhile
    return ", ".join(map(disk_space.describe_full, full))


def execute(main: Callable[[], int]) -> NoReturn:
    """Run a command's `main` in this process, and exit with the status that it returns.

    After an interrupt or a failure the process exits at once, without Python's own shutdown: Python
    would raise the signal again if a library had handled the interrupt first, a second Ctrl-C
    during the shutdown would print a traceback, and Ray would wait for a cluster that is lost.
    """
    status = main()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a background job ignores SIGINT
        signal.signal(signal.SIGINT, lambda *_: os._exit(status))
    if status in {FAILED, INTERRUPTED}:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(status)
    sys.exit(status)


def fail_at_once(line: str) -> NoReturn:
    """Print the line of a failed command and exit, without the clean-up of its other threads."""
    _LOG.error("%s", line)
    _print_error(line)
    os._exit(FAILED)


def _is_script() -> bool:
    """Return whether this process was started by the console script."""
    return File(sys.argv[0]).name == SCRIPT


def _print_error(line: str) -> None:
    line = make_visible(line)
    short = line if len(line) <= _LONGEST_ERROR else f"{line[:_LONGEST_ERROR]}…"
    with suppress(OSError):  # standard error can be closed as well
        print(short, file=sys.stderr, flush=True)


def discard_output() -> None:
    """Redirect standard output to the null device, also for Python's flush at exit."""
    with suppress(OSError, ValueError):  # in a test, standard output may have no descriptor
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _is_interrupt(error: BaseException) -> bool:
    """Return whether an error is an interrupt or was caused by one.

    Some libraries wrap an interrupt during their import.
    """
    if isinstance(error, UserError | BrokenPipeError) or not isinstance(error, Exception):
        return isinstance(error, KeyboardInterrupt)
    return _is_caused_by_interrupt(error)


def _is_caused_by_interrupt(error: BaseException) -> bool:
    cause = error.__cause__ or error.__context__
    return isinstance(cause, KeyboardInterrupt) or (
        cause is not None and _is_caused_by_interrupt(cause)
    )


def _write_traceback(error: Exception) -> str:
    """Return a note with the path of the traceback: in the log, or in a new file without a log.

    The note is empty if neither can be written.
    """
    if (log := logging_setup.command_log().written) is not None:
        return f" (traceback in {log})"
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="lab-error-", suffix=".txt", delete=False
        ) as file:
            traceback.print_exception(error, file=file)
    except OSError:
        return ""
    return f" (traceback in {file.name})"
