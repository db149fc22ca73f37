"""`python -m lab.sweep`: bad input gives a one-line error and status 2, and no file is written."""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from prepared_text import PreparedText, copy_held_out
from project import ROOT

from lab.storage import checks
from lab.sweep import main
from lab.trials import assignment

GOOD = """\
question: How large should the generator be?
metric: mlm/nats_per_character
base:
  encoder: {size: tiny}
  objective: {kind: electra}
  budget: {kind: flops, amount: 1e11}
compare:
  objective.generator.width: [0.25, 0.5]
"""

# Printed before the tracking store is checked, since loading MLflow takes seconds.
FIRST_LINES = """\
sizes: How large should the generator be?
masked tokens of a full window, mask_prob 0.25: 4 of 14 tokens (28.6 %)
opening the MLflow store (its tables are created on first use)
"""

WRONG: dict[str, tuple[str, str]] = {
    "unknown key": ("base.objective.genwidth=0.5", "base.objective.genwidth: unknown key"),
    "wrong type": ("base.optim.lr=fast", "base.optim.lr: must be a number, not 'fast'"),
    "out of range": ("base.objective.mask_prob=1.5", "base.objective.mask_prob: must be below 1"),
    "unknown metric": ("metric=accuracy", "metric: must be one of"),
    "incomparable metric": (
        "metric=train/generator_loss",
        "depends on the generator's size and the mask rate",
    ),
    "empty grid": ("compare.objective.generator.width=[]", "needs at least one value"),
    "width that its heads do not divide": (
        "compare={encoder.hidden: [256], objective.generator.width: [0.59]}",
        "heads (one for each 64)",
    ),
    "budget below one step": ("base.budget.amount=1000", "less than one step"),
    "override without a value": ("base.batch", "for example base.batch=64"),
    "override that is not YAML": ("base.batch=[1", "not YAML"),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    written = tmp_path / "space" / "sizes.yaml"
    written.parent.mkdir()
    written.write_text(GOOD, encoding="utf-8")
    return written


@pytest.fixture
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def error_line(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command with bad input; return its only line on standard error."""
    assert main([str(argument) for argument in arguments]) == 2
    output, line = capsys.readouterr()
    assert output in ("", FIRST_LINES)
    assert line.startswith("lab.sweep: error: ")
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert "Traceback" not in line
    return line.rstrip("\n")


@pytest.mark.parametrize(("override", "message"), WRONG.values(), ids=WRONG.keys())
def test_bad_override_gives_one_line_and_writes_nothing(
    file: Path, cwd: Path, capsys: pytest.CaptureFixture[str], override: str, message: str
) -> None:
    for more in ([], ["--dry-run"]):
        line = error_line(capsys, file, "--set", override, *more)
        assert message in line
        assert files(cwd) == []


def test_missing_file_gives_one_line(cwd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.yaml: no such file or directory" in error_line(capsys, "nowhere.yaml")
    assert files(cwd) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("question: [a", "line 1, column 13: not YAML: "),
        ("- a list", "is a mapping with question, metric and base"),
        ("", "is a mapping with question, metric and base"),
        ("question: a\nquestion: b", "line 2: question: duplicate key"),
        ("question: \x00", "not YAML"),
    ],
)
def test_file_without_a_search_space_gives_one_line(
    file: Path, cwd: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    file.write_text(text)
    assert message in error_line(capsys, file)
    assert files(cwd) == []


BAD_TASKS = {
    "no file": ("", "a.jsonl: no such file or directory"),
    "no column": ('{"text": "a", "stars": 1}\n', "a.jsonl:1: no column 'label'; columns: text,"),
    "unseen label": (
        '{"text": "a", "label": 0}\n{"text": "b", "label": 1}\n',
        "b.jsonl:1: label: no training row has the label '-1'",
    ),
}


@pytest.mark.reported
@pytest.mark.parametrize(("rows", "message"), BAD_TASKS.values(), ids=BAD_TASKS.keys())
def test_rows_of_tasks_are_checked_before_the_plan_and_before_the_sweep(
    file: Path, cwd: Path, capsys: pytest.CaptureFixture[str], rows: str, message: str
) -> None:
    folder = file.parent
    (folder / "own.yaml").write_text(
        "kind: classification\nmetric: f1\ntrain: a.jsonl\nevaluation: b.jsonl\n"
    )
    (folder / "b.jsonl").write_text('{"text": "a", "label": -1}\n')
    if rows:
        (folder / "a.jsonl").write_text(rows)
    for more in ([], ["--dry-run"]):
        tasks = f"finetune.tasks=[{folder / 'own.yaml'}]"
        assert message in error_line(capsys, file, "--set", tasks, *more)
        assert files(cwd) == []


LACKING = {
    "GPUs": ("resources.gpus_per_worker=1", (8, 0), "resources.gpus_per_worker: 1 for 1 worker"),
    "shares of a GPU": (
        "resources={workers: 3, gpus_per_worker: 0.6}",
        (8, 2),
        "0.6 of one GPU for each of 3 workers, and this machine's 2 GPUs hold 2 such workers",
    ),
    "CPUs": ("resources.cpus_per_worker=9", (8, 0), "resources.cpus_per_worker: 9 for 1 worker"),
    "CPUs of workers": (
        "resources={workers: 3, cpus_per_worker: 3}",
        (8, 0),
        "resources.cpus_per_worker: 9 for 3 workers, and this machine has 8",
    ),
    "custom": ("resources.tpus=1", (8, 8), "resources.tpus: unknown key; allowed: workers,"),
}


@pytest.mark.reported
@pytest.mark.parametrize(("override", "machine", "message"), LACKING.values(), ids=LACKING.keys())
def test_resources_that_the_machine_lacks_are_named_by_the_plan_and_by_the_sweep(
    file: Path,
    cwd: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    override: str,
    machine: tuple[float, float],
    message: str,
) -> None:
    def local_resources(*, gpus: bool) -> assignment.NodeResources:
        return assignment.NodeResources(*machine)

    monkeypatch.setattr(assignment, "local_resources", local_resources)
    for more in ([], ["--dry-run"]):
        assert main([str(file), "--set", override, *more]) == 2
        line = capsys.readouterr().err
        assert message in line
        assert line.count("\n") == 1
        assert files(cwd) == []


@pytest.mark.reported
def test_plan_names_a_cluster_that_does_not_answer(
    file: Path, cwd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(file), "--dry-run", "--address", "127.0.0.1:1"]) == 2
    assert "--address 127.0.0.1:1: no Ray cluster answers there" in capsys.readouterr().err
    assert files(cwd) == []


@pytest.mark.reported
def test_second_sweep_on_a_storage_names_the_process_that_uses_it(
    file: Path, cwd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with checks.claim_storage(cwd / "runs", "python -m lab.sweep other.yaml"):
        line = error_line(capsys, file, "--storage", "runs")
    assert f"--storage runs: in use by process {os.getpid()} on " in line
    assert "python -m lab.sweep other.yaml; wait until it ends" in line
    with checks.claim_storage(cwd / "runs", "again"):
        pass
    assert files(cwd) == []


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Return the URI of a server that accepts connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_unusable_tracking_uri_gives_one_line(
    file: Path, cwd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_the_way = file.parent / "file"
    in_the_way.write_text("not a database, and longer than its header would be" * 10)
    for uri, message in {
        "foo://there": "must be sqlite:",
        "mlruns": "file stores",
        "sqlite://": "names no database file",
        f"sqlite:///{in_the_way}/mlflow.db": "exists",
        f"sqlite:///{in_the_way}": "not a database",
        f"sqlite:///{file.parent}": "unable to open",
    }.items():
        line = error_line(capsys, file, "--tracking-uri", uri)
        assert uri in line
        assert message in line
        assert files(cwd) == []
    assert files(file.parent) == ["file", "sizes.yaml"]


@pytest.mark.slow
def test_unreachable_tracking_server_gives_one_line(
    file: Path,
    cwd: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    silent_server: str,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    for uri in ("http://127.0.0.1:9", silent_server):
        assert "no MLflow server responds" in error_line(capsys, file, "--tracking-uri", uri)
        assert files(cwd) == []


@pytest.mark.parametrize("option", ["--storage", "--reports"])
def test_unwritable_folder_gives_one_line(
    file: Path, cwd: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    for bad in (file, file / "below"):
        line = error_line(capsys, file, option, bad)
        assert f"{option} {bad}: cannot be written: " in line
        assert files(cwd) == []


def run(cwd: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "lab.sweep", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["FILE", "--set", "metric=train/generator_loss"],
        ["FILE", "--tracking-uri", "foo://there"],
        ["FILE", "--storage", "FILE"],
        ["nowhere.yaml"],
    ],
    ids=["space", "uri", "storage", "file"],
)
def test_process_with_bad_input_prints_one_line_and_exits_with_status_two(
    file: Path, cwd: Path, arguments: list[str]
) -> None:
    done = run(cwd, *(str(file) if argument == "FILE" else argument for argument in arguments))
    assert done.returncode == 2
    assert done.stdout in ("", FIRST_LINES)
    assert done.stderr.startswith("lab.sweep: error: ")
    assert done.stderr.count("\n") == 1
    assert files(cwd) == []


def test_unknown_option_is_refused(cwd: Path) -> None:
    done = run(cwd, "space.yaml", "--colour")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("error: unrecognized arguments: --colour")
    assert files(cwd) == []


def test_help_takes_less_than_ten_seconds(cwd: Path) -> None:
    began = time.monotonic()
    done = run(cwd, "--help")
    assert done.returncode == 0
    assert all(option in done.stdout for option in ("--set", "--dry-run", "--storage"))
    assert time.monotonic() - began < 10  # importing torch alone takes 2 to 5 s, ray as long


def test_help_imports_no_slow_library(cwd: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "lab.sweep", "--help"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "lab.cli" in imported
    assert not imported & {"torch", "ray", "mlflow", "optuna", "transformers", "pandas", "scipy"}


def test_folder_with_foreign_files_is_refused_before_any_trial_runs(
    cwd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = cwd / "reports" / "smoke" / "thesis.txt"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("text")
    assert main([str(ROOT / "search_spaces" / "smoke.yaml")]) == 2
    assert "holds no report" in capsys.readouterr().err
    assert not (cwd / "runs").exists()


def test_more_cores_than_available_are_refused_before_any_trial_runs(
    cwd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(ROOT / "search_spaces" / "smoke.yaml")
    assert main([file, "--set", "resources.cpus_per_worker=9999"]) == 2
    assert (
        "resources.cpus_per_worker: 9999 for 1 worker, and this machine has"
        in capsys.readouterr().err
    )
    assert not (cwd / "runs").exists()


def test_database_of_another_program_is_not_changed(
    cwd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = cwd / "other.db"
    with closing(sqlite3.connect(database)) as opened:
        opened.execute("CREATE TABLE cats (name TEXT)")
        opened.commit()
    before = database.read_bytes()
    file = str(ROOT / "search_spaces" / "smoke.yaml")
    assert main([file, "--tracking-uri", f"sqlite:///{database}"]) == 2
    assert "not an MLflow database" in capsys.readouterr().err
    assert database.read_bytes() == before


@pytest.mark.slow
def test_interrupt_is_reported_even_if_the_store_becomes_unusable(
    cwd: Path,
    prepared_text: PreparedText,
    held_out: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = cwd / "runs" / "cache"  # holds the files that the sweep would prepare
    shutil.copytree(prepared_text.text, cache / prepared_text.text.name)
    copy_held_out(held_out, cache)

    def interrupt(*_: object) -> dict[str, float]:
        (cwd / "runs" / "mlflow.db").write_bytes(b"no database any more, " * 100)
        raise KeyboardInterrupt

    monkeypatch.setattr("lab.execution.driver.Driver._carry_out", interrupt)
    file = str(ROOT / "search_spaces" / "smoke.yaml")
    small = "base.data={share: 0.01, held_out: 0.1, vocab: 400, length: 16}"
    assert main([file, "--set", small]) == 130
    assert "interrupted; trials that have ended are kept" in capsys.readouterr().err


@pytest.mark.parametrize("trial", ["best", "0123456789abc", "012", "space.yaml"])
def test_a_text_that_is_no_name_of_a_trial_is_refused_after_fresh(
    file: Path, cwd: Path, capsys: pytest.CaptureFixture[str], trial: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([str(file), "--fresh", trial])
    assert f"{trial!r} is not the name of a trial" in capsys.readouterr().err
    assert files(cwd) == []


def test_a_trial_to_run_again_that_does_not_exist_is_refused(
    file: Path, cwd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "0123abcd: no trial in" in error_line(capsys, file, "--fresh", "0123abcd")
    assert files(cwd) == []
