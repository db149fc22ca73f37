"""Which runs count as done: those that the same sweep would not run again, and no other."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lab.config import trial as spec
from lab.config.experiment import (
    Choices,
    Experiment,
    FinetuneConfig,
    Job,
    Range,
    Resources,
    SearchConfig,
)
from lab.config.metrics import METRICS
from lab.config.preparatory_runs import preparatory_runs, unstarted_identity
from lab.config.results import MetricRow, Outcome, State
from lab.loading import search_space
from lab.search import finished
from lab.search.finished import TrialIdentities
from lab.search.search import Search
from lab.storage import record

IDENTITY = "0123456789ab"
WIDTH = "objective.generator.width"


def experiment(**changes: object) -> Experiment:
    asked = Experiment(
        name="counted",
        question="Does it?",
        metric=METRICS["detect/bigram/auroc"],
        base={
            "encoder": {"size": "tiny"},
            "objective": {"kind": "electra"},
            "budget": {"kind": "flops", "amount": 1e12},
        },
        compare={WIDTH: (0.25, 0.5)},
        tune={"optim.lr": Range(low=1e-4, high=1e-2, log=True)},
        search=SearchConfig(trials=3, seeds=2),
        resources=Resources(),
    )
    return replace(asked, **changes)


def jobs(asked: Experiment, folder: Path) -> list[Job]:
    """Return all jobs of a sweep that ran to its end, in the order of asking."""
    search = Search(asked, f"sqlite:///{folder}/optuna.db", folder / "searches")
    found = []
    while (job := search.ask()) is not None:
        found.append(job)
        row = {"spent/steps": 8.0, asked.metric.name: 0.5 + job.trial.optim.lr}
        search.tell(job, outcome(row))
    return found


def outcome(row: MetricRow, state: State = "finished") -> Outcome:
    return Outcome(state=state, reason="", rows=(row,), began=0.0, seconds=1.0, busy=1.0)


def leave(
    storage: Path,
    trial: spec.Trial,
    state: State,
    row: MetricRow | None = None,
    identity: str = IDENTITY,
) -> None:
    folder = storage / "trials" / trial.fingerprint(identity)
    record.write_queued(folder, trial)
    record.append_row(folder, row or {"spent/steps": 8.0})
    record.write_outcome(folder, outcome({}, state))


def counted(asked: Experiment, storage: Path) -> list[tuple[int, int]]:
    found = finished.count_finished(asked, storage, prepared(asked, IDENTITY))
    return [(c.trained, c.finetuned) for c in found]


def prepared(asked: Experiment, identity: str, *started: str) -> finished.Prepared:
    known = TrialIdentities(scratch=identity, started=started)
    return {
        search_space.build_trial(asked.base, cell).texts: known
        for cell in search_space.expand_cells(asked)
    }


@pytest.mark.parametrize("tuned", [True, False])
@pytest.mark.parametrize("chance", range(3))
def test_whatever_has_ended_is_counted_in_its_cell(
    tuned: bool, chance: int, tmp_path: Path
) -> None:
    asked = experiment() if tuned else experiment(tune={}, search=SearchConfig(seeds=4))
    all_jobs = jobs(asked, tmp_path)
    assert len(all_jobs) == (10 if tuned else 8)
    drawn = np.random.default_rng(chance)
    ended = [all_jobs[place] for place in drawn.choice(len(all_jobs), 4, replace=False)]
    for job in ended:
        leave(tmp_path, job.trial, "finished" if drawn.random() < 0.5 else "diverged")
    mine = [sum(job.cell == cell for job in ended) for cell in search_space.expand_cells(asked)]
    assert counted(asked, tmp_path) == [(n, n) for n in mine]


def test_what_runs_again_is_not_counted(tmp_path: Path) -> None:
    asked = experiment(tune={}, search=SearchConfig(seeds=3))
    first, second, third, *_ = jobs(asked, tmp_path)
    for job, state in ((first, "failed"), (second, "interrupted"), (third, "stopped")):
        leave(tmp_path, job.trial, state)
    assert counted(asked, tmp_path) == [(0, 0), (0, 0)]


def test_trials_of_other_settings_seeds_texts_or_versions_are_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = experiment(tune={}, search=SearchConfig(seeds=3))
    job = jobs(asked, tmp_path)[0]
    leave(tmp_path, replace(job.trial, batch=96), "finished")
    leave(tmp_path, replace(job.trial, seeds=job.trial.seeds.repeat(7)), "finished")
    assert counted(asked, tmp_path) == [(0, 0), (0, 0)]
    leave(tmp_path, job.trial, "finished")
    assert counted(asked, tmp_path) == [(1, 1), (0, 0)]
    other = prepared(asked, "another text")
    assert [c.trained for c in finished.count_finished(asked, tmp_path, other)] == [0, 0]
    monkeypatch.setattr(spec, "__version__", "9.9.9")
    assert counted(asked, tmp_path) == [(0, 0), (0, 0)]


def test_trials_that_lack_what_is_tuned_are_not_counted(tmp_path: Path) -> None:
    """A storage holds other sweeps' trials: some have no generator, no ramp, no such section."""
    asked = experiment(
        compare={},
        tune={WIDTH: Choices(choices=(0.25, 0.5)), "batch.start": Range(low=8, high=16)},
    )
    other = {**asked.base, "objective": {"kind": "mlm"}, "batch": 32}
    leave(tmp_path, search_space.build_trial(other, {}), "finished")
    assert counted(asked, tmp_path) == [(0, 0)]


