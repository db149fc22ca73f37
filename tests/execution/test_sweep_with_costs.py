"""A whole sweep with a constraint, a prior and two objectives; its trials are not trained."""

import shutil
from pathlib import Path

import optuna
import pandas as pd
import pytest
from prepared_text import PreparedText, copy_held_out

from lab.config.results import Outcome
from lab.display import live
from lab.display.board import Board
from lab.execution.driver import Driver
from lab.execution.site import Site
from lab.loading import search_space
from lab.reporting.page import write_report
from lab.storage import record
from lab.storage.mirror import LocalOnly
from lab.tracking import frames
from lab.tracking.client import default_uri
from lab.tracking.frames import SweepFrames
from lab.tracking.store import MlflowStore

SPACE = """\
question: Which shape?
metric: pairs/accuracy
base:
  encoder: {size: nano32}
  objective: {kind: electra, generator: {width: 0.5}}
  data: {share: 0.01, held_out: 0.1, vocab: 400, length: 16}
  budget: {kind: flops, amount: 1e10}
  evaluations: 1
tune:
  encoder.ffn: {choices: [64, 128, 256]}
  optim.lr: {low: 1e-4, high: 1e-2, log: true}
"""
FIRST = SPACE + "search: {sampler: qmc, trials: 6, seeds: 2}\n"
SECOND = SPACE + (
    "cost: parameters\n"
    "constraints: {parameters: 30000}\n"
    "search: {sampler: tpe, trials: 8, seeds: 2, seed: 1, prior: [first]}\n"
)


def write_finished(driver: Driver, began: float) -> dict[str, float]:
    """Give each trial a record with a score, in place of running it."""
    while (work := driver.next()) is not None:
        driver.on_start(work)
        score = 0.5 + work.trial.encoder.ffn / 1_000 - work.trial.optim.lr
        rows = tuple(
            {
                "spent/steps": 8.0 * n, "spent/tokens": 1e3 * n, "spent/flops": 1e10 * n,
                "spent/paper_flops": 1e10 * n, "spent/six_n": 1e10 * n, "spent/seconds": 2.0 * n,
                "spent/marginal_flops": 1e10 * n, "spent/standalone_flops": 1e10 * n,
                "pairs/accuracy": 0.5 if n == 0 else score,
            }
            for n in range(2)
        )  # fmt: skip
        record.write_rows(work.folder, rows)
        end = Outcome(state="finished", reason="", rows=rows, started_at=1e9, seconds=3.0, busy=2.0)
        record.write_outcome(work.folder, end)
        driver.on_end(work, None)
    return {}


def run_sweep(storage: Path, name: str, text: str) -> SweepFrames:
    file = storage / f"{name}.yaml"
    file.write_text(text)
    experiment = search_space.load_experiment(file)
    site = Site(storage=storage, mirror=LocalOnly(), ray="")
    store = MlflowStore(default_uri(storage), storage / "artifacts")
    with live.open_view(Board(experiment.metric)) as view:
        Driver(experiment, site, store, view).run("test")
    return frames.load_frames(default_uri(storage), name)


def test_sweep_trains_feasible_settings_only_and_notes_each_trial_in_its_study(
    prepared_text: PreparedText, held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Driver, "_carry_out", write_finished)
    shutil.copytree(prepared_text.text, tmp_path / "cache" / prepared_text.text.name)
    copy_held_out(held_out, tmp_path / "cache")
    first = run_sweep(tmp_path, "first", FIRST)
    trained = {folder.name for folder in (tmp_path / "trials").iterdir()}
    assert trained == set(first.trials["fingerprint"])
    second = run_sweep(tmp_path, "second", SECOND)

    trials = second.trials
    searched = trials[trials["role"] == "search"]
    infeasible = trials[trials["state"] == "infeasible"]
    assert len(searched) == 8
    assert 0 < len(infeasible) < 8
    assert all("exceeds 30,000" in reason for reason in infeasible["reason"])
    assert set(trials["state"]) == {"finished", "infeasible"}
    written = {folder.name for folder in (tmp_path / "trials").iterdir()} - trained
    assert not written & set(infeasible["fingerprint"]), "an infeasible setting has no record"
    proposed = trials[trials["proposed_by"] == "first"]
    assert set(proposed["fingerprint"]) <= trained, "equal trials are not trained again"
    check_notes(tmp_path, second)

    report = write_report(second, tmp_path / "reports").parent
    assert pd.read_csv(report / "front.csv")["n"].tolist()
    again = run_sweep(tmp_path, "second", SECOND)
    pd.testing.assert_frame_equal(again.trials, second.trials)


def check_notes(storage: Path, table: SweepFrames) -> None:
    """Check that the note of each search trial names its record and its run in MLflow."""
    optuna_dashboard = pytest.importorskip("optuna_dashboard")
    database = optuna.storages.RDBStorage(f"sqlite:///{storage}/optuna.db")
    (name,) = (n for n in optuna.get_all_study_names(database) if n.startswith("second "))
    study = optuna.load_study(study_name=name, storage=database)
    by_number = table.trials.set_index("number")
    for trial in study.trials:
        note = optuna_dashboard.get_note(optuna.Trial(study, trial._trial_id))
        row = by_number.loc[trial.user_attrs["index"]]
        assert f"`trials/{row['fingerprint']}`" in note
        assert f"/#/experiments/{table.experiment_id}/runs/{row['run_id']}>" in note
        assert ("infeasible, not trained" in note) == (row["state"] == "infeasible")
