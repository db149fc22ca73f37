"""Display of a running sweep: a live table in a terminal, plain lines elsewhere.

A separate thread prints the lines of a queue. Signal handlers can therefore print, and the display
is updated while the main thread is blocked.
"""

import logging
import signal
import sys
import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

from rich.console import Console, ConsoleRenderable, Group
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType, Segment
from rich.table import Table
from rich.text import Text

from lab.cli import discard_output
from lab.config.experiment import Job
from lab.config.results import Outcome
from lab.control_characters import make_visible
from lab.display.board import Board, RunningTrial, describe_settings
from lab.formatting import format_clock

_LOG = logging.getLogger(__name__)
_SILENCE = 10.0  # seconds without a line after which plain lines print the status
_SHARE = 30  # the silence grows to 1/30 of the time since the start, to keep long logs short
_FRAME = 0.5  # seconds between two updates of a table
_WIDE = 100  # columns of a terminal from which a table shows all its columns


class View(ABC):
    """Context manager that displays a board.

    If standard output is closed meanwhile, the view sends SIGINT to its own process, as Ctrl-C
    does, and raises `BrokenPipeError` on exit.

    Args:
        board: board to display.
        pause: seconds between two calls of `_tick`.

    Attributes:
        board: displayed board.
    """

    def __init__(self, board: Board, pause: float) -> None:
        self.board, self._pause = board, pause
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._print, daemon=True)
        self._unread = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.board.set_phase("")
        self._lines.put(None)
        try:
            self._thread.join()
        finally:  # also where the thread's SIGINT interrupts `join`
            if self._unread:
                raise BrokenPipeError from error

    def print_line(self, line: str) -> None:
        """Print a permanent line, with escapes instead of control characters."""
        self._lines.put(make_visible(line))

    def set_phase(self, phase: str, share: float | None = None) -> None:
        """Set, log and display the phase of the sweep itself.

        Args:
            phase: description of the phase; empty while only trials run.
            share: share of the phase that is done, from 0 to 1; None where it is unknown.
        """
        if self.board.set_phase(phase, share) and phase:
            _LOG.info("%s", phase)
            self._began(phase)

    @abstractmethod
    def show_event(self, event: str) -> None:
        """Display a change of the board; `event` describes it in one line."""

    @abstractmethod
    def _began(self, phase: str) -> None:
        """Display the start of a phase."""

    @abstractmethod
    def _show(self, line: str) -> None:
        """Print a line."""

    @abstractmethod
    def _tick(self) -> None:
        """Update the display if it is due."""

    def _print(self) -> None:
        # Signals of supervisors must reach the main thread, which blocks them while Ray starts.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})
        try:
            while (line := self._next()) is not None:
                if line:
                    self._show(line)
                self._tick()
        except OSError:  # a closed pipe or terminal
            self._unread = True
            discard_output()
            main = threading.main_thread().ident
            if main is not None:
                signal.pthread_kill(main, signal.SIGINT)

    def _next(self) -> str | None:
        """Return the next line; an empty one after a pause, None after the last line."""
        try:
            return self._lines.get(timeout=self._pause)
        except Empty:
            return ""


class PlainLines(View):
    """Display as plain lines: one line per event, and a status line after a time without events."""

    def __init__(self, board: Board) -> None:
        super().__init__(board, pause=1.0)
        self._began_at = self._printed_at = time.monotonic()

    def show_event(self, event: str) -> None:
        """Print the event."""
        self.print_line(event)

    def _began(self, phase: str) -> None:
        self.print_line(phase)

    def _show(self, line: str) -> None:
        board = self.board
        count = f"[{board.ended}/{board.jobs}] " if board.jobs else ""
        print(f"{count}{line}", flush=True)
        self._printed_at = time.monotonic()

    def _tick(self) -> None:
        now = time.monotonic()
        due = now - self._printed_at >= max(_SILENCE, (now - self._began_at) / _SHARE)
        if due and (status := self.board.status()):
            rest = self.board.describe_time_left()
            self._show(status + (f" (whole sweep: {rest})" if rest else ""))


