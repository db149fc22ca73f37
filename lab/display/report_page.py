"""The page of a running sweep's report, rendered again when the tracking store has changed."""

import logging
import math
import threading
import time
from collections.abc import Callable

from lab.display.loopback_server import ServedPage
from lab.errors import one_line
from lab.tracking import tags
from lab.tracking.frames import SweepFrames

_SHORTEST, _LONGEST = 10.0, 60.0  # seconds between two readings of the store
_REST = 4  # pause after a reading, in multiples of its duration: the sweep needs the processor
_LOG = logging.getLogger(__name__)


class ReportPage:
    """The page of a sweep's report, kept equal to the tracking store while it is read.

    The store is read when the page is requested, but not again within four times the duration of
    the last reading and rendering, at least 10 s and at most 60 s. A sweep that has ended is read
    as well, because the same command may continue it.

    Args:
        load: function that reads the sweep from the tracking store.
        render: function that returns the HTML page of a sweep.
        notify: function that prints a line; called when the sweep ends, and if a later reading
            fails, in which case the page remains as it was.
        clock: function that returns the time in seconds.

    Raises:
        UserError: the first reading of the store fails.
    """

    def __init__(
        self,
        load: Callable[[], SweepFrames],
        render: Callable[[SweepFrames], str],
        notify: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load, self._render, self._notify, self._clock = load, render, notify, clock
        self._lock = threading.Lock()
        self._running, self._problem = True, ""
        self._frames = load()
        self._content = render(self._frames)
        self._pause(0.0)  # the first reading takes longer: it imports MLflow
        self._tell_end()

    def read(self) -> ServedPage:
        """Return the page; first read the store again if the interval has passed."""
        with self._lock:
            if self._clock() >= self._next:
                self._renew()
            refresh = math.ceil(self._interval) + 1 if self._running else None
            return ServedPage(content=self._content.encode(), refresh=refresh)

    def _renew(self) -> None:
        begun = self._clock()
        try:
            frames = self._load()
            if not _are_equal(frames, self._frames):
                self._content = self._render(frames)
                self._frames = frames
            self._problem = ""
        except Exception as error:  # the last page remains, and the next reading may succeed
            self._tell_problem(error)
        self._pause(self._clock() - begun)
        self._tell_end()

    def _pause(self, duration: float) -> None:
        """Set the time of the next reading, after one that took `duration` seconds."""
        self._interval = min(max(_SHORTEST, _REST * duration), _LONGEST)
        self._next = self._clock() + self._interval

    def _tell_end(self) -> None:
        """Print a line when the sweep is found to have ended, or to run again."""
        state, before = self._frames.sweep[tags.STATE], self._running
        self._running = state == "running"
        if before and not self._running:
            self._notify(
                f"{self._frames.name} has ended ({state}); its page is no longer renewed. "
                "Ctrl-C ends the server."
            )
        elif self._running and not before:
            self._notify(f"{self._frames.name} runs again; its page is renewed")

    def _tell_problem(self, error: Exception) -> None:
        """Print why the page cannot be renewed, once for each reason."""
        problem = one_line(str(error)) or type(error).__name__
        if problem != self._problem:
            self._problem = problem
            _LOG.warning("the page cannot be renewed", exc_info=error)
            self._notify(f"the page remains as it was: {problem}")


def _are_equal(first: SweepFrames, second: SweepFrames) -> bool:
    """Return whether two frames of a sweep give the same report."""
    tables = ((first.trials, second.trials), (first.curves, second.curves))
    if not all(one.equals(other) for one, other in tables):
        return False
    fields = ("sweep", "measures", "texts", "blocks", "codes", "omitted_codes", "run_id")
    return all(getattr(first, name) == getattr(second, name) for name in fields)
