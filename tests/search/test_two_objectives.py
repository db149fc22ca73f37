"""Searches for score and cost: the settings on the Pareto front of a cell are repeated."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from simulated.search import (
    RATE,
    build_experiment,
    carry_out,
    only_study,
    outcome_of,
    trials_of,
    with_role,
)

from lab.config.costs.encoder import encoder_parameters, inference_flops
from lab.config.experiment import SearchConfig
from lab.config.metrics import METRICS
from lab.config.trial import Trial
from lab.search.pareto import find_front
from lab.search.search import Search


def score(trial: Trial) -> float:
    """Return a score that rises with the inner width up to 128, and is best at a rate of 1e-3."""
    rate = np.log10(trial.optim.lr) + 3
    return float(0.5 + min(trial.encoder.ffn, 128) / 1_000 - 0.05 * rate**2)


def dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Return whether a pair of score and cost is nowhere worse, and better in one."""
    return one[0] >= other[0] and one[1] <= other[1] and one != other


POINTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12)


@given(POINTS)
def test_front_is_that_of_the_definition(points: list[tuple[int, int]]) -> None:
    expected = [
        n for n, each in enumerate(points) if not any(dominates(other, each) for other in points)
    ]
    assert list(find_front(points, ["maximize", "minimize"])) == expected


@pytest.mark.parametrize("sampler", ["grid", "qmc", "tpe", "gp"])
def test_settings_on_the_front_of_a_search_are_repeated(tmp_path: Path, sampler: str) -> None:
    search = SearchConfig(sampler=sampler, trials=12, seeds=2)  # type: ignore[arg-type]
    experiment, storage = build_experiment(search=search, cost="inference_flops"), InMemoryStorage()
    jobs = carry_out(experiment, storage, tmp_path, score)
    searched, repeats = with_role(jobs, "search"), with_role(jobs, "repeat")
    values = {job.number: (score(job.trial), inference_flops(job.trial)) for job in searched}
    front = [
        job.tuned
        for job in searched
        if not any(dominates(other, values[job.number]) for other in values.values())
    ]
    assert len(front) > 1
    for repeat in (1, 2):
        repeated = [job.tuned for job in repeats if job.repeat == repeat]
        assert sorted(map(str, repeated)) == sorted(map(str, front))
    numbers = [job.number for job in jobs]
    assert len(set(numbers)) == len(numbers)
    assert all(job.cost == inference_flops(job.trial) for job in jobs)


def test_study_has_both_objectives_and_optuna_finds_the_repeated_settings(tmp_path: Path) -> None:
    storage, experiment = InMemoryStorage(), build_experiment(cost="parameters")
    jobs = carry_out(experiment, storage, tmp_path, score)
    assert only_study(storage).directions == [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
    for job, trial in zip(with_role(jobs, "search"), trials_of(storage), strict=True):
        assert trial.values == [score(job.trial), encoder_parameters(job.trial)]
    best = [trial.params for trial in only_study(storage).best_trials]
    repeated = {str(job.tuned) for job in with_role(jobs, "repeat")}
    assert repeated == set(map(str, best))


def test_metric_that_is_minimized_has_its_front(tmp_path: Path) -> None:
    metric = METRICS["mlm/nats_per_character"]
    experiment = build_experiment(cost="parameters", metric=metric)
    search, jobs = Search(experiment, InMemoryStorage(), tmp_path), []
    while (job := search.ask()) is not None:
        jobs.append(job)
        ended = outcome_of(job, 0.0)
        (row,) = ended.rows
        search.tell(job, replace(ended, rows=(row | {metric.name: 3 - score(job.trial)},)))
    points = {
        str(j.tuned): (score(j.trial), float(encoder_parameters(j.trial)))
        for j in with_role(jobs, "search")
    }
    front = {n for n, p in points.items() if not any(dominates(o, p) for o in points.values())}
    assert {str(job.tuned) for job in with_role(jobs, "repeat")} == front


def test_cost_that_no_nuisance_parameter_changes_leaves_one_best_setting(tmp_path: Path) -> None:
    experiment = build_experiment(
        cost="parameters", compare={"encoder.ffn": (64, 128)}, tune={"optim.lr": RATE}
    )
    jobs = carry_out(experiment, InMemoryStorage(), tmp_path, score)
    repeats = with_role(jobs, "repeat")
    assert len(repeats) == 2 * 2
    for width in (64, 128):
        own = [job for job in with_role(jobs, "search") if job.cell == {"encoder.ffn": width}]
        best = max(own, key=lambda job: score(job.trial))
        assert all(j.tuned == best.tuned for j in repeats if j.cell == best.cell)


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_adaptive_search_continues_after_points_that_diverge(tmp_path: Path, sampler: str) -> None:
    search = SearchConfig(sampler=sampler, trials=10, seeds=1)  # type: ignore[arg-type]
    experiment = build_experiment(search=search, cost="inference_flops")

    def fragile(trial: Trial) -> float | None:
        return None if trial.optim.lr > 2e-3 else score(trial)

    storage = InMemoryStorage()
    jobs = carry_out(experiment, storage, tmp_path, fragile)
    lost = [trial for trial in trials_of(storage) if trial.values is None]
    assert lost
    assert len(with_role(jobs, "search")) == 10
    assert all(job.trial.optim.lr <= 2e-3 for job in with_role(jobs, "repeat"))


def test_number_of_jobs_is_that_of_all_settings_on_the_front(tmp_path: Path) -> None:
    experiment, storage = build_experiment(cost="parameters"), InMemoryStorage()
    search = Search(experiment, storage, tmp_path)
    assert search.jobs == 8 + 2, "the front is not known before the search"
    jobs = []
    while (job := search.ask()) is not None:
        jobs.append(job)
        search.tell(job, outcome_of(job, score(job.trial)))
    assert search.jobs == len(jobs) > 8 + 2


def test_more_seeds_repeat_the_same_settings(tmp_path: Path) -> None:
    storage, few = InMemoryStorage(), build_experiment(cost="parameters")
    more = replace(few, search=replace(few.search, seeds=4))
    first, second = (carry_out(each, storage, tmp_path, score) for each in (few, more))
    trials = [{(j.trial, j.role) for j in jobs} for jobs in (first, second)]
    assert trials[0] < trials[1]
    assert len(trials_of(storage)) == 8
