"""Display of a running sweep: counts, estimates, the live table and plain lines."""

import io
import logging
import math
import random
import re
import signal
import time
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from lab import logging_setup
from lab.config.experiment import Job
from lab.config.metrics import METRICS
from lab.config.results import MetricRow, Outcome, State
from lab.config.trial import Seeds, Value
from lab.display import live
from lab.display.board import Board
from lab.display.live import LiveTable, PlainLines
from lab.formatting import format_clock, format_duration
from lab.loading.search_space import build_trial
from lab.trials.progress import TRAINED, TRAINING, UNTRAINED, PhaseProgress

METRIC = METRICS["detect/bigram/auroc"]
WIDTH = "objective.generator.width"
BASE: dict[str, Value] = {
    "encoder": {"size": "tiny"},
    "objective": {"kind": "electra"},
    "budget": {"kind": "flops", "amount": 1e12},
}


class Clock:
    """Clock that advances when `wait` is called."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def board_of(jobs: int, slots: int = 1, clock: Clock | None = None) -> Board:
    board = Board(METRIC, clock or time.monotonic)
    board.jobs, board.slots = jobs, slots
    return board


def job(number: int) -> Job:
    return Job(
        number=number,
        role="search",
        cell={WIDTH: 0.25},
        tuned={"optim.lr": 0.0015},
        repeat=0,
        trial=replace(build_trial(BASE, {WIDTH: 0.25}), seeds=Seeds(init=number)),
    )


def row(score: float) -> MetricRow:
    flops = {"spent/flops": 2e9, "spent/marginal_flops": 2e9}
    return {"spent/steps": 8.0, METRIC.name: score} | flops


def outcome(state: State = "finished", *rows: MetricRow) -> Outcome:
    return Outcome(state=state, reason="", rows=rows, started_at=0.0, seconds=60.0, busy=50.0)


def count_states(board: Board) -> dict[str, int]:
    counts = re.findall(r"(\d+) (queued|running|finished|diverged|failed)", board.headline())
    return {state: int(count) for count, state in counts}


@pytest.mark.parametrize("chance", range(5))
def test_every_job_is_queued_running_or_ended(chance: int) -> None:
    draw = random.Random(chance)  # noqa: S311
    board = board_of(12, 3)
    queued, running = [job(number) for number in range(12)], list[Job]()
    while queued or running:
        match draw.choice(["start", "row", "end", "known"]):
            case "start" if queued and len(running) < 3:
                running.append(queued.pop(0))
                board.start(running[-1])
            case "row" if running:
                board.add_evaluation(draw.choice(running), row(0.6))
            case "end" if running:
                ended = running.pop(draw.randrange(len(running)))
                board.end(ended, outcome(draw.choice(["finished", "diverged", "failed"]), row(0.6)))
            case "known" if queued:  # it has a record of an earlier sweep
                board.end(queued.pop(0), outcome("finished", row(0.6)))
            case _:
                continue
        counts = count_states(board)
        assert sum(counts.values()) == board.jobs == 12
        assert counts["queued"] == len(queued)
        assert counts["running"] == len(running)
        assert board.ended == 12 - len(queued) - len(running)
    assert board.flops == 12 * 2e9


def test_time_left_is_empty_before_a_trial_of_this_run_has_ended(clock: Clock) -> None:
    board = board_of(5, 2, clock)
    assert board.describe_time_left() == ""
    board.end(job(0), outcome("finished", row(0.6)))
    assert board.describe_time_left() == "", (
        "a job that ended in an earlier run took no time in this one"
    )


def simulate_trial(board: Board, number: int, clock: Clock, training: float) -> None:
    """Simulate a trial: 10 s to start, 5 s and 8 s of scoring, with training in between."""
    board.start(job(number))
    clock.wait(10)
    board.update(job(number), PhaseProgress(phase=UNTRAINED))
    clock.wait(5)
    for share in range(5):
        board.update(job(number), PhaseProgress(phase=TRAINING, share=share / 4))
        clock.wait(training / 4 if share < 4 else 0)
    board.update(job(number), PhaseProgress(phase=TRAINED))
    clock.wait(8)
    board.end(job(number), outcome("finished", row(0.6)))


def test_time_left_includes_queued_trials_and_every_phase(clock: Clock) -> None:
    board = board_of(5, 2, clock)
    simulate_trial(board, 0, clock, training=37)
    assert (
        board.describe_time_left() == "about 2 min 00 s left"
    )  # 4 trials of a minute, two at once
    for number in (1, 2):
        board.start(job(number))
    clock.wait(10)
    for number in (1, 2):
        assert board.seconds_left(board.running[number]) == pytest.approx(50)
    assert (
        board.describe_time_left() == "about 1 min 50 s left"
    )  # 2 x 50 s and 2 x 60 s, two at once


def test_time_left_of_the_first_trial_is_estimated_from_its_own_progress(clock: Clock) -> None:
    board = board_of(1, 1, clock)
    board.start(job(0))
    board.update(job(0), PhaseProgress(phase=UNTRAINED))
    clock.wait(5)
    running = board.running[0]
    assert board.seconds_left(running) is None
    for seconds in range(11):  # it continues from a checkpoint at 40 %
        board.update(job(0), PhaseProgress(phase=TRAINING, share=0.4 + seconds / 100))
        clock.wait(1)
    assert board.describe_trial_phase(running) == "training 50%"
    assert board.seconds_left(running) == pytest.approx(
        50 - 1 + 5
    )  # the last scoring is expected to take as long as the first


def test_exceeded_estimate_is_displayed_as_text(clock: Clock) -> None:
    board = board_of(2, 1, clock)
    simulate_trial(board, 0, clock, training=37)
    board.start(job(1))
    board.update(job(1), PhaseProgress(phase=TRAINED))
    clock.wait(7.9)
    assert board.describe_time_left() == "about 1 s left"
    clock.wait(45)
    assert board.describe_time_left() == "longer than estimated"
    assert "longer than estimated" in board.status()
    board.end(job(1), outcome("finished", row(0.6)))
    assert board.describe_time_left() == "", "nothing is left to wait for"


def test_preparatory_run_is_displayed_and_not_counted_as_a_trial(clock: Clock) -> None:
    board = board_of(2, 1, clock)
    board.start_preparatory("0123456789ab", "mlm, 16 wide")
    board.update_preparatory("0123456789ab", PhaseProgress(phase=TRAINING, share=0.25))
    assert board.headline().startswith("1 preparatory run · 0 running · 2 queued")
    assert board.status() == "preparatory mlm, 16 wide: training 25%"
    (line,) = (line for line in render(board, 120) if "preparatory mlm, 16 wide" in line)
    assert line.split()[:2] == ["training", "25%"]
    board.end_preparatory("0123456789ab", "finished")
    assert board.status() == ""
    assert board.ended == 0


def test_flops_of_a_shared_preparatory_run_are_counted_once() -> None:
    board = board_of(2)
    board.preparatory_flops = 5e9
    for number in range(2):
        board.end(job(number), outcome("finished", row(0.6) | {"spent/flops": 7e9}))
    assert board.flops == 5e9 + 2 * 2e9


def test_phase_of_the_sweep_has_a_share_a_duration_and_a_time_left(clock: Clock) -> None:
    board = board_of(0, 1, clock)
    assert board.describe_phase() == board.headline() == ""
    assert board.set_phase("training the frozen model", 0.0)
    clock.wait(6)
    assert not board.set_phase("training the frozen model", 0.25)
    assert board.describe_phase() == "training the frozen model: 25%, 6 s, about 18 s left"
    assert board.set_phase("starting Ray")
    assert board.describe_phase() == "starting Ray, 0 s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (61, "1 min 01 s"), (3_600, "1 h 00 min")],
)
def test_duration_is_formatted_with_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (61, "1:01"), (3_661, "1:01:01")])
def test_duration_is_formatted_as_a_clock(seconds: float, text: str) -> None:
    assert format_clock(seconds) == text


def test_plain_lines_are_printed_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    board = Board(METRIC)
    with live.open_view(board) as view:
        assert isinstance(view, PlainLines)
        view.set_phase("loading")
        view.set_phase("loading", 0.5)
        view.set_phase("")
        time.sleep(0.1)  # the thread prints
        board.jobs = 2
        board.start(job(0))
        view.show_event("started it")
        time.sleep(0.1)
        board.end(job(0), outcome("finished", row(0.6)))
        view.show_event("finished it")
    assert capsys.readouterr().out == "loading\n[0/2] started it\n[1/2] finished it\n"


def test_plain_lines_print_the_status_after_a_time_without_events(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_SILENCE", 0.2)
    board = board_of(2)
    with live.open_view(board) as view:
        board.start(job(0))
        view.set_phase("starting Ray")
        until = time.monotonic() + 30
        while (output := capsys.readouterr().out).count("starting Ray,") < 1:
            assert time.monotonic() < until, output
            time.sleep(0.2)
        view.set_phase("")
        board.update(job(0), PhaseProgress(phase=TRAINING, share=0.25))
        while "seed 0: training 25%" not in (output := capsys.readouterr().out):
            assert time.monotonic() < until, output
            time.sleep(0.2)


def test_signals_of_supervisors_never_reach_the_thread_of_the_display(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The main thread blocks them while Ray starts; another thread would receive them instead."""
    blocked: list[set[signal.Signals | int]] = []

    def show(_self: PlainLines, _line: str) -> None:
        blocked.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    monkeypatch.setattr(PlainLines, "_show", show)
    with PlainLines(Board(METRICS["pairs/accuracy"])) as view:
        view.print_line("a line")
    assert {signal.SIGTERM, signal.SIGHUP} <= blocked[0]
    assert not {signal.SIGTERM, signal.SIGHUP} & signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.parametrize(("term", "kind"), [("xterm", LiveTable), ("dumb", PlainLines)])
