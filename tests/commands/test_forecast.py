"""`lab.forecast` writes forecasts before their budget is run, and scores them afterwards."""

import io
import math
import shutil
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from stored_sweeps import BUDGETS, LAW, store_sweep

from lab import forecast, report, verify
from lab.reporting.forecasts.observed import load_forecasts
from lab.storage import digests
from lab.storage.mirror import LocalOnly
from lab.tracking.client import default_uri

TARGET = 1e13
Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def swept(unsynced: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a storage with a finished sweep of three sizes at four budgets."""
    storage = tmp_path_factory.mktemp("swept") / "runs"
    store_sweep(storage)
    return storage


@pytest.fixture(scope="module")
def forecast_of_sweep(swept: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a forecast of `TARGET` from the sweep."""
    storage = Path(shutil.copytree(swept, tmp_path_factory.mktemp("forecast") / "runs"))
    with redirect_stdout(io.StringIO()):
        assert forecast.main(["scaling", "--budget", str(TARGET), "--storage", str(storage)]) == 0
    return storage / "forecasts"


@pytest.fixture
def storage(swept: Path, tmp_path: Path) -> Path:
    """Return a copy of the storage, for a test to change."""
    return Path(shutil.copytree(swept, tmp_path / "runs"))


@pytest.fixture
def made(forecast_of_sweep: Path, storage: Path) -> Path:
    """Return the file of a forecast of `TARGET` that the storage has."""
    shutil.copytree(forecast_of_sweep, storage / "forecasts")
    (file,) = (storage / "forecasts").iterdir()
    return file


@pytest.fixture
def run(storage: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command; it returns the status and the output."""

    def call(*arguments: object) -> tuple[int, str]:
        status = forecast.main([*map(str, arguments), "--storage", str(storage)])
        output, error = capsys.readouterr()
        return status, output + error

    return call


def flat(text: str) -> str:
    """Return a text without line breaks and alignment."""
    return " ".join(text.split())


def read_files(storage: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in (storage / "forecasts").glob("*")}


def test_forecast_is_written_once_with_its_inputs(run: Run, storage: Path) -> None:
    status, output = run("scaling", "--budget", TARGET)
    assert status == 0, output
    assert output.rstrip().endswith(".json")
    ((name, text),) = read_files(storage).items()
    record = digests.read_json(storage / "forecasts" / name, "")
    assert record["sweep"] == "scaling"
    assert record["factor"] == TARGET / BUDGETS[-1]
    assert len(record["trials"]) == 24
    assert {each["fingerprint"] for each in record["trials"]} == {
        folder.name for folder in (storage / "trials").iterdir()
    }
    for design in record["designs"]:
        truth = float(LAW.loss(np.array(design["parameters"]), np.array(design["tokens"])))
        assert design["loss"] == pytest.approx(truth, rel=0.01)
        assert design["low"] < truth < design["high"]
        assert f"{design['loss']:.4f}" in output
    assert record["baseline"]["budget"] == BUDGETS[-1]
    assert record["baseline"]["losses"].keys() == {each["design"] for each in record["designs"]}
    written = (storage / "forecasts" / name).stat().st_mtime_ns
    status, output = run("scaling", "--budget", TARGET)
    assert (status, read_files(storage)) == (0, {name: text})
    assert "nothing was written" in output
    assert (storage / "forecasts" / name).stat().st_mtime_ns == written


def test_arrived_runs_score_the_forecast_and_forbid_another(
    run: Run, storage: Path, made: Path
) -> None:
    status, output = run("scaling")
    assert status == 0
    assert "No run at this budget counts yet" in flat(output)
    assert "no forecast of this store has been scored yet" in flat(output)
    store_sweep(storage, (*BUDGETS, TARGET), began=time.time() + 60)
    status, output = run("scaling")
    assert status == 0
    assert "3 of 3 intervals (90 % nominal) contain the observed mean" in flat(output)
    assert "3 of 3 intervals contain the observed mean (90 % nominal; 90 % binomial" in flat(output)
    assert "Regret 0.0000" in flat(output)
    before = read_files(storage)
    status, output = run("scaling", "--budget", TARGET)
    assert status == 2
    assert "must be larger than the largest budget of scaling, 1e+13" in output
    assert read_files(storage) == before


def test_runs_of_another_sweep_score_the_forecast_too(run: Run, storage: Path, made: Path) -> None:
    store_sweep(
        storage, (TARGET,), name="held_out", sizes=("nano48", "nano96"), began=time.time() + 60,
        shift=0.1,
    )  # fmt: skip
    status, output = run("scaling")
    assert status == 0
    assert "0 of 2 intervals" in flat(output)
    status, output = run("scaling", "--budget", TARGET)
    assert status == 2
    assert "of held_out has already been trained" in output
    assert len(output.splitlines()) == 1


def test_a_larger_budget_that_only_a_record_has_forbids_a_forecast(
    run: Run, storage: Path, tmp_path: Path
) -> None:
    store_sweep(tmp_path / "other", (2e13,), sizes=("nano48",), seeds=1)
    (record,) = (tmp_path / "other" / "trials").iterdir()
    shutil.copytree(record, storage / "trials" / record.name)
    (storage / "trials" / record.name / "state").write_text("running\n")
    status, output = run("scaling", "--budget", TARGET)
    assert status == 2
    assert f"trial {record.name} has already been trained" in output
    (storage / "trials" / record.name / "state").write_text("queued\n")
    (storage / "trials" / record.name / "curve.jsonl").unlink()
    assert run("scaling", "--budget", TARGET)[0] == 0


def test_runs_that_began_before_the_forecast_do_not_count(
    run: Run, storage: Path, made: Path
) -> None:
    store_sweep(storage, (TARGET,), sizes=("nano48",), began=1e9)
    status, output = run("scaling")
    assert status == 0
    assert "No run at this budget counts yet" in flat(output)
    assert "2 runs do not count: began before the forecast was written" in flat(output)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (2e12, "--budget: 2e+12 FLOPs; must be larger than the largest budget of scaling, 2e+12"),
        (7e13, "--budget: 7e+13 FLOPs; allowed are budgets up to 6e+13, which is 30 times"),
        (-1, "--budget: -1 FLOPs; allowed are budgets up to"),
        (math.nan, "--budget: nan FLOPs; allowed are budgets up to"),
    ],
)
def test_other_budgets_are_refused(run: Run, storage: Path, budget: float, message: str) -> None:
    status, output = run("scaling", f"--budget={budget}")
    assert (status, len(output.splitlines())) == (2, 1)
    assert message in output
    assert read_files(storage) == {}


def test_changed_file_is_refused(run: Run, made: Path) -> None:
    file, text = made, made.read_text()
    record = digests.read_json(file, "")
    file.write_text(text.replace(record["written"], "2020-01-01T00:00:00+00:00"))
    for arguments in (("scaling",), ("scaling", "--budget", TARGET)):
        status, output = run(*arguments)
        assert status == 2
        assert f"forecasts/{file.name}: damaged: its content differs from its SHA-256" in output
    record["trials"][0]["loss"] += 0.1
    file.write_text(digests.format_json(record))
    status, output = run("scaling")
    assert status == 2
    assert f"{file.name}: its inputs have the hash" in output
    file.write_text(digests.format_json(record | {"format": 2}))
    assert f"{file.name}: format: " in run("scaling")[1]
    file.write_text(text)
    assert run("scaling")[0] == 0


@pytest.mark.reported
@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("seeds",), 0),
        (("seeds",), -1),
        (("level",), 1.5),
        (("budget",), "NaN"),
        (("written",), "yesterday"),
        (("written",), "2026-01-01T00:00:00"),
        (("warnings",), ["\x1b[2J"]),
        (("designs", 0, "design"), "\x1b[2J"),
        (("designs", 0, "loss"), -1),
        (("designs", 0, "low"), -5),
        (("designs", 0, "low"), 9),
        (("designs", 0, "high"), 0.1),
        (("designs", 0, "noise"), 1e308),
        (("designs", 0, "tokens"), "Infinity"),
        (("baseline", "losses"), {"32 × 2": 0}),
    ],
)
def test_forecast_with_impossible_values_is_refused(
    run: Run, made: Path, path: tuple[str | int, ...], value: object
) -> None:
    content = digests.read_json(made, "")
    parent: Any = content
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    made.write_text(digests.format_json(content))
    status, output = run("scaling")
    assert status == 2
    assert output.count("\n") == 1
    assert f"{made.name}: {path[0]}" in output
    assert "\x1b" not in output


def test_each_law_has_a_forecast_of_its_own(run: Run, storage: Path, made: Path) -> None:
    assert run("scaling", "--budget", TARGET, "--law", "curves")[0] == 0
    assert len(read_files(storage)) == 2
    status, output = run("scaling")
    assert status == 0
    assert "one law L(N, D)" in flat(output)
    assert "one curve L(C)" in flat(output)
    assert "--law: needs --budget" in run("scaling", "--law", "curves")[1]


def test_sweeps_that_cannot_be_forecast_are_named(run: Run, storage: Path) -> None:
    assert (
        "the storage has no forecast of this sweep; it has forecasts of: none yet"
        in (run("scaling")[1])
    )
    store_sweep(storage, (1e12,), name="single", sizes=("nano48",), seeds=5)
    status, output = run("single", "--budget", TARGET)
    assert status == 2
    assert "48 × 2: a curve over budgets needs 5 runs and 3 budgets or more, got 5 and 1" in output
    assert read_files(storage) == {}


def test_report_scores_the_forecasts_and_is_verified(
    storage: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store_sweep(storage, (TARGET,), name="held_out", began=time.time() + 60)
    places = ["--storage", str(storage)]
    folder = storage.parent / "reports" / "scaling"
    assert report.main(["scaling", *places, "--reports", str(folder.parent)]) == 0
    for name in ("report.md", "report.html"):
        text = flat((folder / name).read_text())
        assert "Forecasts" in text
        assert "3 of 3 intervals contain the observed mean" in text
        assert "Back-tests: each budget is forecast from all others" in text
        assert "3 of 3 designs have runs" in text
    assert (folder / "figures" / "forecast-1.svg").is_file()
    rows = pd.read_csv(folder / "forecasts.csv")
    assert list(rows["rank"]) == [1, 2, 3]
    assert rows["covered"].all()
    assert (rows["observed"] - rows["loss"]).abs().max() < 0.02
    assert set(pd.read_csv(folder / "back_tests.csv")["budget"]) == set(BUDGETS)
    assert verify.main([str(folder), *places]) == 0, capsys.readouterr()
    table = folder / "forecasts.csv"
    table.write_text(table.read_text().replace(",True", ",False", 1))
    capsys.readouterr()
    assert verify.main([str(folder), "--storage", str(storage.parent / "none")]) == 1
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"{table}, line 2, column covered: 'False' stands there; recomputed: 'True'",
        f"{folder}: 1 difference",
    ]


def test_report_names_a_damaged_file_and_does_not_use_it(storage: Path, made: Path) -> None:
    made.write_text(made.read_text().replace('"version"', '"Version"'))
    found = load_forecasts(storage, LocalOnly(), default_uri(storage))
    assert (found.records, len(found.problems)) == ((), 1)
    assert found.problems[0].startswith(f"forecasts/{made.name}: damaged: its content differs")
