"""Sweeps whose disk runs full, and trials that are run again; the trials run in this process."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from damage import flip_bit
from prepared_text import PreparedText, copy_held_out
from small_disk import fill, mount_small_disk

from lab.config.results import MetricRow
from lab.disk_space import DiskFullError
from lab.display import live
from lab.display.board import Board
from lab.execution.driver import Driver
from lab.execution.site import Site
from lab.loading import search_space
from lab.storage import record
from lab.storage.mirror import LocalOnly
from lab.tracking import frames, sync
from lab.tracking.client import default_uri
from lab.tracking.store import MlflowStore
from lab.trials.run import run_trial

pytestmark = pytest.mark.usefixtures("few_sentences", "unsynced")

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
search: {seeds: 2}
"""
Trained = list[str]  # names of the trials that were trained, in their order


@pytest.fixture
def trained() -> Trained:
    return []


@pytest.fixture
def evaluated() -> list[Callable[[MetricRow], None]]:
    """Return a list whose functions are called with each evaluation."""
    return []


@pytest.fixture
def sweep(
    prepared_text: PreparedText,
    held_out: Path,
    trained: Trained,
    evaluated: list[Callable[[MetricRow], None]],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., None]:
    """Return a function that runs the command of a sweep with a storage folder."""

    def run_in_this_process(driver: Driver, began: float) -> dict[str, float]:
        del began
        while (work := driver.next()) is not None:
            trained.append(work.folder.name)
            driver.on_start(work)

            def report(row: MetricRow, work=work) -> None:  # type: ignore[no-untyped-def]
                driver.on_evaluation(work)
                for function in evaluated:
                    function(row)

            run_trial(work, report=report)
            driver.on_end(work, None)
        return {}

    monkeypatch.setattr(Driver, "_carry_out", run_in_this_process)

    def run(storage: Path, *again: Path) -> None:
        if not (storage / "cache").exists():
            shutil.copytree(prepared_text.text, storage / "cache" / prepared_text.text.name)
            copy_held_out(held_out, storage / "cache")
        file = storage / "sweep.yaml"
        file.write_text(SPACE)
        experiment = search_space.load_experiment(file)
        site = Site(storage=storage, mirror=LocalOnly(), ray="", again=frozenset(again))
        store = MlflowStore(default_uri(storage), storage / "artifacts")
        with live.open_view(Board(experiment.metric)) as view:
            Driver(experiment, site, store, view).run("test")

    return run


def states(storage: Path) -> list[str | None]:
    return [record.read_state(folder) for folder in (storage / "trials").iterdir()]


@pytest.mark.reported
def test_a_full_disk_ends_the_sweep_without_failed_trials_and_it_continues_later(
    sweep: Callable[..., None],
    trained: Trained,
    evaluated: list[Callable[[MetricRow], None]],
    tmp_path: Path,
) -> None:
    with mount_small_disk(tmp_path / "disk", 2**26) as disk:

        def fill_disk(row: MetricRow) -> None:
            if row["spent/steps"]:
                fill(disk / "ballast")

        evaluated.append(fill_disk)
        with pytest.raises(DiskFullError, match=f"^no space left in {disk}.* bytes free"):
            sweep(disk)
        assert len(trained) == 1, "another trial has started"
        assert states(disk) == ["interrupted"]
        (disk / "ballast").unlink()
        evaluated.clear()
        sweep(disk)
        assert states(disk) == ["finished", "finished"]
    assert trained[0] == trained[1]


