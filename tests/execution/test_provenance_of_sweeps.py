"""Provenance of a sweep's trials: that of the process that trained them, whatever runs later."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from prepared_text import PreparedText, copy_held_out
from sweep_in_process import OneScore

from lab.display import live
from lab.display.board import Board
from lab.execution.driver import Driver
from lab.execution.site import Site
from lab.loading import search_space
from lab.reporting.page import write_report
from lab.storage import provenance, record
from lab.storage.mirror import LocalOnly
from lab.storage.provenance import Provenance, current_provenance, read_provenance
from lab.tracking import frames
from lab.tracking.client import connect_client, default_uri
from lab.tracking.store import MlflowStore
from lab.trials import run
from lab.trials.run import run_trial

pytestmark = pytest.mark.usefixtures("unsynced")

SPACE = """
question: q
metric: probe/pos/accuracy
base:
  encoder: {size: tiny, hidden: 16, ffn: 32, heads: 2, embedding: 8}
  objective: {kind: mlm}
  data: {share: 0.01, vocab: 400, length: 16, held_out: 0.1}
  batch: 8
  budget: {kind: tokens, amount: 1024}
  evaluations: 1
search: {seeds: 1}
"""


@dataclass
class Checkout:
    """A commit with uncommitted changes, in place of that of this process."""

    now: Provenance = field(default_factory=current_provenance)

    def change(self, commit: str, diff: str) -> None:
        self.now = replace(self.now, commit=commit, dirty=bool(diff), diff=diff)


@pytest.fixture
def checkout(monkeypatch: pytest.MonkeyPatch) -> Checkout:
    checkout = Checkout()
    monkeypatch.setattr(provenance, "current_provenance", lambda: checkout.now)
    return checkout


def run_in_this_process(driver: Driver, began: float) -> dict[str, float]:
    while (work := driver.next()) is not None:
        driver.on_start(work)
        run_trial(work, report=lambda _, at=work: driver.on_evaluation(at))
        driver.on_end(work, None)
    return {}


Sweep = Callable[..., Path]


@pytest.fixture
def sweep(
    prepared_text: PreparedText, held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Sweep:
    """Return a function that runs the command of a sweep and returns the record of its trial."""
    monkeypatch.setattr(Driver, "_carry_out", run_in_this_process)
    monkeypatch.setattr(run, "AllScores", OneScore)
    shutil.copytree(prepared_text.text, tmp_path / "cache" / prepared_text.text.name)
    copy_held_out(held_out, tmp_path / "cache")
    file = tmp_path / "sweep.yaml"
    file.write_text(SPACE)

    def run_sweep(*, database: Path = tmp_path, fresh: bool = False) -> Path:
        experiment = search_space.load_experiment(file)
        site = Site(storage=tmp_path, mirror=LocalOnly(), ray="", fresh=fresh)
        store = MlflowStore(default_uri(database), database / "artifacts")
        with live.open_view(Board(experiment.metric)) as view:
            Driver(experiment, site, store, view).run("test")
        (folder,) = (tmp_path / "trials").iterdir()
        assert record.read_state(folder) == "finished"
        return folder

    return run_sweep


def stored_commit(database: Path) -> tuple[str, str, str]:
    """Return commit and dirty state in the tags of the trial's run, and the patch it has."""
    table = frames.load_frames(default_uri(database), "sweep")
    (trial,) = table.trials.to_dict("records")
    client = connect_client(default_uri(database))
    run_tags = client.get_run(trial["run_id"]).data.tags
    file = client.download_artifacts(
        run_tags["mlflow.parentRunId"], f"provenance/{run_tags['lab.provenance']}.json"
    )
    (entry,) = json.loads(Path(file).read_text())
    assert entry["commit"] == trial["commit"]
    assert table.texts.get(f"uncommitted changes to {trial['commit'][:12]}", "") == entry["diff"]
    return trial["commit"], trial["dirty"], entry["diff"]


def test_later_command_at_another_commit_does_not_change_the_provenance(
    sweep: Sweep, checkout: Checkout, tmp_path: Path
) -> None:
    checkout.change("1" * 40, "--- a\n+++ b\n")
    folder = sweep()
    trained = stored_commit(tmp_path)
    assert trained == ("1" * 40, "true", "--- a\n+++ b\n")
    before = (folder / "provenance.json").read_bytes()
    checkout.change("2" * 40, "")
    assert sweep() == folder
    assert (folder / "provenance.json").read_bytes() == before
    assert stored_commit(tmp_path) == trained
    table = frames.load_frames(default_uri(tmp_path), "sweep")
    assert table.sweep["last_command.commit"] == "2" * 40
    assert "commit" not in table.sweep
    text = write_report(table, tmp_path / "reports").with_suffix(".md").read_text()
    assert f"- commit: {'1' * 40}\n" in text
    assert f"- last command: commit: {'2' * 40}\n" in text
    assert f"- threads: {torch.get_num_threads()}\n" in text
    assert "last command: threads" not in text


@pytest.mark.reported
def test_lost_store_is_filled_with_the_commit_of_the_training(
    sweep: Sweep, checkout: Checkout, tmp_path: Path
) -> None:
    checkout.change("1" * 40, "")
    sweep()
    (tmp_path / "new").mkdir()
    checkout.change("2" * 40, "--- a\n+++ b\n")
    sweep(database=tmp_path / "new")
    assert stored_commit(tmp_path / "new") == ("1" * 40, "false", "")


def test_trial_that_runs_again_has_the_commit_of_the_new_run(
    sweep: Sweep, checkout: Checkout, tmp_path: Path
) -> None:
    checkout.change("1" * 40, "")
    sweep()
    checkout.change("2" * 40, "")
    folder = sweep(fresh=True)
    assert [entry.commit for entry in read_provenance(folder)] == ["2" * 40]
    assert stored_commit(tmp_path)[0] == "2" * 40
