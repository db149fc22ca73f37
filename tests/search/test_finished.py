"""Trials are counted as finished if and only if the same sweep would not run them again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

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
from lab.config.trial import Trial
from lab.loading import search_space
from lab.search import finished
from lab.search.finished import TrialIdentities
from lab.search.search import Search
from lab.storage import record

IDENTITY = "0123456789ab"
WIDTH = "objective.generator.width"


def build_experiment(**changes: object) -> Experiment:
    experiment = Experiment(
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
    return replace(experiment, **changes)


def ask_all_jobs(experiment: Experiment, folder: Path) -> list[Job]:
    """Return all jobs of a sweep that runs to its end, in order."""
    search = Search(experiment, f"sqlite:///{folder}/optuna.db", folder / "searches")
    jobs = []
    while (job := search.ask()) is not None:
        jobs.append(job)
        row = {"spent/steps": 8.0, experiment.metric.name: 0.5 + job.trial.optim.lr}
        search.tell(job, outcome(row))
    return jobs


def outcome(row: MetricRow, state: State = "finished") -> Outcome:
    return Outcome(state=state, reason="", rows=(row,), started_at=0.0, seconds=1.0, busy=1.0)


def write_record(
    storage: Path,
    trial: Trial,
    state: State,
    row: MetricRow | None = None,
    identity: str = IDENTITY,
) -> None:
    folder = storage / "trials" / trial.fingerprint(identity)
    record.write_queued(folder, trial)
    record.write_rows(folder, [row or {"spent/steps": 8.0}])
    record.write_outcome(folder, outcome({}, state))


def count(experiment: Experiment, storage: Path) -> list[tuple[int, int]]:
    cells = finished.count_finished(experiment, storage, prepared(experiment, IDENTITY))
    return [(cell.trained, cell.finetuned) for cell in cells]


def prepared(experiment: Experiment, identity: str, *started: str) -> finished.Prepared:
    identities = TrialIdentities(scratch=identity, started=started)
    return {
        search_space.build_trial(experiment.base, cell).data_configs: identities
        for cell in search_space.expand_cells(experiment)
    }


@pytest.mark.parametrize("tuned", [True, False])
@pytest.mark.parametrize("chance", range(3))
def test_ended_trials_are_counted_in_their_cells(tuned: bool, chance: int, tmp_path: Path) -> None:
    experiment = (
        build_experiment() if tuned else build_experiment(tune={}, search=SearchConfig(seeds=4))
    )
    all_jobs = ask_all_jobs(experiment, tmp_path)
    assert len(all_jobs) == (10 if tuned else 8)
    drawn = np.random.default_rng(chance)
    ended = [all_jobs[index] for index in drawn.choice(len(all_jobs), 4, replace=False)]
    for job in ended:
        write_record(tmp_path, job.trial, "finished" if drawn.random() < 0.5 else "diverged")
    expected = [
        sum(job.cell == cell for job in ended) for cell in search_space.expand_cells(experiment)
    ]
    assert count(experiment, tmp_path) == [(n, n) for n in expected]


def test_ended_trials_are_counted_where_every_setting_is_repeated(tmp_path: Path) -> None:
    search = SearchConfig(sampler="qmc", trials=3, seeds=2, repeated="every_setting")
    experiment = build_experiment(search=search)
    all_jobs = ask_all_jobs(experiment, tmp_path)
    assert len(all_jobs) == 12
    for job in all_jobs[:7]:
        write_record(tmp_path, job.trial, "finished")
    assert count(experiment, tmp_path) == [(4, 4), (3, 3)]


def test_trials_that_run_again_are_not_counted(tmp_path: Path) -> None:
    experiment = build_experiment(tune={}, search=SearchConfig(seeds=3))
    first, second, third, *_ = ask_all_jobs(experiment, tmp_path)
    for job, state in ((first, "failed"), (second, "interrupted"), (third, "stopped")):
        write_record(tmp_path, job.trial, state)
    assert count(experiment, tmp_path) == [(0, 0), (0, 0)]


def test_trials_of_other_settings_seeds_texts_or_versions_are_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = build_experiment(tune={}, search=SearchConfig(seeds=3))
    job = ask_all_jobs(experiment, tmp_path)[0]
    write_record(tmp_path, replace(job.trial, batch=96), "finished")
    write_record(tmp_path, replace(job.trial, seeds=job.trial.seeds.repeat(7)), "finished")
    assert count(experiment, tmp_path) == [(0, 0), (0, 0)]
    write_record(tmp_path, job.trial, "finished")
    assert count(experiment, tmp_path) == [(1, 1), (0, 0)]
    other = prepared(experiment, "another text")
    assert [c.trained for c in finished.count_finished(experiment, tmp_path, other)] == [0, 0]
    monkeypatch.setattr("lab.config.trial.__version__", "9.9.9")
    assert count(experiment, tmp_path) == [(0, 0), (0, 0)]


def test_trials_without_the_tuned_settings_are_not_counted(tmp_path: Path) -> None:
    """A storage may hold trials of other sweeps, without a generator or a batch size ramp."""
    experiment = build_experiment(
        compare={},
        tune={WIDTH: Choices(choices=(0.25, 0.5)), "batch.start": Range(low=8, high=16)},
    )
    other = {**experiment.base, "objective": {"kind": "mlm"}, "batch": 32}
    write_record(tmp_path, search_space.build_trial(other, {}), "finished")
    assert count(experiment, tmp_path) == [(0, 0)]


def test_trial_without_the_score_of_a_task_is_not_counted_as_finetuned(tmp_path: Path) -> None:
    experiment = build_experiment(
        tune={}, search=SearchConfig(seeds=3), finetune=FinetuneConfig(tasks=("sentiment",))
    )
    first, second, *_ = ask_all_jobs(experiment, tmp_path)
    write_record(tmp_path, first.trial, "finished", {"spent/steps": 8.0, "finetune/sentiment": 0.6})
    write_record(tmp_path, second.trial, "finished")
    assert count(experiment, tmp_path) == [(1, 1), (1, 0)]
    write_record(tmp_path, second.trial, "diverged")
    assert count(experiment, tmp_path) == [(1, 1), (1, 1)]


def experiment_from_mlm_runs() -> Experiment:
    """Return an experiment in which all trials start from mlm runs."""
    mlm = {"kind": "mlm", "budget": {"kind": "flops", "amount": 1e11}}
    experiment = build_experiment(tune={}, search=SearchConfig(seeds=3))
    return replace(
        experiment,
        base=experiment.base
        | {"init_from": mlm, "objective": {"kind": "electra", "sharing": "none"}},
    )


def test_trial_with_initial_weights_is_counted_where_their_file_exists(tmp_path: Path) -> None:
    experiment = experiment_from_mlm_runs()
    first, second, third, *_ = ask_all_jobs(experiment, tmp_path)
    for job, identity in ((first, "one"), (second, "two"), (third, "deleted weights")):
        write_record(tmp_path, job.trial, "finished", identity=identity)
    cells = finished.count_finished(
        experiment, tmp_path, prepared(experiment, IDENTITY, "one", "two")
    )
    assert [cell.trained for cell in cells] == [1, 1]


def test_trial_whose_preparatory_run_diverged_needs_no_training(tmp_path: Path) -> None:
    experiment = experiment_from_mlm_runs()
    trial = ask_all_jobs(experiment, tmp_path)[0].trial
    run = next(iter(preparatory_runs(trial).values()))
    write_record(tmp_path, run, "diverged")
    identity = unstarted_identity(IDENTITY, run.fingerprint(IDENTITY))
    write_record(tmp_path, trial, "diverged", identity=identity)
    assert count(experiment, tmp_path) == [(1, 1), (0, 0)]


@pytest.mark.parametrize(("state", "ended"), [("finished", True), ("interrupted", False)])
def test_preparatory_run_has_ended_where_its_record_has_ended(
    state: State, ended: bool, tmp_path: Path
) -> None:
    experiment = experiment_from_mlm_runs()
    run = next(
        iter(preparatory_runs(search_space.build_trial(experiment.base, {WIDTH: 0.25})).values())
    )
    assert not finished.has_ended(run, tmp_path, prepared(experiment, IDENTITY))
    write_record(tmp_path, run, state)
    assert finished.has_ended(run, tmp_path, prepared(experiment, IDENTITY)) == ended
    assert not finished.has_ended(run, tmp_path, {})


def test_missing_storage_has_no_finished_trials_and_is_not_created(tmp_path: Path) -> None:
    assert count(build_experiment(), tmp_path / "none") == [(0, 0), (0, 0)]
    assert not (tmp_path / "none").exists()