@pytest.mark.reported
def test_only_the_named_trial_is_trained_again(
    sweep: Callable[..., None],
    trained: Trained,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sweep(tmp_path)
    assert len(trained) == 2
    first = tmp_path / "trials" / trained[0]
    curves = {folder: record.read_curve(folder) for folder in first.parent.iterdir()}
    for file in first.glob("checkpoints/*/*"):
        file.write_bytes(b"damaged")
    sweep(tmp_path)
    assert len(trained) == 2, "the record is complete"
    sweep(tmp_path, first, tmp_path / "trials" / "0123")
    assert trained[2:] == [first.name]
    assert "--fresh 0123: no trial of this sweep" in capsys.readouterr().out
    for folder, curve in curves.items():
        scores = [row["probe/pos/accuracy"] for row in record.read_curve(folder)]
        assert scores == [row["probe/pos/accuracy"] for row in curve]


@pytest.mark.reported
def test_a_record_without_readable_checkpoints_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "0123abcd").mkdir()
    describe = partial(record.no_checkpoint, tmp_path / "0123abcd")
    (tmp_path / "0123abcd" / "state").write_text("finished\n")
    assert "add `--fresh 0123abcd` to the command of its sweep" in str(describe())
    (tmp_path / "0123abcd" / "state").write_text("queued\n")
    assert "--fresh" not in str(describe())


@pytest.mark.reported
def test_damaged_files_of_records_are_named_and_change_no_score(
    sweep: Callable[..., None],
    trained: Trained,
    evaluated: list[Callable[[MetricRow], None]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def end_process(row: MetricRow) -> None:
        if len(trained) == 2 and row["spent/steps"]:
            raise KeyboardInterrupt

    evaluated.append(end_process)
    with pytest.raises(KeyboardInterrupt):
        sweep(tmp_path / "whole")
    evaluated.clear()
    finished, interrupted = (tmp_path / "whole" / "trials" / name for name in trained)
    assert [record.read_state(each) for each in (finished, interrupted)] == [
        "finished",
        "interrupted",
    ]
    shutil.copytree(tmp_path / "whole", tmp_path / "expected")
    sweep(tmp_path / "expected")
    expected = read_scores(tmp_path / "expected")
    for number, name in enumerate(sorted(file.name for file in finished.glob("*.json*"))):
        storage = tmp_path / str(number)
        shutil.copytree(tmp_path / "whole", storage)
        for each in (finished, interrupted):
            flip_bit(storage / "trials" / each.name / name)
        capsys.readouterr()
        sweep(storage)
        assert f"damaged record {finished.name}: {name} (" in capsys.readouterr().out
        assert read_scores(storage) == expected


def read_scores(storage: Path) -> dict[str, list[float]]:
    """Return the evaluations of each trial, which must have finished."""
    outcomes = {each.name: record.read_outcome(each) for each in (storage / "trials").iterdir()}
    assert {outcome.state for outcome in outcomes.values() if outcome} == {"finished"}
    return {
        name: [row["probe/pos/accuracy"] for row in outcome.rows]
        for name, outcome in outcomes.items()
        if outcome
    }


def test_trials_are_trained_before_finished_ones_are_copied_to_a_new_database(
    sweep: Callable[..., None],
    trained: Trained,
    evaluated: list[Callable[[MetricRow], None]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, storage = tmp_path / "first", tmp_path / "storage"
    sweep(first)
    shutil.copytree(first, storage, ignore=shutil.ignore_patterns("mlflow.db"))
    again = min((storage / "trials").iterdir())
    monkeypatch.setattr(sync, "_SLICE", 0.0)
    copied: list[int] = []
    count = partial(count_ended_runs, default_uri(storage), "sweep")

    def count_copied(row: MetricRow) -> None:
        copied.append(count())
        if row["spent/steps"]:  # the trial is trained
            monkeypatch.setattr(sync, "_SLICE", 0.5)

    evaluated.append(count_copied)
    trained.clear()
    sweep(storage, again)
    assert trained == [again.name]
    assert copied == [0, 0]
    assert count() == 2


def count_ended_runs(uri: str, name: str) -> int:
    """Return the number of trials that have ended by the tracking store."""
    trials = frames.load_frames(uri, name).trials
    return int((trials["state"] == "finished").sum())
