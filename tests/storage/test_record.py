"""The record of a trial: it says where the trial stands, and survives being cut off anywhere."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, get_args

import pytest

from lab.config.metrics import METRICS
from lab.config.results import MetricRow, Outcome, State
from lab.loading.search_space import build_trial
from lab.storage import record
from lab.trials.assignment import Assignment, StopSignal

TRIAL = build_trial(
    {
        "encoder": {"size": "tiny"},
        "objective": {"kind": "electra"},
        "budget": {"kind": "flops", "amount": 1e12},
    },
    {},
)
ROWS: tuple[MetricRow, ...] = tuple({"spent/steps": float(n), "a": n / 3} for n in range(4))
STATES: tuple[State, ...] = get_args(State)
ENDS = STATES[2:]
FIRST = Outcome(
    state="interrupted", reason="by hand", rows=ROWS[:3], began=1e9, seconds=5.0, busy=4.0
)
LAST = replace(FIRST, state="finished", reason="", rows=ROWS, seconds=9.0, device="cpu")


def ended(folder: Path, outcome: Outcome) -> None:
    record.write_queued(folder, TRIAL)
    record.begin_record(folder, TRIAL)
    for row in outcome.rows:
        record.append_row(folder, row)
    record.write_outcome(folder, outcome)


@pytest.mark.parametrize("end", ENDS)
def test_record_says_where_its_trial_stands(tmp_path: Path, end: State) -> None:
    folder = tmp_path / "made"
    outcome = replace(FIRST, state=end)
    assert (
        record.read_state(folder)
        is record.read_outcome(folder)
        is record.read_last_outcome(folder)
        is None
    )
    record.write_queued(folder, TRIAL)
    assert (record.read_state(folder), record.read_outcome(folder)) == ("queued", None)
    record.begin_record(folder, TRIAL)
    assert (record.read_state(folder), record.read_outcome(folder)) == ("running", None)
    for row in outcome.rows:
        record.append_row(folder, row)
    record.write_outcome(folder, outcome)
    assert (record.read_state(folder), record.read_outcome(folder)) == (end, outcome)


def test_trial_that_begins_without_a_queue_has_a_whole_record(tmp_path: Path) -> None:
    record.begin_record(tmp_path / "it", TRIAL)
    assert (tmp_path / "it" / "trial.json").exists()
    assert record.read_state(tmp_path / "it") == "running"


@pytest.mark.parametrize("opened", [record.write_queued, record.begin_record])
def test_open_record_is_not_read_as_ended_by_an_older_outcome(
    tmp_path: Path, opened: Callable[..., None]
) -> None:
    ended(tmp_path, FIRST)
    opened(tmp_path, TRIAL)
    assert record.read_outcome(tmp_path) is None
    assert record.read_last_outcome(tmp_path) == FIRST


def test_record_that_opens_again_is_not_asked_to_stop(tmp_path: Path) -> None:
    record.write_queued(tmp_path, TRIAL)
    record.stop_file(tmp_path).touch()
    record.write_queued(tmp_path, TRIAL)
    assert not record.stop_file(tmp_path).exists()


class Killed(BaseException):
    """The process is gone, as by a signal."""


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Let the n-th touch of a file, counted from now, be the process's end."""
    left, opened = [-1], Path.open

    def over() -> bool:
        left[0] -= 1
        return left[0] == 0

    def before(act: Callable[..., Any]) -> Callable[..., Any]:
        def acts(self: Path, *given: Any, **named: Any) -> Any:
            if over():
                raise Killed
            return act(self, *given, **named)

        return acts

    def appends(self: Path, mode: str = "r", *given: Any, **named: Any) -> Any:
        """Open, and let what would be written be cut short: `write_text` opens too."""
        if mode in {"a", "w"} and over():
            with opened(self, mode) as file:
                file.write('{"spent/steps": 1')
            raise Killed
        return opened(self, mode, *given, **named)

    monkeypatch.setattr(Path, "open", appends)
    monkeypatch.setattr(Path, "replace", before(Path.replace))
    monkeypatch.setattr(Path, "unlink", before(Path.unlink))
    yield lambda touch: left.__setitem__(0, touch)
    left[0] = -1


