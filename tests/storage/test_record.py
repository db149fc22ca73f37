"""The record of a trial: its states, and reading it after an interruption at any file access."""

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
from lab.storage.record import Origin
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
    state="interrupted", reason="by hand", rows=ROWS[:3], started_at=1e9, seconds=5.0, busy=4.0
)
LAST = replace(FIRST, state="finished", reason="", rows=ROWS, seconds=9.0, device="cpu")


def write_record(folder: Path, outcome: Outcome) -> None:
    record.write_queued(folder, TRIAL)
    record.begin_record(folder, TRIAL)
    for row in outcome.rows:
        record.append_row(folder, row)
    record.write_outcome(folder, outcome)


@pytest.mark.parametrize("end", ENDS)
def test_state_and_outcome_from_queued_to_the_end(tmp_path: Path, end: State) -> None:
    folder = tmp_path / "trial"
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


def test_beginning_a_record_that_was_not_queued_creates_it(tmp_path: Path) -> None:
    folder = tmp_path / "trial"
    record.begin_record(folder, TRIAL)
    assert (folder / "trial.json").exists()
    assert record.read_state(folder) == "running"


@pytest.mark.parametrize("reopen", [record.write_queued, record.begin_record])
def test_reopened_record_has_no_outcome_but_a_last_outcome(
    tmp_path: Path, reopen: Callable[..., None]
) -> None:
    write_record(tmp_path, FIRST)
    reopen(tmp_path, TRIAL)
    assert record.read_outcome(tmp_path) is None
    assert record.read_last_outcome(tmp_path) == FIRST


class Killed(BaseException):
    """Simulates that the process was killed."""


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Return a function that makes the n-th file access from now on raise `Killed`."""
    remaining, open_file = [-1], Path.open

    def is_last() -> bool:
        remaining[0] -= 1
        return remaining[0] == 0

    def kill_before(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Path, *arguments: Any, **options: Any) -> Any:
            if is_last():
                raise Killed
            return method(self, *arguments, **options)

        return call

    def open_or_kill(self: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        """Open a file, or write an incomplete line and raise; `write_text` uses `open` too."""
        if mode in {"a", "w"} and is_last():
            with open_file(self, mode) as file:
                file.write('{"spent/steps": 1')
            raise Killed
        return open_file(self, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", open_or_kill)
    monkeypatch.setattr(Path, "replace", kill_before(Path.replace))
    monkeypatch.setattr(Path, "unlink", kill_before(Path.unlink))
    yield lambda access: remaining.__setitem__(0, access)
    remaining[0] = -1


def run_and_continue(folder: Path, states: list[str]) -> None:
    """Write the record of a trial that is interrupted, then continued and finished.

    `states` has the final state while the record should be complete, and is empty otherwise.
    """
    record.write_queued(folder, TRIAL, "lineage")
    record.begin_record(folder, TRIAL)
    record.truncate_curve(folder, 0)
    for row in FIRST.rows:
        record.append_row(folder, row)
    record.write_outcome(folder, FIRST)
    states.append("interrupted")
    record.write_queued(folder, TRIAL, "lineage")
    states.pop()
    record.begin_record(folder, TRIAL)
    record.write_origin(folder, Origin(name="another", charged_flops=5.0))
    record.truncate_curve(folder, 2)
    for row in LAST.rows[2:]:
        record.append_row(folder, row)
    record.write_outcome(folder, LAST)
    states.append("finished")


def test_record_interrupted_at_any_file_access_is_open_or_complete(
    tmp_path: Path, kill_at: Callable[[int], None]
) -> None:
    for access in count(1):
        folder, states = tmp_path / str(access), list[str]()
        kill_at(access)
        try:
            run_and_continue(folder, states)
        except Killed:
            kill_at(-1)
        else:
            break
        outcome = record.read_outcome(folder)
        assert outcome in (None, FIRST, LAST)
        assert [outcome.state] == states[-1:] if states else outcome != LAST
        assert record.read_last_outcome(folder) in (
            None,
            replace(FIRST, rows=record.read_curve(folder)),
            LAST,
        )
        assert list(record.read_curve(folder)) == list(ROWS[: len(record.read_curve(folder))])
        run_and_continue(folder, states)
        assert record.read_outcome(folder) == LAST
        assert record.read_origin(folder) == Origin(name="another", charged_flops=5.0)
    assert access > 20


@pytest.mark.parametrize("content", ["", "fini", "finishe", "over"])
def test_record_with_an_invalid_state_is_open(tmp_path: Path, content: str) -> None:
    write_record(tmp_path, LAST)
    (tmp_path / "state").write_text(content)
    assert record.read_state(tmp_path) is record.read_outcome(tmp_path) is None
    record.write_queued(tmp_path, TRIAL)
    assert record.read_state(tmp_path) == "queued"


@pytest.mark.parametrize("content", ["", "{", '{"state": "finished"}'])
def test_incomplete_outcome_reads_as_none(tmp_path: Path, content: str) -> None:
    write_record(tmp_path, LAST)
    (tmp_path / "outcome.json").write_text(content)
    assert record.read_outcome(tmp_path) is record.read_last_outcome(tmp_path) is None


def test_missing_outcome_reads_as_none(tmp_path: Path) -> None:
    write_record(tmp_path, LAST)
    (tmp_path / "outcome.json").unlink()
    assert record.read_outcome(tmp_path) is record.read_last_outcome(tmp_path) is None


def test_finished_record_without_its_last_point_has_no_outcome(tmp_path: Path) -> None:
    """Its score would come from an earlier point."""
    write_record(tmp_path, LAST)
    record.truncate_curve(tmp_path, 2)
    assert record.read_outcome(tmp_path) is None


def test_forgotten_record_has_no_state(tmp_path: Path) -> None:
    folder = tmp_path / "trial"
    write_record(folder, LAST)
    record.delete_record(folder)
    record.delete_record(folder)
    assert not folder.exists()
    assert record.read_state(folder) is None


def test_stop_request_of_the_sweep_is_read_from_the_disk_once_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("lab.trials.assignment.time.monotonic", lambda: now[0])
    folder = tmp_path / "trial"
    record.write_queued(folder, TRIAL)
    work = Assignment(
        trial=TRIAL,
        folder=folder,
        text=tmp_path,
        held_out=tmp_path,
        pairs=None,
        metric=METRICS["probe/pos/accuracy"],
    )
    stop_signal = StopSignal(work, work, tmp_path / "stop-all")

    def read_after_pause() -> State:
        now[0] += 2
        return stop_signal()

    assert read_after_pause() == "running"
    (tmp_path / "stop-all").touch()
    assert stop_signal() == "running"  # the disk is read once a second
    assert read_after_pause() == "interrupted"
