"""Sweeps with preparatory mlm runs, one of which diverges; the trials run in this process."""

import re
import shutil
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
from prepared_text import PreparedText, copy_held_out
from project import ROOT
from sweep_in_process import SweepInProcess

from lab.config.preparatory_runs import preparatory_cost, preparatory_runs
from lab.loading import search_space
from lab.reporting.page import write_report
from lab.storage import record
from lab.storage.mirror import LocalOnly
from lab.tracking.frames import SweepFrames

MLM = "{kind: mlm, budget: {kind: flops, amount: 2e7}, lr: %s}"
FROZEN = "{kind: frozen, width: 0.5, init_from: %s}" % (MLM % "1e-3")
SPACE = f"""
question: q
metric: probe/pos/accuracy
base:
  encoder: {{size: tiny, hidden: 16, ffn: 64, heads: 2, embedding: 8, layers: 1}}
  objective: {{kind: electra, sharing: none, generator: {FROZEN}}}
  data: {{share: 0.01, vocab: 400, length: 16, held_out: 0.1}}
  batch: 4
  budget: {{kind: flops, amount: 1e8}}
  evaluations: 1
compare: {{init_from: [{{kind: scratch}}, {MLM % "1e-3"}, {MLM % "1e3"}]}}
search: {{seeds: 1}}
"""


class Finished(NamedTuple):
    """A sweep that was run to its end.

    Attributes:
        sweep: the sweep.
        table: its frames.
        trained: its runs in their order, as `SweepInProcess.trained`.
    """

    sweep: SweepInProcess
    table: SweepFrames
    trained: tuple[str, ...]


@pytest.fixture(scope="module")
def finished(
    prepared_text: PreparedText,
    held_out: Path,
    unsynced: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Finished:
    storage = tmp_path_factory.mktemp("preparatory") / "storage"
    shutil.copytree(prepared_text.text, storage / "cache" / prepared_text.text.name)
    copy_held_out(held_out, storage / "cache")
    sweep = SweepInProcess(storage, LocalOnly(), SPACE)
    table = sweep()
    return Finished(sweep, table, tuple(sweep.trained))


def test_preparatory_runs_are_trained_once_and_before_the_trials_that_need_them(
    finished: Finished,
) -> None:
    """Both trials that finish share the generator's run, and one of them has an encoder's run."""
    kinds = [run.partition(" ")[0] for run in finished.trained]
    assert sorted(kinds) == ["electra", "electra", "mlm", "mlm", "mlm"]
    assert kinds[0] == "mlm"
    trials = [
        record.read_trial(folder)[0] for folder in (finished.sweep.storage / "trials").iterdir()
    ]
    needed = {run for trial in trials for run in preparatory_runs(trial).values()}
    assert len(needed) == 3
    assert needed <= set(trials)


def test_diverged_preparatory_run_is_the_recorded_reason_and_leaves_other_trials_alone(
    finished: Finished,
) -> None:
    trials = finished.table.trials
    assert sorted(trials["state"]) == ["diverged", "finished", "finished"]
    (reason,) = trials.loc[trials["state"] == "diverged", "reason"]
    assert re.match(r"its preparatory run [0-9a-f]{12} diverged: ", reason)


def test_budget_of_a_trial_includes_its_preparatory_runs(finished: Finished) -> None:
    trials = finished.table.trials
    done = trials[trials["state"] == "finished"].set_index("fingerprint")
    assert done["achieved"].between(0.9, 1.1).all()
    before = done["spent/flops"] - done["spent/marginal_flops"]
    assert before.max() > 1.8 * before.min()  # two preparatory runs, and one
    for name, flops in before.items():
        trial = record.read_trial(finished.sweep.storage / "trials" / str(name))[0]
        assert flops == pytest.approx(preparatory_cost(trial).flops)


def test_finished_sweep_trains_nothing_and_counts_each_run_once(finished: Finished) -> None:
    again = finished.sweep()
    assert finished.sweep.trained == []
    pd.testing.assert_frame_equal(again.trials, finished.table.trials)
    for table in (finished.table, again):
        assert table.measures["preparatory_runs"] == 3  # the third has diverged, but was trained


def test_report_counts_each_run_once(finished: Finished, tmp_path: Path) -> None:
    text = write_report(finished.table, tmp_path).with_suffix(".md").read_text()
    assert re.search(r"\| cost \| .* of training, including .* in 3 preparatory mlm runs", text)
    assert "Stand-alone compute is equal: trials of " in text
    assert "| marginal FLOP | stand-alone FLOP |" in text


def test_shipped_search_space_frozen_has_one_run_per_shape() -> None:
    experiment = search_space.load_experiment(ROOT / "search_spaces" / "frozen.yaml")
    counts = [
        len(set(preparatory_runs(search_space.build_trial(experiment.base, cell)).values()))
        for cell in search_space.expand_cells(experiment)
    ]
    assert counts == [0, 2, 1, 2]