def live(folder: Path, said: list[str]) -> None:
    """Go through a record's whole life, an interruption in the middle; `said` hears of each end."""
    record.write_queued(folder, TRIAL, "lineage")
    record.begin_record(folder, TRIAL)
    record.keep_rows(folder, 0)
    for row in FIRST.rows:
        record.append_row(folder, row)
    record.write_outcome(folder, FIRST)
    said.append("interrupted")
    record.write_queued(folder, TRIAL, "lineage")
    said.pop()
    record.begin_record(folder, TRIAL)
    record.write_origin(folder, "another")
    record.keep_rows(folder, 2)
    for row in LAST.rows[2:]:
        record.append_row(folder, row)
    record.write_outcome(folder, LAST)
    said.append("finished")


def test_record_cut_off_at_any_touch_of_a_file_is_open_or_whole(
    tmp_path: Path, kill_at: Callable[[int], None]
) -> None:
    for touch in count(1):
        folder, said = tmp_path / str(touch), list[str]()
        kill_at(touch)
        try:
            live(folder, said)
        except Killed:
            kill_at(-1)
        else:
            break
        found = record.read_outcome(folder)
        assert found in (None, FIRST, LAST)
        assert [found.state] == said[-1:] if said else found != LAST
        assert record.read_last_outcome(folder) in (
            None,
            replace(FIRST, rows=record.read_curve(folder)),
            LAST,
        )
        assert list(record.read_curve(folder)) == list(ROWS[: len(record.read_curve(folder))])
        live(folder, said)
        assert record.read_outcome(folder) == LAST
        assert record.read_origin(folder) == "another"
    assert touch > 20


@pytest.mark.parametrize("left", ["", "fini", "finishe", "over"])
def test_record_whose_state_is_no_state_is_open(tmp_path: Path, left: str) -> None:
    ended(tmp_path, LAST)
    (tmp_path / "state").write_text(left)
    assert record.read_state(tmp_path) is record.read_outcome(tmp_path) is None
    record.write_queued(tmp_path, TRIAL)
    assert record.read_state(tmp_path) == "queued"


@pytest.mark.parametrize("left", ["", "{", '{"state": "finished"}'])
def test_outcome_that_was_cut_short_is_none(tmp_path: Path, left: str) -> None:
    ended(tmp_path, LAST)
    (tmp_path / "outcome.json").write_text(left)
    assert record.read_outcome(tmp_path) is record.read_last_outcome(tmp_path) is None


def test_lost_outcome_is_none(tmp_path: Path) -> None:
    ended(tmp_path, LAST)
    (tmp_path / "outcome.json").unlink()
    assert record.read_outcome(tmp_path) is record.read_last_outcome(tmp_path) is None


def test_finished_record_without_its_last_point_is_not_read_as_finished(tmp_path: Path) -> None:
    """Its score would be that of an earlier point."""
    ended(tmp_path, LAST)
    record.keep_rows(tmp_path, 2)
    assert record.read_outcome(tmp_path) is None


def test_forgotten_record_was_never_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "it"
    ended(folder, LAST)
    record.forget(folder)
    record.forget(folder)
    assert not folder.exists()
    assert record.read_state(folder) is None


def test_wish_is_that_of_the_sweep_before_that_of_the_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("lab.trials.assignment.time.monotonic", lambda: now[0])
    record.write_queued(tmp_path / "it", TRIAL)
    work = Assignment(
        trial=TRIAL,
        folder=tmp_path / "it",
        text=tmp_path,
        held_out=tmp_path,
        metric=METRICS["probe/pos/accuracy"],
    )
    wish = StopSignal(work, work, tmp_path / "stop-all")

    def asked() -> State:
        now[0] += 2
        return wish()

    assert asked() == "running"
    record.stop_file(tmp_path / "it").touch()
    assert wish() == "running"  # the disk is asked once a second
    assert asked() == "stopped"
    (tmp_path / "stop-all").touch()
    assert asked() == "interrupted"
