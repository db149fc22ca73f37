"""Sweeps with a trunk: each part runs once, before its branches; the trials run in this process."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from prepared_text import PreparedText, copy_held_out

from lab.display import live
from lab.display.board import Board
from lab.execution.driver import Driver
from lab.execution.site import Site
from lab.loading import search_space
from lab.reporting import sentences
from lab.storage import record
from lab.storage.mirror import LocalOnly, Mirror
from lab.storage.remote import Remote
from lab.tracking import frames
from lab.tracking.client import default_uri
from lab.tracking.frames import SweepFrames
from lab.tracking.store import MlflowStore
from lab.trials import run
from lab.trials.scorers import Scorer

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


class OneScore(Scorer):
    """Takes one score without any computation, so that a trial takes milliseconds."""

    def score_end(self, objective: object) -> dict[str, float]:  # noqa: ARG002
        return {"probe/pos/accuracy": 0.5}

    score_interim = score_end


ONE_SEED = ["trunk 0-8", "trunk 8-16", "trial 8-10", "trial 16-20"]


class Sweep:
    """The command of a sweep in this process.

    Attributes:
        trained: description and number of own steps of each run, in order.
    """

    def __init__(self, storage: Path, mirror: Mirror) -> None:
        self.storage, self._mirror = storage, mirror
        self.trained: list[str] = []

    def _run_in_this_process(self, driver: Driver, began: float) -> dict[str, float]:
        del began
        driver._board.slots = 2
        while (work := driver.next()) is not None:
            rows = record.read_curve(work.folder)
            driver.on_start(work)
            outcome = run.run_trial(work.localize("process"))
            driver.on_end(work, None)
            start = rows[-1]["spent/steps"] if rows else 0
            kind = "trunk" if work.trial.extendable else "trial"
            end = outcome.rows[-1]["spent/steps"]
            self.trained.append(f"{kind} {start:.0f}-{end:.0f}")
        return {}

    def __call__(self, space: str = SPACE, *, fresh: bool = False, again: str = "") -> SweepFrames:
        file = self.storage / "sweep.yaml"
        file.write_text(space)
        self.trained.clear()
        experiment = search_space.load_experiment(file)
        store = MlflowStore(default_uri(self.storage), self.storage / "artifacts")
        names = frozenset([self.storage / "trials" / again] if again else ())
        site = Site(storage=self.storage, mirror=self._mirror, ray="", fresh=fresh, again=names)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run, "AllScores", OneScore)
            patch.setattr(Driver, "_carry_out", lambda *args: self._run_in_this_process(*args))
            with live.open_view(Board(experiment.metric)) as view:
                Driver(experiment, site, store, view).run("test")
        return frames.load_frames(default_uri(self.storage), "sweep")


@pytest.fixture(scope="module")
def prepared(
    prepared_text: PreparedText, held_out: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a storage with the inputs of the trials."""
    storage = tmp_path_factory.mktemp("prepared") / "storage"
    shutil.copytree(prepared_text.text, storage / "cache" / prepared_text.text.name)
    copy_held_out(held_out, storage / "cache")
    return storage


@pytest.fixture(scope="module")
def finished(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SweepFrames]:
    """Return the storage of a finished sweep, and its frames; tests change only copies of it."""
    storage = tmp_path_factory.mktemp("finished") / "storage"
    shutil.copytree(prepared, storage)
    sweep = Sweep(storage, LocalOnly())
    table = sweep()
    assert sweep.trained[0] == "trunk 0-8"
    assert sweep.trained.index("trial 16-20") == 6, "held branches start after both trunks"
    assert sorted(sweep.trained) == sorted(2 * ONE_SEED)
    return storage, table


@pytest.fixture
def sweep(finished: tuple[Path, SweepFrames], tmp_path: Path) -> Sweep:
    """Return a sweep that has finished before."""
    shutil.copytree(finished[0], tmp_path / "storage")
    return Sweep(tmp_path / "storage", LocalOnly())


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
    sweep: Sweep, finished: tuple[Path, SweepFrames]
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


def test_larger_budget_extends_the_trunk_that_is_in_the_storage(sweep: Sweep) -> None:
    sweep(SPACE.replace("[1280, 640]", "[1280, 2560]"))
    assert sorted(sweep.trained) == sorted(2 * ["trunk 16-32", "trial 32-40"])


def test_fresh_sweep_trains_its_trunks_again_and_a_fresh_trial_does_not(
    sweep: Sweep, finished: tuple[Path, SweepFrames]
) -> None:
    sweep(again=finished[1].trials["fingerprint"].iloc[0])
    assert sweep.trained == ["trial 16-20"]
    sweep(fresh=True)
    assert sorted(sweep.trained) == sorted(2 * ONE_SEED)


def test_diverged_trunk_is_the_recorded_end_of_the_trials_that_need_it(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
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
    sweep = Sweep(storage, Remote(storage, f"file://{tmp_path}/remote", 0.0))
    trials = sweep().trials
    assert sorted(sweep.trained) == sorted(2 * ONE_SEED)
    flops = trials["spent/flops"].sum() / (2 * (20 + 10))
    assert trials["spent/marginal_flops"].sum() == pytest.approx(flops * 2 * (16 + 4 + 2))
