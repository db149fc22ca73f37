"""What a person sees while a sweep runs: a table that is drawn anew, or plain lines in a pipe.

One thread prints, fed by a queue. So a signal handler may say something, a line appears though
the main thread waits for something long, and a display never stands still.
"""

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
from lab.display.board import Board, RunningTrial, describe_settings
from lab.formatting import format_clock

_SILENCE = 10.0  # seconds after which plain lines say what happens
_SHARE = 30  # and later this part of the time since the start, so that a long log stays short
_FRAME = 0.5  # seconds between two drawings of a table
_WIDE = 100  # columns from which a table shows all that is known


class View(ABC):
    """Shows a board while it is open.

    Once its output is closed, it interrupts the process as Ctrl-C does, and leaving it raises
    BrokenPipeError.

    Args:
        board: to show.
        pause: seconds between two calls of `_tick`.

    Attributes:
        board: that is shown.
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
        self.board.doing("")
        self._lines.put(None)
        try:
            self._thread.join()
        finally:  # the thread may interrupt this very wait: its last lines are not read
            if self._unread:
                raise BrokenPipeError from error

    def say(self, line: str) -> None:
        """Show a line that stays."""
        self._lines.put(line)

    def doing(self, phase: str, share: float | None = None) -> None:
        """Show what the sweep itself does; an empty phase ends it.

        Args:
            phase: in words, with the reason where it takes long.
            share: of the phase that is done.
        """
        if self.board.doing(phase, share) and phase:
            self._began(phase)

    @abstractmethod
    def changed(self, event: str) -> None:
        """Show that the board has changed, by `event`, a line."""

    @abstractmethod
    def _began(self, phase: str) -> None:
        """Show that a phase has begun."""

    @abstractmethod
    def _show(self, line: str) -> None:
        """Print a line."""

    @abstractmethod
    def _tick(self) -> None:
        """Show how things stand, if it is time."""

    def _print(self) -> None:
        try:
            while (line := self._next()) is not None:
                if line:
                    self._show(line)
                self._tick()
        except OSError:  # a closed pipe, a terminal that is gone
            self._unread = True
            discard_output()
            main = threading.main_thread().ident
            if main is not None:
                signal.pthread_kill(main, signal.SIGINT)

    def _next(self) -> str | None:
        """Return the next line, an empty one after a pause, None in the end."""
        try:
            return self._lines.get(timeout=self._pause)
        except Empty:
            return ""


class PlainLines(View):
    """A line for each event, and now and then one on how things stand."""

    def __init__(self, board: Board) -> None:
        super().__init__(board, pause=1.0)
        self._began_at = self._said_at = time.monotonic()

    def changed(self, event: str) -> None:
        """Print the event."""
        self.say(event)

    def _began(self, phase: str) -> None:
        self.say(phase)

    def _show(self, line: str) -> None:
        board = self.board
        where = f"[{board.ended}/{board.jobs}] " if board.jobs else ""
        print(f"{where}{line}", flush=True)
        self._said_at = time.monotonic()

    def _tick(self) -> None:
        now = time.monotonic()
        silent = now - self._said_at >= max(_SILENCE, (now - self._began_at) / _SHARE)
        if silent and (status := self.board.status()):
            rest = self.board.left()
            self._show(status + (f" (in all {rest})" if rest else ""))


class LiveTable(View):
    """A table that is drawn anew in place."""

    def __init__(self, board: Board, console: Console) -> None:
        super().__init__(board, pause=_FRAME)
        self._console = console
        self._live = _Reflowing(
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

    def changed(self, event: str) -> None:
        """Do nothing: the table reads the board by itself."""

    def _began(self, phase: str) -> None:
        """Do nothing: the table shows the phase."""

    def _show(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False)

    def _tick(self) -> None:
        self._live.refresh()

    def _drawn(self) -> Group:
        board, parts = self.board, list[ConsoleRenderable]()
        if doings := board.doings():
            parts.append(Text(doings, style="bold"))
        if headline := board.headline():
            parts.append(Text(headline))
        if board.occupied or board.recent:
            parts.append(self._table(self._console.height - 6))
        return Group(*parts)

    def _table(self, rows: int) -> Table:
        """Return the running trials and the newest that have ended, as many as fit."""
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
        running = self.board.occupied[: max(1, rows)]
        room = max(0, rows - len(running))
        for job, outcome in self.board.recent[-room:] if room else []:
            table.add_row(*self._ended(job, outcome, wide=wide))
        for each in running:
            table.add_row(*self._running(each, wide=wide), style="bold")
        return table

    def _ended(self, job: Job, outcome: Outcome, *, wide: bool) -> list[Text]:
        last = outcome.rows[-1] if outcome.rows else {}
        named = (str(job.number), outcome.state, describe_settings(job))
        return self._row(named, last, (format_clock(outcome.seconds), ""), wide=wide)

    def _running(self, each: RunningTrial, *, wide: bool) -> list[Text]:
        board = self.board
        rest = board.left_of(each)
        late = "" if rest is None else "overdue" if rest < 0 else f"~{format_clock(max(1.0, rest))}"
        times = (format_clock(board.elapsed(each)), late)
        named = (each.number, board.trial(each), each.settings)
        return self._row(named, each.row, times, wide=wide)

    def _row(
        self,
        named: tuple[str, str, str],
        last: dict[str, float],
        times: tuple[str, str],
        *,
        wide: bool,
    ) -> list[Text]:
        name = self.board.metric.name
        score = f"{last[name]:.4f}" if name in last else ""
        flops = [f"{last['spent/flops']:.3g}" if last else ""] if wide else []
        cells = [*named, score, *flops, *times]
        return [Text(cell, no_wrap=True, overflow="ellipsis") for cell in cells]


class _Reflowing(Live):
    """A live display that finds its first line again after the terminal has become narrower.

    A terminal wraps the lines it shows when it becomes narrower; rich counts them as they were
    drawn, and would leave a part of the old display above the new one.
    """

    _widths: tuple[int, ...] = ()

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Replace the way back that rich takes by one through the lines as they are shown."""
        drawn = super().process_renderables(renderables)
        if self.console.is_interactive and not self._alt_screen:
            drawn[0] = self._way_back()
            lines = self.console.render_lines(self._live_render, pad=False)
            self._widths = tuple(map(Segment.get_line_length, lines))
        return drawn

    def _way_back(self) -> Control:
        width = max(1, self.console.width)
        rows = sum(max(1, -(-each // width)) for each in self._widths)
        up = ((ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)) * (rows - 1)
        return Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2), *up)


def open_view(board: Board) -> View:
    """Return a live table in a terminal that can show one, plain lines elsewhere."""
    console = Console()
    alive = sys.stdout.isatty() and not console.is_dumb_terminal
    return LiveTable(board, console) if alive else PlainLines(board)