def test_live_table_is_used_in_a_terminal_that_supports_it(
    term: str, kind: type[live.View], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", term)
    assert isinstance(live.open_view(Board(METRIC)), kind)


class TerminalStream(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("in_terminal", [True, False])
def test_log_records_are_printed_above_the_live_table_or_to_redirected_standard_error(
    in_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stderr = TerminalStream() if in_terminal else io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    console = Console(file=TerminalStream(), width=120, force_terminal=True)
    with logging_setup.handle_records(verbose=True), LiveTable(board_of(2), console) as view:
        logging.getLogger("lab.it").warning("an event")
        view.board.start(job(0))
    shown = console.file
    assert isinstance(shown, io.StringIO)
    assert ("an event" in shown.getvalue()) == in_terminal
    assert ("an event" in stderr.getvalue()) == (not in_terminal)
    before, _, after = shown.getvalue().partition("an event")
    assert "queued" in (after if in_terminal else before)  # the table is drawn below the record


def render(board: Board, width: int, height: int = 24) -> list[str]:
    console = Console(record=True, width=width, height=height, force_terminal=True)
    console.print(LiveTable(board, console)._drawn())
    return console.export_text().splitlines()


def filled_board() -> Board:
    board = board_of(40, 2)
    for number in range(20):
        board.start(job(number))
        if number < 18:
            board.end(job(number), outcome("finished", row(0.7321)))
    board.add_evaluation(job(18), row(0.6125))
    board.update(job(18), PhaseProgress(phase=UNTRAINED))
    board.end(job(20), outcome("diverged"))
    return board


def test_live_table_shows_settings_and_scores() -> None:
    lines = render(filled_board(), 160)
    (running,) = (line for line in lines if "scoring the untrained encoder" in line)
    assert running.split()[0] == "18"
    assert "width 0.25, lr 0.0015, seed 18" in running
    assert "0.6125" in running
    (ended,) = (line for line in lines if line.split()[:2] == ["17", "finished"])
    assert "0.7321" in ended
    assert "2e+09" in ended
    assert any(METRIC.name in line for line in lines)
    assert any("1 diverged · 18 finished · 2 running · 19 queued" in line for line in lines)


@pytest.mark.parametrize("height", [10, 24])
@pytest.mark.parametrize("width", [40, 80, 120])
def test_live_table_fits_its_terminal(width: int, height: int) -> None:
    board = filled_board()
    board.set_phase(
        "training the frozen masked language model that makes the held-out corruptions", 0.4
    )
    lines = render(board, width, height)
    assert max(map(cell_len, lines)) <= width
    assert len(lines) <= height
    assert sum("seed" in line or "width" in line for line in lines) >= 2, (
        "the running trials are shown"
    )


def test_live_table_shows_an_empty_board() -> None:
    board = board_of(3)
    assert "0 running · 3 queued" in "".join(render(board, 100))


def test_table_of_more_trials_than_lines_fits_the_screen() -> None:
    board = board_of(64, 64)
    for number in range(64):
        board.start(job(number))
    assert len(render(board, 80, 24)) <= 24


def test_live_table_is_erased_completely_after_the_terminal_has_become_narrower() -> None:
    """A narrower terminal wraps the old lines, so that more lines have to be erased."""
    file = io.StringIO()
    console = Console(file=file, width=80, height=24, force_terminal=True)
    display = LiveTable(filled_board(), console)._live
    display.start(refresh=True)
    display.refresh()
    drawn = file.getvalue().rpartition("\x1b[2K")[2].splitlines()
    widths = [cell_len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in drawn]
    assert max(widths) > 40
    file.truncate(0)
    console.width = 40
    display.refresh()
    rows = sum(max(1, math.ceil(width / 40)) for width in widths)
    assert file.getvalue().count("\x1b[1A") == rows - 1
    display.stop()
