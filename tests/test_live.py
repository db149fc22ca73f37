"""What a person sees while a sweep runs: figures that add up, shown in either of two ways."""

import random
import re
from dataclasses import replace

import pytest
from rich.console import Console

from lab import live, spec
from lab.live import Board, Lines, LiveTable
from lab.metrics import METRICS
from lab.space import trial

METRIC = METRICS["detect/bigram/auroc"]
WIDTH = "objective.generator.width"
BASE: dict[str, spec.Value] = {
    "encoder": {"size": "tiny"},
    "objective": {"kind": "electra"},
    "budget": {"kind": "flops", "amount": 1e12},
}


def job(number: int) -> spec.Job:
    return spec.Job(
        number=number,
        role="search",
        cell={WIDTH: 0.25},
        tuned={"optim.lr": 0.0015},
        repeat=0,
        trial=replace(trial(BASE, {WIDTH: 0.25}), seeds=spec.Seeds(init=number)),
    )


def row(score: float) -> spec.Row:
    return {"spent/steps": 8.0, "spent/flops": 2e9, METRIC.name: score}


def outcome(state: spec.State = "finished", *rows: spec.Row) -> spec.Outcome:
    return spec.Outcome(state=state, reason="", rows=rows, began=0.0, seconds=60.0, busy=50.0)


def counted(board: Board) -> dict[str, int]:
    found = re.findall(r"(\d+) (queued|running|finished|diverged|failed)", board.headline())
    return {state: int(count) for count, state in found}


@pytest.mark.parametrize("chance", range(5))
def test_every_job_is_queued_running_or_ended(chance: int) -> None:
    draw = random.Random(chance)  # noqa: S311
    board = Board(METRIC, 12, 3)
    queued, running = [job(number) for number in range(12)], list[spec.Job]()
    while queued or running:
        match draw.choice(["start", "row", "end", "known"]):
            case "start" if queued and len(running) < 3:
                running.append(queued.pop(0))
                board.start(running[-1])
            case "row" if running:
                board.row(draw.choice(running), row(0.6))
            case "end" if running:
                ended = running.pop(draw.randrange(len(running)))
                board.end(ended, outcome(draw.choice(["finished", "diverged", "failed"]), row(0.6)))
            case "known" if queued:  # its record is from an earlier sweep
                board.end(queued.pop(0), outcome("finished", row(0.6)))
            case _:
                continue
        counts = counted(board)
        assert sum(counts.values()) == board.jobs == 12
        assert counts["queued"] == len(queued)
        assert counts["running"] == len(running)
        assert board.ended == 12 - len(queued) - len(running)
    assert board.flops == 12 * 2e9


def test_time_left_comes_from_jobs_that_ran_here() -> None:
    board = Board(METRIC, 5, 2)
    assert board.left() == ""
    board.end(job(0), outcome("finished", row(0.6)))
    assert board.left() == "", "a job that ended in an earlier run took no time in this one"
    board.start(job(1))
    board.end(job(1), outcome("finished", row(0.6)))
    assert board.left() == "about 1 min 30 s left"  # 3 jobs of a minute, two at once


@pytest.mark.parametrize(
    ("seconds", "says"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (61, "1 min 01 s"), (3_600, "1 h 00 min")],
)
def test_duration_is_written_as_a_person_does(seconds: float, says: str) -> None:
    assert live.duration(seconds) == says


def test_plain_lines_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    board = Board(METRIC, 2, 1)
    view = live.view(board)
    assert isinstance(view, Lines)
    with view:
        board.start(job(0))
        view.changed("started it")
        board.end(job(0), outcome("finished", row(0.6)))
        view.changed("finished it")
        view.changed("")
    assert capsys.readouterr().out == "[0/2] started it\n[1/2] finished it\n"


def test_live_table_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert isinstance(live.view(Board(METRIC, 1, 1)), LiveTable)


def test_live_table_shows_settings_and_scores() -> None:
    board = Board(METRIC, 4, 2)
    console = Console(record=True, width=160, force_terminal=True)
    with LiveTable(board, console) as view:
        for number in range(3):
            board.start(job(number))
        board.row(job(0), row(0.6125))
        board.end(job(1), outcome("finished", row(0.7321)))
        board.end(job(2), outcome("diverged"))
        view.changed("something")
    shown = console.export_text()
    (running,) = (line for line in shown.splitlines() if " running " in line and "│ 0" in line)
    (ended,) = (line for line in shown.splitlines() if " finished " in line and "│ 1" in line)
    assert "width 0.25, lr 0.0015, seed 0" in running
    assert "0.6125" in running
    assert "seed 1" in ended
    assert "0.7321" in ended
    assert "2e+09" in ended
    assert METRIC.name in shown
    assert "1 diverged · 1 finished · 1 running · 1 queued" in shown


def test_live_table_shows_an_empty_board() -> None:
    console = Console(record=True, width=100, force_terminal=True)
    with LiveTable(Board(METRIC, 0, 1), console):
        pass
    assert "0 running · 0 queued" in console.export_text()