def test_trial_without_the_score_of_a_task_has_yet_to_be_finetuned(tmp_path: Path) -> None:
    asked = experiment(
        tune={}, search=SearchConfig(seeds=3), finetune=FinetuneConfig(tasks=("sentiment",))
    )
    first, second, *_ = jobs(asked, tmp_path)
    leave(tmp_path, first.trial, "finished", {"spent/steps": 8.0, "finetune/sentiment": 0.6})
    leave(tmp_path, second.trial, "finished")
    assert counted(asked, tmp_path) == [(1, 1), (1, 0)]
    leave(tmp_path, second.trial, "diverged")
    assert counted(asked, tmp_path) == [(1, 1), (1, 1)]


def from_mlm_runs() -> Experiment:
    """Return a question whose trials start from mlm runs."""
    mlm = {"kind": "mlm", "budget": {"kind": "flops", "amount": 1e11}}
    asked = experiment(tune={}, search=SearchConfig(seeds=3))
    return replace(
        asked,
        base=asked.base | {"init_from": mlm, "objective": {"kind": "electra", "sharing": "none"}},
    )


def test_trial_that_started_from_weights_is_counted_by_their_file(tmp_path: Path) -> None:
    asked = from_mlm_runs()
    first, second, third, *_ = jobs(asked, tmp_path)
    for job, identity in ((first, "one"), (second, "two"), (third, "weights that are gone")):
        leave(tmp_path, job.trial, "finished", identity=identity)
    found = finished.count_finished(asked, tmp_path, prepared(asked, IDENTITY, "one", "two"))
    assert [cell.trained for cell in found] == [1, 1]


def test_trial_whose_preparatory_run_diverged_needs_no_training(tmp_path: Path) -> None:
    asked = from_mlm_runs()
    trial = jobs(asked, tmp_path)[0].trial
    run = next(iter(preparatory_runs(trial).values()))
    leave(tmp_path, run, "diverged")
    identity = unstarted_identity(IDENTITY, run.fingerprint(IDENTITY))
    leave(tmp_path, trial, "diverged", identity=identity)
    assert counted(asked, tmp_path) == [(1, 1), (0, 0)]


@pytest.mark.parametrize(("state", "ends"), [("finished", True), ("interrupted", False)])
def test_preparatory_run_has_ended_where_its_record_has(
    state: State, ends: bool, tmp_path: Path
) -> None:
    asked = from_mlm_runs()
    run = next(iter(preparatory_runs(search_space.build_trial(asked.base, {WIDTH: 0.25})).values()))
    assert not finished.has_ended(run, tmp_path, prepared(asked, IDENTITY))
    leave(tmp_path, run, state)
    assert finished.has_ended(run, tmp_path, prepared(asked, IDENTITY)) == ends
    assert not finished.has_ended(run, tmp_path, {})


def test_storage_that_is_not_there_holds_nothing_and_is_not_made(tmp_path: Path) -> None:
    assert counted(experiment(), tmp_path / "none") == [(0, 0), (0, 0)]
    assert not (tmp_path / "none").exists()
