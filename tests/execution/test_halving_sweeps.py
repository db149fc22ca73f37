"""Sweeps with successive halving: a step is trained once; the trials run in this process."""

import random
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
from prepared_text import PreparedText
from sweep_in_process import OneScore, SweepInProcess, make_storage

from lab.config.results import Outcome
from lab.config.trial import Trial
from lab.loading import search_space
from lab.reporting import conclusion, sentences, stats
from lab.reporting.compared_scores import runner_up_scores
from lab.search import plan
from lab.storage import record
from lab.storage.mirror import LocalOnly
from lab.tracking.frames import SweepFrames
from lab.trials import run
from lab.trials.assignment import Assignment

pytestmark = pytest.mark.usefixtures("unsynced")

METRIC = "probe/pos/accuracy"
SPACE = """
question: q
metric: probe/pos/accuracy
base:
  encoder: {size: tiny, hidden: 8, ffn: 16, heads: 2, embedding: 8, layers: 1}
  objective: {kind: mlm}
  data: {share: 0.01, vocab: 400, length: 16, held_out: 0.1}
  batch: 4
  schedule: SCHEDULE
  budget: {kind: tokens, amount: 1280}
  evaluations: 1
tune: {optim.lr: {low: 1e-4, high: 1e-3}}
search: {sampler: grid, trials: 4, seeds: 2, stopping: {kind: halving, first_rung: 0.25}}
"""
FULL = 1280  # tokens, in 20 steps


class Case(NamedTuple):
    """A schedule that halving can use.

    Attributes:
        space: search space.
        trained: runs of four settings, two and one that continue, and two repeats: first and last
            step of each; a trial without a cooldown is named as a trunk.
    """

    space: str
    trained: Counter[str]


CASES = {
    "trunk": Case(
        SPACE.replace("SCHEDULE", "{kind: trunk, warmup: 64, decay: 0.4}"),
        Counter({"trunk 0-3": 4, "mlm 3-5": 4, "trunk 3-6": 2, "mlm 6-10": 2,
                 "trunk 6-12": 1, "trunk 0-12": 2, "mlm 12-20": 1 + 2}),
    ),
    "constant": Case(
        SPACE.replace("SCHEDULE", "{kind: constant, warmup: 0}"),
        Counter({"trunk 0-5": 4, "trunk 5-10": 2, "trunk 10-20": 1, "trunk 0-20": 2}),
    ),
}  # fmt: skip


def score_of(trial: Trial) -> float:
    """Return a score that orders the settings anew at each budget."""
    return random.Random(f"{trial.budget.amount} {trial.optim.lr} {trial.seeds}").random()  # noqa: S311


class ScoreOfTrial(OneScore):
    """Takes a score that depends on the settings only."""

    def __init__(self, work: Assignment, device: str) -> None:
        super().__init__(work, device)
        self._trial = work.trial

    def score_end(self, objective: object) -> dict[str, float]:  # noqa: ARG002
        return {METRIC: score_of(self._trial)}

    score_interim = score_end


class Finished(NamedTuple):
    """A sweep that has finished, of which tests change only copies."""

    case: Case
    storage: Path
    frames: SweepFrames


