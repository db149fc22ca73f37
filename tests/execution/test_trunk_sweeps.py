"""Sweeps with a trunk: each part runs once, before its branches; the trials run in this process."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from prepared_text import PreparedText
from sweep_in_process import SweepInProcess, make_storage

from lab.reporting import sentences
from lab.storage import record
from lab.storage.mirror import LocalOnly
from lab.storage.remote import Remote
from lab.tracking.frames import SweepFrames

pytestmark = pytest.mark.usefixtures("unsynced")

SPACE = """
question: q
metric: probe/pos/accuracy
base:
  encoder: {size: tiny, hidden: 8, ffn: 16, heads: 2, embedding: 8, layers: 1}
  objective: {kind: mlm}
  data: {share: 0.01, vocab: 400, length: 16, held_out: 0.1}
  batch: 4
  schedule: {kind: trunk, warmup: 128}
  budget: {kind: tokens, amount: 1280}
  evaluations: 1
compare: {budget.amount: [1280, 640]}
search: {seeds: 2}
"""
STEP = 4 * 16  # tokens


ONE_SEED = ["trunk 0-8", "trunk 8-16", "mlm 8-10", "mlm 16-20"]


@pytest.fixture(scope="module")
def prepared(
    prepared_text: PreparedText, held_out: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a storage with the inputs of the trials."""
    return make_storage(tmp_path_factory.mktemp("prepared") / "storage", prepared_text, held_out)


@pytest.fixture(scope="module")
def finished(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SweepFrames]:
    """Return the storage of a finished sweep, and its frames; tests change only copies of it."""
    storage = tmp_path_factory.mktemp("finished") / "storage"
    shutil.copytree(prepared, storage)
    sweep = SweepInProcess(storage, LocalOnly(), SPACE)
    table = sweep()
    assert sweep.trained[0] == "trunk 0-8"
    assert sweep.trained.index("mlm 16-20") == 6, "held branches start after both trunks"
    assert sorted(sweep.trained) == sorted(2 * ONE_SEED)
    return storage, table


@pytest.fixture
def sweep(finished: tuple[Path, SweepFrames], tmp_path: Path) -> SweepInProcess:
    """Return a sweep that has finished before."""
    shutil.copytree(finished[0], tmp_path / "storage")
    return SweepInProcess(tmp_path / "storage", LocalOnly(), SPACE)


def test_each_part_is_trained_once_and_each_step_is_charged_once(
    finished: tuple[Path, SweepFrames],
) -> None:
    _, table = finished
    trials = table.trials
    assert list(trials["state"]) == ["finished"] * 4
    assert all(trials["reason"].str.startswith("continued from "))
    flops = trials["spent/flops"].sum() / (2 * (20 + 10))  # of one step
    assert trials["spent/marginal_flops"].sum() == pytest.approx(flops * 2 * (16 + 4 + 2))
    assert trials["spent/standalone_flops"].equals(trials["spent/flops"])
    assert table.measures["trunk_flops"] == pytest.approx(flops * 2 * 16)
    assert table.measures["trunk_runs"] == 4
    assert not {"preparatory_flops", "trunk_uncharged_flops"} & set(table.measures)


def test_report_says_that_trials_share_a_trunk(finished: tuple[Path, SweepFrames]) -> None:
    _, table = finished
    assert " train trunks that trials share" in sentences.describe_compute(table)
    text = sentences.describe_trunks(table.trials)
    assert text.startswith(" Trials of amount 1280; amount 640 branch from trunks")
    stable = table.trials.assign(**{"schedule.kind": "stable"})
    assert sentences.describe_trunks(stable) == ""


def test_branches_of_one_trunk_have_its_name(finished: tuple[Path, SweepFrames]) -> None:
    trials = finished[1].trials
    assert trials.groupby("trunk")["repeat"].nunique().eq(1).all()
    assert sorted(trials["trunk"].value_counts()) == [2, 2]


def test_repeated_command_trains_nothing_also_without_the_records_of_the_trunks(
    sweep: SweepInProcess, finished: tuple[Path, SweepFrames]
) -> None:
    again = sweep()
    assert sweep.trained == []
    pd.testing.assert_frame_equal(finished[1].trials, again.trials)
    assert again.measures["trunk_runs"] == 4
    for folder in (sweep.storage / "trials").iterdir():
        if record.read_trial(folder)[0].extendable:
            record.delete_record(folder)
    sweep()
    assert sweep.trained == []


def test_larger_budget_extends_the_trunk_that_is_in_the_storage(sweep: SweepInProcess) -> None:
    sweep(SPACE.replace("[1280, 640]", "[1280, 2560]"))
    assert sorted(sweep.trained) == sorted(2 * ["trunk 16-32", "mlm 32-40"])


def test_fresh_sweep_trains_its_trunks_again_and_a_fresh_trial_does_not(
    sweep: SweepInProcess, finished: tuple[Path, SweepFrames]
) -> None:
    sweep(again=finished[1].trials["fingerprint"].iloc[0])
    assert sweep.trained == ["mlm 16-20"]
    sweep(fresh=True)
    assert sorted(sweep.trained) == sorted(2 * ONE_SEED)


def test_diverged_trunk_is_the_recorded_end_of_the_trials_that_need_it(
    sweep: SweepInProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "lab.trials.training.divergence_reason",
        lambda row, *_, **__: "too large" if row["spent/steps"] == 16 else None,
    )
    trials = sweep(fresh=True).trials.set_index("budget.amount")
    assert set(trials.loc[640, "state"]) == {"finished"}
    assert set(trials.loc[1280, "state"]) == {"diverged"}
    assert trials.loc[1280, "score"].isna().all(), "nothing is left of the earlier run"
    reasons = trials.loc[1280, "reason"]
    assert reasons.str.fullmatch(r"its preparatory run [0-9a-f]{12} diverged: too large").all()
    sweep()
    assert sweep.trained == []


def test_sweep_with_a_remote_storage_trains_each_part_once(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "local"))
    storage = tmp_path / "storage"
    shutil.copytree(prepared, storage)
    sweep = SweepInProcess(storage, Remote(storage, f"file://{tmp_path}/remote", 0.0), SPACE)
    trials = sweep().trials
    assert sorted(sweep.trained) == sorted(2 * ONE_SEED)
    flops = trials["spent/flops"].sum() / (2 * (20 + 10))
    assert trials["spent/marginal_flops"].sum() == pytest.approx(flops * 2 * (16 + 4 + 2))
