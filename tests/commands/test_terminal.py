"""All commands in a terminal, with Ctrl-C, and with a closed pipe; a sweep with halving."""

import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from project import ROOT
from sweeps import LIMIT, METRIC, ended_as, sweep_arguments
from terminal import CONTROLS, coloured, cursor_is_shown, opened

from lab.config.metrics import METRICS
from lab.config.results import MetricRow
from lab.evaluation import scores
from lab.storage import record
from lab.tracking import frames
from lab.tracking.client import default_uri
from lab.trials import run
from lab.trials.assignment import Assignment

pytestmark = pytest.mark.slow

SPACE = ROOT / "search_spaces" / "smoke.yaml"
HALVING = {
    "compare": "{}",
    "base__budget__amount": "4e10",  # a trial at the rung reads the stop file once a second
    "tune": "{optim.lr: {low: 1e-3, high: 1e-2, log: true}}",
    "base__schedule": "{kind: constant, warmup: 0}",
    "search": "{sampler: grid, trials: 4, seeds: 1, stopping: {kind: halving, first_rung: 0.5}}",
}
SWEEP = ["-m", "lab.sweep", *sweep_arguments(**HALVING)]
AT_RUNG = r"\] stopped lr "
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
evaluation: others.csv
text: text
label: label
metric: accuracy
"""


class Ended(NamedTuple):
    """A command that has ended: exit status, terminal output, and that output without controls."""

    status: int
    written: str
    text: str


def interrupted(
    cwd: Path,
    *command: object,
    at: str | Callable[[str], bool],
    times: int,
    presses: int = 1,
    **environment: str,
) -> Ended:
    """Run a command, interrupt it when `at` is shown, and again when it prints that it stops.

    Args:
        cwd: working directory.
        command: arguments of Python.
        at: regular expression or predicate of the output to wait for.
        times: number of interrupts.
        presses: number of Ctrl-C for each interrupt, in quick succession.
        environment: variables to add to those of this process.
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