@pytest.fixture(scope="module")
def prepared(
    prepared_text: PreparedText, held_out: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a storage with the inputs of the trials."""
    return make_storage(tmp_path_factory.mktemp("prepared") / "storage", prepared_text, held_out)


@pytest.fixture(scope="module", params=CASES)
def finished(
    request: pytest.FixtureRequest, prepared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    case = CASES[request.param]
    storage = tmp_path_factory.mktemp(request.param) / "storage"
    shutil.copytree(prepared, storage)
    sweep = sweep_in(storage, case)
    frames = sweep()
    assert Counter(sweep.trained) == case.trained
    return Finished(case, storage, frames)


def sweep_in(storage: Path, case: Case) -> SweepInProcess:
    return SweepInProcess(storage, LocalOnly(), case.space, ScoreOfTrial)


def read_trials(finished: Finished) -> Iterator[tuple[str, Trial]]:
    """Yield the state in the sweep and the trial of each search trial."""
    trials = finished.frames.trials
    for row in trials[trials["role"] == "search"].to_dict("records"):
        trial, _ = record.read_trial(finished.storage / "trials" / row["fingerprint"])
        yield str(row["state"]), trial


def test_settings_with_the_best_final_scores_of_a_rung_continue(finished: Finished) -> None:
    budgets: dict[float, dict[float, float]] = {}
    for state, trial in read_trials(finished):
        amount = trial.budget.amount
        assert state == ("finished" if amount == FULL else "stopped")
        budgets.setdefault(amount / FULL, {})[trial.optim.lr] = score_of(trial)
    assert {share: len(scores) for share, scores in budgets.items()} == {0.25: 4, 0.5: 2, 1.0: 1}
    for share, continued in ((0.25, 2), (0.5, 1)):
        ordered = sorted(budgets[share], key=lambda rate: -budgets[share][rate])
        assert set(budgets[2 * share]) == set(ordered[:continued])


def test_scores_at_rungs_are_those_of_cooled_down_branches_of_a_trunk(finished: Finished) -> None:
    trials = [trial for state, trial in read_trials(finished) if state == "stopped"]
    cooled = {trial.trunk is not None for trial in trials}
    assert cooled == {finished.case is CASES["trunk"]}


def test_each_step_is_charged_once_and_as_planned(finished: Finished) -> None:
    trials, measures = finished.frames.trials, finished.frames.measures
    step = trials["spent/flops"].max() / 20
    assert "trunk_uncharged_flops" not in measures
    assert "preparatory_flops" not in measures
    runs = [(steps_of(each), count) for each, count in finished.case.trained.items()]
    steps = sum(count * (end - start) for (start, end), count in runs)
    assert trials["spent/marginal_flops"].sum() == pytest.approx(step * steps)
    experiment = search_space.load_experiment(finished.storage / "sweep.yaml")
    heading = plan.plan_heading(experiment, plan.plan_cells(experiment), 1)
    ((alone, marginal),) = re.findall(r"FLOPs: (\S+) stand-alone, (\S+) marginal", heading)
    (total,) = re.findall(rf"cells: 1   trials: {len(trials)}   FLOPs: (\S+) ", heading)
    assert float(marginal) == float(total) == pytest.approx(step * steps, rel=1e-3)
    assert float(alone) == pytest.approx(trials["spent/standalone_flops"].sum(), rel=1e-3)


def test_only_trials_of_the_full_budget_have_scores_in_the_report(finished: Finished) -> None:
    frames = finished.frames
    scored = frames.trials[frames.trials["score"].notna()]
    assert set(scored["budget.amount"]) == {FULL}
    assert Counter(scored["role"]) == {"search": 1, "repeat": 2}
    assert "1,280 tokens per trial" in conclusion.describe_validity(frames).replace("1280", "1,280")
    last = stats.last_search_trials(frames)
    assert last["tuned"].nunique() == len(last) == 4
    runs = stats.scored_trials(frames)
    (best,) = runner_up_scores(frames, runs).values()
    assert best == scored.loc[scored["role"] == "search", "score"].item()
    total = frames.trials["spent/marginal_flops"].sum()
    assert sentences.describe_compute(frames).startswith(
        sentences.format_quantity(float(total), "FLOP")
    )


def test_repeated_command_trains_nothing(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished.storage, tmp_path / "storage")
    sweep = sweep_in(tmp_path / "storage", finished.case)
    again = sweep()
    assert sweep.trained == []
    pd.testing.assert_frame_equal(finished.frames.trials, again.trials)


@pytest.mark.parametrize("runs", [1, 5, 8])
def test_interrupted_sweep_continues_where_it_was(
    finished: Finished, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: int
) -> None:
    """The runs before and after the interruption are those of a sweep without it."""
    shutil.copytree(prepared, tmp_path / "storage")
    sweep, left = sweep_in(tmp_path / "storage", finished.case), [runs]
    run_trial = run.run_trial

    def interrupt(work: Assignment) -> Outcome:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return run_trial(work)

    monkeypatch.setattr(run, "run_trial", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sweep()
    monkeypatch.setattr(run, "run_trial", run_trial)
    before = Counter(sweep.trained)
    frames = sweep()
    assert before.total() == runs
    assert before + Counter(sweep.trained) == finished.case.trained
    columns = ["number", "fingerprint", "state", "role", "score", "spent/marginal_flops"]
    pd.testing.assert_frame_equal(frames.trials[columns], finished.frames.trials[columns])


def test_fresh_sweep_trains_everything_again(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished.storage, tmp_path / "storage")
    sweep = sweep_in(tmp_path / "storage", finished.case)
    sweep(fresh=True)
    assert Counter(sweep.trained) == finished.case.trained


def test_full_budget_of_one_setting_is_a_rung_of_a_larger_one(
    prepared: Path, tmp_path: Path
) -> None:
    """A trial of two cells runs once and is counted once."""
    shutil.copytree(prepared, tmp_path / "storage")
    space = CASES["trunk"].space.replace("first_rung: 0.25", "first_rung: 0.5, factor: 4")
    sweep = sweep_in(tmp_path / "storage", CASES["trunk"])
    frames = sweep(f"{space}compare: {{budget.amount: [640, 1280]}}\n")
    trials = frames.trials
    assert trials["fingerprint"].nunique() < len(trials)
    assert len(sweep.trained) == len(set(trials["fingerprint"])) + frames.measures["trunk_runs"]
    used = sum(end - start for start, end in map(steps_of, sweep.trained))
    step = trials["spent/flops"].max() / 20
    charged = trials.drop_duplicates("fingerprint")["spent/marginal_flops"].sum()
    assert charged == pytest.approx(step * used)


def steps_of(trained: str) -> tuple[int, int]:
    """Return the first and the last step of a run."""
    start, _, end = trained.partition(" ")[2].partition("-")
    return int(start), int(end)
