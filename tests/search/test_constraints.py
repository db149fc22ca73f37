"""Settings that violate a constraint are not trained, and samplers learn to avoid them."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from simulated.search import (
    build_experiment,
    carry_out,
    only_study,
    outcome_of,
    trials_of,
    with_role,
)

from lab.config.costs.constraints import Constraints
from lab.config.costs.encoder import encoder_parameters
from lab.config.experiment import Experiment, HalvingConfig, Range, SearchConfig
from lab.config.trial import Trial, content_hash
from lab.search import cell_search, plan
from lab.search.feasibility import count_infeasible
from lab.search.search import Search

WIDE = Range(low=32, high=512, step=32, integer=True)
LIMIT = 88_000  # parameters; `nano32` with an inner width of 256 has 87,200
SMALL = Constraints(parameters=LIMIT)


def wide_is_better(trial: Trial) -> float:
    return 0.5 + trial.encoder.ffn / 2_000


def wide_experiment(sampler: str, trials: int, limits: Constraints = SMALL) -> Experiment:
    search = SearchConfig(sampler=sampler, trials=trials, seeds=2)  # type: ignore[arg-type]
    return build_experiment(search=search, tune={"encoder.ffn": WIDE}, constraints=limits)


@pytest.mark.parametrize("sampler", ["grid", "random", "qmc", "tpe", "gp"])
def test_infeasible_settings_are_told_to_the_study_and_never_repeated(
    tmp_path: Path, sampler: str
) -> None:
    storage = InMemoryStorage()
    jobs = carry_out(wide_experiment(sampler, 8), storage, tmp_path, wide_is_better)
    searched = with_role(jobs, "search")
    assert len(searched) == 8
    for job, trial in zip(searched, trials_of(storage), strict=True):
        excess = encoder_parameters(job.trial) / LIMIT - 1
        assert trial.constraints == {"parameters": pytest.approx(excess)}
        assert bool(job.infeasible) == (excess > 0)
        assert trial.state == (TrialState.PRUNED if job.infeasible else TrialState.COMPLETE)
    reasons = [job.infeasible for job in searched if job.infeasible]
    assert reasons
    assert all("constraints.parameters: " in r and "exceeds 88,000" in r for r in reasons)
    best = max((job for job in searched if not job.infeasible), key=lambda j: j.trial.encoder.ffn)
    assert [job.tuned for job in with_role(jobs, "repeat")] == [best.tuned] * 2
    assert only_study(storage).best_trial.params == best.tuned


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_adaptive_sampler_avoids_infeasible_settings_although_scores_rise_towards_them(
    tmp_path: Path, sampler: str
) -> None:
    jobs = carry_out(wide_experiment(sampler, 18), InMemoryStorage(), tmp_path, wide_is_better)
    later = [bool(job.infeasible) for job in with_role(jobs, "search")[8:]]
    assert sum(later) < len(later) / 2


def test_all_points_of_a_search_may_be_infeasible(tmp_path: Path) -> None:
    limits = Constraints(memory_gib=1e-6)
    jobs = carry_out(wide_experiment("tpe", 7, limits), InMemoryStorage(), tmp_path, wide_is_better)
    assert len(jobs) == 7
    assert all("memory_gib" in job.infeasible for job in jobs)


def test_trial_that_took_too_long_is_infeasible_and_its_setting_is_not_repeated(
    tmp_path: Path,
) -> None:
    storage, limits = InMemoryStorage(), Constraints(seconds=100)
    jobs = carry_out(
        wide_experiment("grid", 8, limits),
        storage,
        tmp_path,
        wide_is_better,
        seconds=lambda trial: float(trial.encoder.ffn),
    )
    assert not any(job.infeasible for job in jobs), "seconds are not known before the training"
    for trial in trials_of(storage):
        slow = trial.params["encoder.ffn"] > 100
        assert trial.constraints["seconds"] == pytest.approx(trial.params["encoder.ffn"] / 100 - 1)
        assert trial.user_attrs["state"] == ("infeasible" if slow else "finished")
    best = max(t.params["encoder.ffn"] for t in trials_of(storage) if t.value is not None)
    assert [job.tuned["encoder.ffn"] for job in with_role(jobs, "repeat")] == [best] * 2


def test_repeats_are_not_judged_by_their_seconds(tmp_path: Path) -> None:
    experiment = wide_experiment("grid", 4, Constraints(seconds=100))
    search = Search(experiment, InMemoryStorage(), tmp_path)
    while (job := search.ask()) is not None:
        outcome = outcome_of(job, 0.6, seconds=1.0 if job.role == "search" else 500.0)
        assert search.judge(job, outcome).state == "finished"
        search.tell(job, outcome)


def test_infeasible_point_does_not_continue_past_a_rung(tmp_path: Path) -> None:
    halving = HalvingConfig(kind="halving", first_rung=0.5)
    experiment = wide_experiment("qmc", 4)
    experiment = replace(
        experiment,
        search=replace(experiment.search, stopping=halving),
        base=experiment.base | {"schedule": {"kind": "constant", "warmup": 0}},
    )
    search = Search(experiment, InMemoryStorage(), tmp_path)
    jobs = [job for job in iter(search.ask, None) if job is not None]
    assert {bool(job.infeasible) for job in jobs} == {True, False}
    for job in jobs:
        search.tell(job, outcome_of(job, 0.5 + job.number / 100))
    continued = [job for job in iter(search.ask, None) if job is not None]
    assert continued
    assert not any(job.infeasible for job in continued)


def test_continued_search_proposes_the_same_settings(tmp_path: Path) -> None:
    storage, experiment = InMemoryStorage(), wide_experiment("tpe", 9)
    first = carry_out(experiment, storage, tmp_path, wide_is_better)
    again = carry_out(experiment, storage, tmp_path, wide_is_better)
    assert again == first
    assert len(trials_of(storage)) == 9


def test_plan_counts_the_settings_that_are_known_to_be_infeasible(tmp_path: Path) -> None:
    experiment = wide_experiment("qmc", 8)
    jobs = carry_out(experiment, InMemoryStorage(), tmp_path, wide_is_better)
    infeasible = sum(bool(job.infeasible) for job in jobs)
    (cell,) = plan.plan_cells(experiment)
    assert (cell.infeasible, cell.runs) == (infeasible, len(jobs) - infeasible)
    assert f"infeasible settings: {infeasible}" in plan.plan_heading(experiment, [cell], 1)
    assert count_infeasible(replace(experiment, constraints=Constraints(seconds=1)), {}) == 0


def test_study_of_an_experiment_without_the_options_has_the_name_of_earlier_versions() -> None:
    """Its hash has no entry for constraints, second objective and prior."""
    experiment = build_experiment()
    settings = {
        "base": experiment.base,
        "cell": {},
        "tune": {path: asdict(values) for path, values in experiment.tune.items()},
        "sampler": ["qmc", 0],
        "repeated": "best_setting",
        "grid": 0,
        "metric": "pairs/accuracy",
        "code": cell_search.code_digest(cell_search.TRIAL),
    }
    assert cell_search._study_identity(experiment, {}) == content_hash(settings)
    changed = [
        replace(experiment, constraints=SMALL),
        replace(experiment, cost="parameters"),
        replace(experiment, search=replace(experiment.search, prior=("earlier",))),
    ]
    names = {cell_search._study_identity(each, {}) for each in (experiment, *changed)}
    assert len(names) == 4
