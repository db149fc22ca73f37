"""What a person sees while a sweep runs: a live table, or plain lines where nobody watches."""

import sys
import time
from collections import Counter
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from lab.label import label
from lab.metrics import Metric
from lab.spec import Job, Outcome, Row


def settings(job: Job) -> str:
    """Return a job's settings in a few words."""
    parts = (label(job.cell | job.tuned), f"seed {job.trial.seeds.init}")
    return ", ".join(part for part in parts if part)


def duration(seconds: float) -> str:
    """Return a duration as a person writes it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class Board:
    """The state of a sweep, as figures."""

    def __init__(self, metric: Metric, jobs: int, slots: int = 1) -> None:
        self.metric, self.jobs, self.slots = metric, jobs, slots
        self.began = time.monotonic()
        self.running: dict[int, tuple[Job, Row, float]] = {}
        self.states: Counter[str] = Counter()
        self.flops = 0.0
        self.recent: list[tuple[Job, Outcome]] = []
        self._slot_seconds: list[float] = []

    def start(self, job: Job) -> None:
        """A job has got its slot."""
        self.running[job.number] = (job, {}, time.monotonic())

    def row(self, job: Job, row: Row) -> None:
        """A job has reached a scored point."""
        _, _, since = self.running[job.number]
        self.running[job.number] = (job, row, since)

    def end(self, job: Job, outcome: Outcome) -> None:
        """A job has ended, now or in an earlier run of the sweep."""
        if self.running.pop(job.number, None):
            self._slot_seconds.append(outcome.seconds)
        self.states[outcome.state] += 1
        self.flops += outcome.rows[-1]["spent/flops"] if outcome.rows else 0.0
        self.recent = [*self.recent[-7:], (job, outcome)]

    @property
    def ended(self) -> int:
        """How many jobs have ended."""
        return self.states.total()

    def left(self) -> str:
        """Return the time that is left, from what ended jobs took; empty before the first."""
        if not self._slot_seconds:
            return ""
        mean = sum(self._slot_seconds) / len(self._slot_seconds)
        used = sum(time.monotonic() - since for _, _, since in self.running.values())
        rest = max(0.0, (self.jobs - self.ended) * mean - used) / self.slots
        return f"about {duration(rest)} left"

    def headline(self) -> str:
        """Return trials by state, compute and time, in a line."""
        waiting = max(0, self.jobs - self.ended - len(self.running))
        parts = [f"{count} {state}" for state, count in sorted(self.states.items())]
        parts += [f"{len(self.running)} running", f"{waiting} queued", f"{self.flops:.3g} FLOPs"]
        parts += [duration(time.monotonic() - self.began), self.left()]
        return " · ".join(part for part in parts if part)


class View(Protocol):
    """Something that shows a board."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None: ...

    def changed(self, event: str) -> None:
        """The board has changed; `event` says how, in a line, where it is worth one."""

    def say(self, line: str) -> None:
        """Show a line that no board holds."""


class Lines:
    """A line for each start and end."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        pass

    def changed(self, event: str) -> None:
        """Print the event and where the sweep stands."""
        if event:
            self.say(event)

    def say(self, line: str) -> None:
        """Print the line and where the sweep stands."""
        print(f"[{self._board.ended}/{self._board.jobs}] {line}", flush=True)


class LiveTable:
    """A table that is drawn anew."""

    def __init__(self, board: Board, console: Console) -> None:
        self._board = board
        self._live = Live(get_renderable=self._table, console=console, refresh_per_second=2)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, at)

    def changed(self, event: str) -> None:
        """Nothing to do: the table reads the board by itself."""

    def say(self, line: str) -> None:
        """Print the line above the table."""
        self._live.console.print(line, markup=False, highlight=False)

    def _table(self) -> Table:
        board = self._board
        table = Table(title=board.headline(), title_justify="left", expand=False)
        for column in ("trial", "state", "settings", board.metric.name, "FLOPs", "time"):
            table.add_column(column)
        for job, outcome in board.recent:
            table.add_row(*_cells(job, outcome.state, outcome.rows, board.metric, outcome.seconds))
        for job, row, since in list(board.running.values()):
            rows = (row,) if row else ()
            now = time.monotonic() - since
            table.add_row(*_cells(job, "running", rows, board.metric, now), style="bold")
        return table


def view(board: Board) -> View:
    """Return a live table in a terminal, plain lines elsewhere."""
    console = Console()
    return LiveTable(board, console) if sys.stdout.isatty() else Lines(board)


def _cells(
    job: Job, state: str, rows: tuple[Row, ...], metric: Metric, seconds: float
) -> tuple[str, ...]:
    last = rows[-1] if rows else {}
    score = f"{last[metric.name]:.4f}" if metric.name in last else ""
    flops = f"{last['spent/flops']:.3g}" if last else ""
    return (str(job.number), state, settings(job), score, flops, duration(seconds))