def into_head(
    cwd: Path, *command: object, package: Path = ROOT
) -> "subprocess.CompletedProcess[str]":
    """Pipe a command into `head -1`; its output ends with a line with its exit status."""
    line = shlex.join(map(str, [sys.executable, *command]))
    return subprocess.run(
        ["bash", "-c", f"{line} | head -1; echo ${{PIPESTATUS[0]}}"],
        capture_output=True, text=True, timeout=LIMIT, check=True, cwd=cwd,
        env={"PYTHONPATH": str(package), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.parametrize("command", PROCESSES.values(), ids=PROCESSES.keys())
def test_ctrl_c_during_imports_gives_one_line(tmp_path: Path, command: list[str]) -> None:
    ended = interrupted(
        tmp_path, "-X", "importtime", "-m", *command, at=r"\blab\.errors\b", times=1
    )
    assert ended.status == 130
    printed = [line for line in ended.text.splitlines() if not line.startswith("import time:")]
    (line,) = (line for line in printed if "interrupted" in line)
    assert line.startswith("interrupted; ")
    assert not (tmp_path / "runs" / "trials").exists()


def test_first_line_is_printed_before_slow_imports(tmp_path: Path) -> None:
    with opened(tmp_path, "-X", "importtime", "-m", "lab.sweep", SPACE) as terminal:
        terminal.wait_for("smoke: Does the whole path run")
    before, _, _ = terminal.text.partition("smoke: Does")
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in before.splitlines()}
    assert "lab" in loaded
    assert not loaded & {"torch", "ray", "mlflow", "optuna", "transformers", "pandas", "numpy"}


@pytest.fixture(scope="module")
def cwd(begun_storage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("terminal")
    shutil.copytree(begun_storage, folder / "storage")
    return folder


@pytest.fixture(scope="module")
def unread(cwd: Path, few_rows_package: Path) -> "subprocess.CompletedProcess[str]":
    return into_head(cwd, *SWEEP, package=few_rows_package)


@pytest.fixture(scope="module")
def once(cwd: Path, unread: object, few_rows_package: Path) -> Ended:
    """A sweep in a terminal without control sequences, stopped by one Ctrl-C.

    One trial at least has ended at the rung, and another has just begun to train.
    """

    def begun_after_an_end(text: str) -> bool:
        states = {folder: record.read_state(folder) for folder in cwd.glob("storage/trials/*")}
        running = [folder for folder, state in states.items() if state == "running"]
        return re.search(AT_RUNG, text) is not None and any(
            len(record.read_curve(folder)) == 1 for folder in running
        )

    package = str(few_rows_package)
    return interrupted(cwd, *SWEEP, at=begun_after_an_end, times=1, PYTHONPATH=package, TERM="dumb")


@pytest.fixture(scope="module")
def saved(cwd: Path, once: Ended) -> dict[str, dict[Path, tuple[MetricRow, ...]]]:
    """Curves after the first Ctrl-C, by state and record."""
    curves: dict[str, dict[Path, tuple[MetricRow, ...]]] = {"finished": {}, "interrupted": {}}
    for folder in (cwd / "storage" / "trials").iterdir():
        curves[str(record.read_state(folder))][folder] = record.read_curve(folder)
    return curves


@pytest.fixture(scope="module")
def twice(cwd: Path, once: Ended, saved: object, few_rows_package: Path) -> Ended:
    """The same command in a terminal without colors, stopped by a second Ctrl-C."""
    package = str(few_rows_package)
    return interrupted(cwd, *SWEEP, at=RUNNING, times=2, PYTHONPATH=package, NO_COLOR="1")


@pytest.fixture(scope="module")
def whole(cwd: Path, twice: Ended, few_rows_package: Path) -> Ended:
    """The same command until its end, in a terminal of changing size."""
    with opened(cwd, *SWEEP, PYTHONPATH=str(few_rows_package)) as terminal:
        for columns, rows in ((60, 20), (120, 40), (40, 10), (80, 24)):
            terminal.wait_for(RUNNING)
            terminal.resize(columns, rows)
            at = len(terminal.text)
            terminal.wait_for(lambda text, at=at: len(text) > at + 500)
        return Ended(terminal.status(), terminal.written, terminal.text)


def test_sweep_with_closed_output_stops_with_status_141(
    unread: "subprocess.CompletedProcess[str]",
) -> None:
    question, status = unread.stdout.splitlines()
    assert question.startswith("smoke: Does the whole path run")
    assert status == "141"
    first_rung, cooldown, message = unread.stderr.splitlines()
    assert first_rung.startswith(
        "lab.sweep: warning: search.stopping.first_rung: the first rung is at "
    )
    assert cooldown.startswith("lab.sweep: warning: search.stopping: ")
    assert message == (
        "lab.sweep: the output is closed; trials that have ended are kept; "
        "run the same command again to resume"
    )


def test_one_ctrl_c_saves_the_state_of_running_trials(
    once: Ended, saved: dict[str, dict[Path, tuple[MetricRow, ...]]]
) -> None:
    assert once.status == 130
    assert "\x1b" not in once.written, "a dumb terminal gets no control sequences"
    assert "stopping: running trials save their state" in once.text
    assert once.text.splitlines()[-1] == (
        "interrupted; trials that have ended are kept; run the same command again to resume"
    )
    assert saved["interrupted"]
    assert once.text.count("its state is saved") == len(saved["interrupted"])


def test_second_ctrl_c_ends_the_sweep_at_once(twice: Ended) -> None:
    assert twice.status == 130
    assert not coloured(twice.written)
    assert twice.text.splitlines()[-1].startswith("interrupted; ")
    assert "its state is saved" not in twice.text


def test_same_command_resumes_and_finishes_while_the_terminal_is_resized(
    cwd: Path, whole: Ended
) -> None:
    assert whole.status == 0, whole.text
    assert "Traceback" not in whole.text
    assert ended_as(cwd / "storage") == {"finished": 4 + 2 + 1}
    assert "report:    reports/smoke/report.html" in whole.text
    assert cursor_is_shown(whole.written)


def test_best_settings_of_a_rung_continue_from_their_trials_after_interruptions(
    cwd: Path, whole: Ended, saved: dict[str, dict[Path, tuple[MetricRow, ...]]]
) -> None:
    storage = cwd / "storage"
    trials = frames.load_frames(default_uri(storage), "smoke").trials
    assert sorted(trials["state"]) == ["finished"] * 3 + ["stopped"] * 4
    search = trials[trials["role"] == "search"]
    at_rung, full = (search[search["state"] == state] for state in ("stopped", "finished"))
    assert set(at_rung.nlargest(2, METRIC)["tuned"]) == set(full["tuned"])
    names = at_rung.set_index("tuned")["fingerprint"]
    for tuned, name in zip(full["tuned"], full["fingerprint"], strict=True):
        curve = record.read_curve(storage / "trials" / name)
        shorter = record.read_curve(storage / "trials" / names[tuned])
        steps = [row["spent/steps"] for row in curve]
        assert steps == sorted(set(steps))
        assert len(shorter) == 3
        for row, own in zip(shorter, curve[:3], strict=True):
            assert row[METRIC] == own[METRIC]
        assert len(curve) == 4
    assert saved["finished"]
    for folder, rows in saved["finished"].items():
        assert record.read_curve(folder) == rows, "it had ended, and was trained anew"


def test_interrupted_trials_give_the_same_curves_as_uninterrupted_ones(
    cwd: Path,
    whole: Ended,
    saved: dict[str, dict[Path, tuple[MetricRow, ...]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        scores, "score_probe", lambda *_: {}
    )  # probes take long and are not compared here
    for folder in saved["interrupted"]:
        trial, text = record.read_trial(folder)
        cache = cwd / "storage" / "cache"
        (held_out,), (pairs,) = (cache.glob(name) for name in ("held-out-*.npz", "pairs-*.json"))
        work = Assignment(
            trial=trial,
            folder=tmp_path / folder.name,
            text=cwd / "storage" / "cache" / text,
            held_out=held_out,
            pairs=pairs,
            metric=METRICS[METRIC],
        )
        uninterrupted = run.run_trial(work).rows
        for one, other in zip(record.read_curve(folder), uninterrupted, strict=True):
            assert {key: one[key] for key in other if "second" not in key} == {
                key: value for key, value in other.items() if "second" not in key
            }


def test_table_is_redrawn_in_place(whole: Ended) -> None:
    up = sum(int(by or 1) for by, kind in CONTROLS.findall(whole.written) if kind == "A")
    assert up > 100, "the table is redrawn many times"
    assert whole.written.count("\n") - up < 50, "the terminal does not scroll"


@pytest.mark.parametrize("name", ["report", "export"])
def test_report_and_export_handle_ctrl_c_and_plain_terminals(
    cwd: Path, whole: Ended, name: str
) -> None:
    store = ["--tracking-uri", f"sqlite:///{cwd / 'storage' / 'mlflow.db'}"]
    command = {
        "report": ["-m", "lab.report", "smoke", *store, "--reports", "again"],
        "export": ["-m", "lab.export", "smoke", "exported", *store, "--storage", "storage"],
    }[name]
    loading = ["-X", "importtime", *command]
    assert interrupted(cwd, *loading, at=r"\bpandas\b", times=1, presses=2).status == 130
    with opened(cwd, *command, TERM="dumb", NO_COLOR="1") as terminal:
        for columns in (30, 300):
            terminal.resize(columns, 10)
        assert terminal.status() == 0, terminal.text
    result = {"report": "again/smoke/report.html", "export": "exported/discriminator"}[name]
    assert result in terminal.text.splitlines()
    assert "\x1b" not in terminal.written


def test_prepare_can_be_interrupted_and_repeated(tmp_path: Path) -> None:
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


def test_fine_tuning_can_be_interrupted_and_resumed(cwd: Path, whole: Ended) -> None:
    for name, start in (("rows", "it is"), ("others", "we find it")):
        rows = "".join(f"{start} {word},{word}\n" for word in ("good", "bad") * 40)
        (cwd / f"{name}.csv").write_text(f"text,label\n{rows}")
    (cwd / "task.yaml").write_text(TASK)
    command = ["-m", "lab.finetune", "smoke", "task.yaml", "--storage", "storage", "--seeds"]
    ended = interrupted(cwd, *command, 500, at="seed 1: accuracy", times=1, presses=2)
    assert ended.status == 130
    assert ended.text.splitlines()[-1] == "interrupted; finished seeds are kept"
    with opened(cwd, *command, 2, TERM="dumb", NO_COLOR="1") as terminal:
        terminal.wait_for("fine-tuning")
        terminal.resize(30, 10)
        assert terminal.status() == 0, terminal.text
    assert "seed 1: accuracy" not in terminal.text, "seed 1 is not run again"
    assert "median of 2" in terminal.text
    assert "\x1b" not in terminal.written
    assert into_head(cwd, *command, 2).stdout.splitlines()[1:] == ["141"]
