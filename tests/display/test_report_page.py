"""The live page follows the tracking store while a sweep runs, and remains after an error."""

import dataclasses

import pandas as pd
import pytest

from lab.display.report_page import ReportPage
from lab.errors import UserError
from lab.tracking import tags
from lab.tracking.frames import SweepFrames


class Sweep:
    """A sweep whose frames a test changes, with a clock and the lines that were printed."""

    def __init__(self, state: str = "running") -> None:
        self.now, self.reading_seconds = 0.0, 0.0
        self.readings, self.renderings = 0, 0
        self.lines: list[str] = []
        self.error: Exception | None = None
        self.frames = SweepFrames(
            name="width", sweep={tags.STATE: state}, measures={}, texts={},
            trials=pd.DataFrame({"number": [0], "score": [float("nan")]}),
            curves=pd.DataFrame({"number": [0], "step": [0]}),
        )  # fmt: skip
        self.page = ReportPage(self.load, self.render, self.lines.append, lambda: self.now)

    def load(self) -> SweepFrames:
        self.readings += 1
        self.now += self.reading_seconds
        if self.error is not None:
            raise self.error
        return dataclasses.replace(self.frames, trials=self.frames.trials.copy())

    def render(self, frames: SweepFrames) -> str:
        self.renderings += 1
        return f"{len(frames.curves)} evaluations"

    def evaluate(self) -> None:
        curves = pd.DataFrame({"number": [0], "step": [len(self.frames.curves)]})
        self.frames = dataclasses.replace(
            self.frames, curves=pd.concat([self.frames.curves, curves], ignore_index=True)
        )

    def enter(self, state: str) -> None:
        self.frames = dataclasses.replace(self.frames, sweep={tags.STATE: state})


def test_page_is_rendered_again_when_the_sweep_makes_progress() -> None:
    sweep = Sweep()
    sweep.evaluate()
    assert sweep.page.read().content == b"1 evaluations"
    sweep.now += 10
    assert sweep.page.read().content == b"2 evaluations"
    assert sweep.page.read().refresh == 11


def test_page_is_not_rendered_again_without_progress() -> None:
    sweep = Sweep()
    for _ in range(3):
        sweep.now += 10
        sweep.page.read()
    assert (sweep.readings, sweep.renderings) == (4, 1)


def test_many_requests_read_the_store_once_in_an_interval() -> None:
    sweep = Sweep()
    for _ in range(99):
        sweep.now += 0.1
        sweep.page.read()
    assert sweep.readings == 1


@pytest.mark.parametrize(("reading", "pause"), [(1.0, 10), (5.0, 20), (30.0, 60)])
def test_pause_after_a_slow_reading_is_longer(reading: float, pause: int) -> None:
    sweep = Sweep()
    sweep.reading_seconds = reading
    sweep.now += 10
    assert sweep.page.read().refresh == pause + 1
    sweep.now += pause - 1
    sweep.page.read()
    assert sweep.readings == 2
    sweep.now += 1
    sweep.page.read()
    assert sweep.readings == 3


def test_end_of_the_sweep_is_told_once_and_ends_the_renewal() -> None:
    sweep = Sweep()
    sweep.enter("finished")
    for _ in range(2):
        sweep.now += 10
        assert sweep.page.read().refresh is None
    assert sweep.lines == [
        "width has ended (finished); its page is no longer renewed. Ctrl-C ends the server."
    ]
    sweep.enter("running")
    sweep.now += 10
    assert sweep.page.read().refresh == 11
    assert sweep.lines[1:] == ["width runs again; its page is renewed"]


@pytest.mark.parametrize("error", [UserError("database is\nlocked"), KeyError("state")])
def test_page_remains_while_the_store_cannot_be_read(error: Exception) -> None:
    sweep = Sweep()
    sweep.error = error
    for _ in range(2):
        sweep.now += 10
        page = sweep.page.read()
        assert (page.content, page.refresh) == (b"1 evaluations", 11)
    assert len(sweep.lines) == 1
    assert "\n" not in sweep.lines[0]
    sweep.error = None
    sweep.evaluate()
    sweep.now += 10
    assert sweep.page.read().content == b"2 evaluations"


def test_sweep_that_cannot_be_read_at_first_has_no_page() -> None:
    sweep = Sweep()
    sweep.error = UserError("no sweep of this name")
    with pytest.raises(UserError, match="no sweep"):
        ReportPage(sweep.load, sweep.render, sweep.lines.append)