class LiveTable(View):
    """Display as a table that is updated in place."""

    def __init__(self, board: Board, console: Console) -> None:
        super().__init__(board, pause=_FRAME)
        self._console = console
        self._live = _ReflowingLive(
            get_renderable=self._drawn, console=console, auto_refresh=False, redirect_stderr=True
        )

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return super().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        try:
            super().__exit__(kind, error, at)
        finally:
            self._live.transient = not self.board.jobs
            with suppress(OSError):
                self._live.stop()

    def show_event(self, event: str) -> None:
        """Do nothing: the next update of the table reads the board."""

    def _began(self, phase: str) -> None:
        """Do nothing: the next update of the table shows the phase."""

    def _show(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False)

    def _tick(self) -> None:
        self._live.refresh()

    def _drawn(self) -> Group:
        board, parts = self.board, list[ConsoleRenderable]()
        if phase := board.describe_phase():
            parts.append(Text(phase, style="bold"))
        if headline := board.headline():
            parts.append(Text(headline))
        if board.in_slots or board.recent:
            parts.append(self._table(self._console.height - 6))
        return Group(*parts)

    def _table(self, rows: int) -> Table:
        """Return a table of the running and the newest ended trials, with about `rows` rows."""
        wide = self._console.width >= _WIDE
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column("trial", no_wrap=True, justify="right")
        table.add_column("state", overflow="ellipsis")
        table.add_column("settings", overflow="ellipsis")
        table.add_column(self.board.metric.name if wide else "score", no_wrap=True)
        if wide:
            table.add_column("FLOPs", no_wrap=True)
        table.add_column("time", no_wrap=True, justify="right")
        table.add_column("left", no_wrap=True, justify="right")
        running = self.board.in_slots[: max(1, rows)]
        room = max(0, rows - len(running))
        for job, outcome in self.board.recent[-room:] if room else []:
            table.add_row(*self._ended(job, outcome, wide=wide))
        for each in running:
            table.add_row(*self._running(each, wide=wide), style="bold")
        return table

    def _ended(self, job: Job, outcome: Outcome, *, wide: bool) -> list[Text]:
        last = outcome.rows[-1] if outcome.rows else {}
        names = (str(job.number), outcome.state, describe_settings(job))
        return self._row(names, last, (format_clock(outcome.seconds), ""), wide=wide)

    def _running(self, each: RunningTrial, *, wide: bool) -> list[Text]:
        board = self.board
        rest = board.seconds_left(each)
        left = "" if rest is None else "overdue" if rest < 0 else f"~{format_clock(max(1.0, rest))}"
        times = (format_clock(board.elapsed(each)), left)
        names = (each.number, board.describe_trial_phase(each), each.settings)
        return self._row(names, each.row, times, wide=wide)

    def _row(
        self,
        names: tuple[str, str, str],
        last: dict[str, float],
        times: tuple[str, str],
        *,
        wide: bool,
    ) -> list[Text]:
        name = self.board.metric.name
        score = f"{last[name]:.4f}" if name in last else ""
        flops = [f"{last['spent/flops']:.3g}" if last else ""] if wide else []
        cells = [*names, score, *flops, *times]
        return [Text(cell, no_wrap=True, overflow="ellipsis") for cell in cells]


class _ReflowingLive(Live):
    """Live display that is erased completely after the terminal has become narrower.

    A narrower terminal wraps the lines of the display. Rich counts the lines as it has drawn them,
    and would leave a part of the old display above the new one.
    """

    _widths: tuple[int, ...] = ()

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Replace Rich's control codes that erase the old display by ones for the wrapped lines."""
        drawn = super().process_renderables(renderables)
        if self.console.is_interactive and not self._alt_screen:
            drawn[0] = self._erase_display()
            lines = self.console.render_lines(self._live_render, pad=False)
            self._widths = tuple(map(Segment.get_line_length, lines))
        return drawn

    def _erase_display(self) -> Control:
        width = max(1, self.console.width)
        rows = sum(max(1, -(-each // width)) for each in self._widths)
        up = ((ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)) * (rows - 1)
        return Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2), *up)


def open_view(board: Board) -> View:
    """Return a `LiveTable` in a terminal that supports one, `PlainLines` elsewhere."""
    console = Console()
    interactive = sys.stdout.isatty() and not console.is_dumb_terminal
    return LiveTable(board, console) if interactive else PlainLines(board)
