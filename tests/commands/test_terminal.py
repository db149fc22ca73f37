"""All commands in a terminal, interrupted, and before a closed pipe."""

import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from project import ROOT
from sweeps import LIMIT, METRIC, SMALL, ended_as, records
from terminal import CONTROLS, coloured, cursor_is_shown, opened

from lab.config.metrics import METRICS
from lab.evaluation import scores
from lab.storage import record
from lab.trials import run
from lab.trials.assignment import Assignment

pytestmark = pytest.mark.slow

SPACE = ROOT / "search_spaces" / "smoke.yaml"
OVERRIDES = [part for item in SMALL.items() for part in ("--set", "{}={}".format(*item))]
SWEEP = ["-m", "lab.sweep", SPACE, *OVERRIDES, "--storage", "storage"]
STARTED = r"\] started width 0\.5"
RUNNING = r"(?s)(training|scoring).*(training|scoring)"  # both trials
PROCESSES = {
    "sweep": ["lab.sweep", SPACE],
    "prepare": ["lab.prepare", SPACE],
    "finetune": ["lab.finetune", "smoke", "sentiment"],
    "export": ["lab.export", "smoke", "exported"],
    "report": ["lab.report", "smoke"],
}
TASK = """\
kind: classification
train: rows.csv
evaluation: rows.csv
text: text
label: label
metric: accuracy
"""


class Ended(NamedTuple):
    """A command that has ended: its status, and all that its terminal was told."""

    status: int
    written: str
    text: str


def interrupted(
    cwd: Path, *command: object, at: str, times: int, presses: int = 1, **environment: str
) -> Ended:
    """Run a command and interrupt it once `at` is shown, and again where it says that it stops.

    Args:
        cwd: where it runs.
        command: arguments of Python.
        at: regular expression to wait for.
        times: how often to wait and interrupt.
        presses: of Ctrl-C, each time, one soon after another.
        environment: on top of this process's.
    """
    with opened(cwd, *command, **environment) as terminal:
        for _ in range(times):
            terminal.wait_for(at)
            for _ in range(presses):
                terminal.press("\x03")
                time.sleep(0.05)
            at = "stopping: running trials save their state"
        status = terminal.status()
        ended = Ended(status, terminal.written, terminal.text.replace("^C", ""))
    assert "Traceback" not in ended.text
    assert cursor_is_shown(ended.written)
    return ended


def into_head(cwd: Path, *command: object) -> "subprocess.CompletedProcess[str]":
    """Run a command whose reader goes away after a line; its status comes last."""
    line = shlex.join(map(str, [sys.executable, *command]))
    return subprocess.run(
        ["bash", "-c", f"{line} | head -1; echo ${{PIPESTATUS[0]}}"],
        capture_output=True, text=True, timeout=LIMIT, check=True, cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.parametrize("command", PROCESSES.values(), ids=PROCESSES.keys())
def test_ctrl_c_while_libraries_are_loaded_is_one_line(tmp_path: Path, command: list[str]) -> None:
    ended = interrupted(
        tmp_path, "-X", "importtime", "-m", *command, at=r"\blab\.errors\b", times=1
    )
    assert ended.status == 130
    said = [line for line in ended.text.splitlines() if not line.startswith("import time:")]
    (line,) = (line for line in said if "interrupted" in line)
    assert line.startswith("interrupted; ")
    assert not (tmp_path / "runs" / "trials").exists()


def test_the_first_words_come_before_what_takes_long_to_load(tmp_path: Path) -> None:
    with opened(tmp_path, "-X", "importtime", "-m", "lab.sweep", SPACE) as terminal:
        terminal.wait_for("smoke: Does the whole path run")
    before, _, _ = terminal.text.partition("smoke: Does")
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in before.splitlines()}
    assert "lab" in loaded
    assert not loaded & {"torch", "ray", "mlflow", "optuna", "transformers", "pandas", "numpy"}


@pytest.fixture(scope="module")
def cwd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("terminal")


@pytest.fixture(scope="module")
def unread(cwd: Path) -> "subprocess.CompletedProcess[str]":
    return into_head(cwd, *SWEEP)


@pytest.fixture(scope="module")
def once(cwd: Path, unread: object) -> Ended:
    """A sweep in a terminal that can only print, stopped by one Ctrl-C."""
    return interrupted(cwd, *SWEEP, at=STARTED, times=1, TERM="dumb")


@pytest.fixture(scope="module")
def twice(cwd: Path, once: Ended) -> Ended:
    """The same command in one without colours, stopped at once by two."""
    assert not records(cwd / "storage")
    return interrupted(cwd, *SWEEP, at=RUNNING, times=2, NO_COLOR="1")


@pytest.fixture(scope="module")
def whole(cwd: Path, twice: Ended) -> Ended:
    """The same command, to its end, while the person changes the terminal's size."""
    with opened(cwd, *SWEEP) as terminal:
        for columns, rows in ((60, 20), (120, 40), (40, 10), (80, 24)):
            terminal.wait_for(RUNNING)
            terminal.resize(columns, rows)
            at = len(terminal.text)
            terminal.wait_for(lambda text, at=at: len(text) > at + 500)
        return Ended(terminal.status(), terminal.written, terminal.text)


def test_a_sweep_that_nobody_reads_ends_as_by_ctrl_c(
    unread: "subprocess.CompletedProcess[str]",
) -> None:
    question, status = unread.stdout.splitlines()
    assert question.startswith("smoke: Does the whole path run")
    assert status == "141"
    assert unread.stderr == (
        "lab.sweep: the output is closed; what had ended is kept, and the same command goes on\n"
    )


def test_one_ctrl_c_saves_what_runs(cwd: Path, once: Ended, twice: Ended) -> None:
    assert once.status == 130
    assert "\x1b" not in once.written, "a dumb terminal has no controls"
    assert "stopping: running trials save their state" in once.text
    assert once.text.splitlines()[-1] == (
        "interrupted; what had ended is kept, and the same command goes on"
    )
    assert once.text.count("its state is saved") == 2


def test_two_end_at_once(twice: Ended) -> None:
    assert twice.status == 130
    assert not coloured(twice.written)
    assert twice.text.splitlines()[-1].startswith("interrupted; ")
    assert "its state is saved" not in twice.text


def test_the_same_command_goes_on_to_the_end_in_a_terminal_that_changes(
    cwd: Path, whole: Ended
) -> None:
    assert whole.status == 0, whole.text
    assert "Traceback" not in whole.text
    assert ended_as(cwd / "storage") == {"finished": 2}
    assert "report:    reports/smoke/report.html" in whole.text
    assert cursor_is_shown(whole.written)


def test_interrupted_trials_end_as_trials_that_were_not(
    cwd: Path, whole: Ended, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        scores, "score_probe", lambda *_: {}
    )  # probes take long and need no proof here
    names = records(cwd / "storage")
    assert len(names) == 2
    for name in names:
        folder = cwd / "storage" / "trials" / name
        asked, text = record.read_trial(folder)
        (held_out,) = (cwd / "storage" / "cache").glob("held-out-*.npz")
        work = Assignment(
            trial=asked,
            folder=tmp_path / name,
            text=cwd / "storage" / "cache" / text,
            held_out=held_out,
            metric=METRICS[METRIC],
        )
        undisturbed = run.run_trial(work).rows
        for one, other in zip(record.read_curve(folder), undisturbed, strict=True):
            assert {key: one[key] for key in other if "second" not in key} == {
                key: value for key, value in other.items() if "second" not in key
            }


def test_a_table_is_drawn_in_place(whole: Ended) -> None:
    up = sum(int(by or 1) for by, kind in CONTROLS.findall(whole.written) if kind == "A")
    assert up > 100, "it was drawn often"
    assert whole.written.count("\n") - up < 50, "and has not scrolled"


@pytest.mark.parametrize("name", ["report", "export"])
def test_commands_that_print_once_work_in_a_terminal_and_a_pipe(
    cwd: Path, whole: Ended, name: str
) -> None:
    store = ["--tracking-uri", f"sqlite:///{cwd / 'storage' / 'mlflow.db'}"]
    command = {
        "report": ["-m", "lab.report", "smoke", *store, "--out", "again"],
        "export": ["-m", "lab.export", "smoke", "exported", *store, "--storage", "storage"],
    }[name]
    loading = ["-X", "importtime", *command]
    assert interrupted(cwd, *loading, at=r"\bpandas\b", times=1, presses=2).status == 130
    with opened(cwd, *command, TERM="dumb", NO_COLOR="1") as terminal:
        for columns in (30, 300):
            terminal.resize(columns, 10)
        assert terminal.status() == 0, terminal.text
    made = {"report": "again/smoke/report.html", "export": "exported/discriminator"}[name]
    assert made in terminal.text.splitlines()
    assert "\x1b" not in terminal.written


def test_prepare_is_interrupted_and_goes_on(tmp_path: Path) -> None:
    command = ["-m", "lab.prepare", SPACE, "--set", "base.data.share=0.02"]
    ended = interrupted(tmp_path, *command, at="tokenizer: training", times=1, presses=2)
    assert ended.status == 130
    assert list((tmp_path / "runs" / "cache").iterdir()) == []
    piped = into_head(tmp_path, *command)
    assert piped.stdout.splitlines() == ["smoke: preparing its text", "141"]
    assert piped.stderr.count("\n") == 1
    with opened(tmp_path, *command, NO_COLOR="1") as terminal:
        terminal.wait_for("preparing")
        terminal.resize(30, 10)
        assert terminal.status() == 0
    assert "documents: " in terminal.text
    assert "\x1b" not in terminal.written


def test_fine_tuning_is_interrupted_and_goes_on(cwd: Path, whole: Ended) -> None:
    rows = "text,label\n" + "".join(f"it is {word},{word}\n" for word in ("good", "bad") * 40)
    (cwd / "rows.csv").write_text(rows)
    (cwd / "task.yaml").write_text(TASK)
    command = ["-m", "lab.finetune", "smoke", "task.yaml", "--storage", "storage", "--seeds"]
    ended = interrupted(cwd, *command, 500, at="seed 1: accuracy", times=1, presses=2)
    assert ended.status == 130
    assert ended.text.splitlines()[-1] == "interrupted; seeds that had ended are kept"
    with opened(cwd, *command, 2, TERM="dumb", NO_COLOR="1") as terminal:
        terminal.wait_for("fine-tuning")
        terminal.resize(30, 10)
        assert terminal.status() == 0, terminal.text
    assert "seed 1: accuracy" not in terminal.text, "it was kept"
    assert "median of 2" in terminal.text
    assert "\x1b" not in terminal.written
    assert into_head(cwd, *command, 3).stdout.splitlines()[1:] == ["141"]
