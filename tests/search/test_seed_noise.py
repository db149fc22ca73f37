"""Seed noise of a storage: repeats of the same metric, shape and budget, and nothing else."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from lab.config.experiment import Experiment, Resources, SearchConfig
from lab.config.metrics import METRICS
from lab.config.results import Outcome
from lab.config.trial import Trial
from lab.loading.search_space import build_trial
from lab.reporting.power.sentences import describe_plan
from lab.search import seed_noise
from lab.storage import record

METRIC = "detect/bigram/auroc"
WIDTH = "objective.generator.width"


def build_experiment(**changes: object) -> Experiment:
    experiment = Experiment(
        name="planned",
        question="Does it?",
        metric=METRICS[METRIC],
        base={
            "encoder": {"size": "nano32"},
            "objective": {"kind": "electra"},
            "budget": {"kind": "flops", "amount": 1e12},
        },
        compare={WIDTH: (0.25, 0.5)},
        tune={},
        search=SearchConfig(seeds=4),
        resources=Resources(),
    )
    return dataclasses.replace(experiment, **changes)


def build(changes: dict[str, object] | None = None) -> Trial:
    return build_trial(build_experiment().base, {WIDTH: 0.25} | (changes or {}))


def store(
    storage: Path, trial: Trial, scores: list[float], *, name: str = "", state: str = "finished"
) -> None:
    """Write one record for each score; score i has the seeds of repeat i."""
    for repeat, score in enumerate(scores):
        seeded = dataclasses.replace(trial, seeds=trial.seeds.repeat(repeat))
        folder = storage / "trials" / f"{seeded.fingerprint('text')}{name}"
        record.write_queued(folder, seeded, text="text")
        row = {METRIC: score, "spent/steps": 10}
        record.append_row(folder, row)
        outcome = Outcome(state=state, reason="", rows=(row,), started_at=0, seconds=1, busy=1)
        record.write_outcome(folder, outcome)


def test_noise_is_the_deviation_pooled_over_settings(tmp_path: Path) -> None:
    first, second = [0.70, 0.72, 0.75], [0.60, 0.68]
    store(tmp_path, build(), first)
    store(tmp_path, build({WIDTH: 1.0}), second)
    noise = seed_noise.find_seed_noise(build_experiment(), tmp_path)
    assert noise is not None
    pooled = (2 * np.var(first, ddof=1) + np.var(second, ddof=1)) / 3
    assert noise.deviation == pytest.approx(math.sqrt(pooled))
    assert noise.trials == 5
    assert noise.budget is None


def test_trials_without_a_repeat_a_score_or_the_shape_do_not_count(tmp_path: Path) -> None:
    store(tmp_path, build({WIDTH: 0.5}), [0.7])
    store(tmp_path, build({"batch": 64}), [0.7, math.nan])
    store(tmp_path, build({"batch": 32}), [0.7, 0.8], state="diverged")
    store(tmp_path, build({"encoder": {"size": "tiny"}}), [0.7, 0.8])
    assert seed_noise.find_seed_noise(build_experiment(), tmp_path) is None
    branch = build({"schedule": {"kind": "trunk", "warmup": 1e10}})
    assert branch.trunk is not None
    store(tmp_path, branch.trunk, [0.7, 0.8])  # its learning rate has not decayed
    assert seed_noise.find_seed_noise(build_experiment(), tmp_path) is None
    other = dataclasses.replace(build_experiment(), metric=METRICS["probe/pos/accuracy"])
    store(tmp_path, build(), [0.7, 0.8])
    assert seed_noise.find_seed_noise(other, tmp_path) is None
    assert seed_noise.find_seed_noise(build_experiment(), tmp_path / "missing") is None


def test_versions_of_the_code_are_no_seeds(tmp_path: Path) -> None:
    store(tmp_path, build(), [0.7])
    store(tmp_path, build(), [0.9], name="of-another-version")
    assert seed_noise.find_seed_noise(build_experiment(), tmp_path) is None


def test_record_of_another_version_is_skipped(tmp_path: Path) -> None:
    store(tmp_path, build(), [0.7, 0.8])
    damaged = tmp_path / "trials" / "damaged"
    damaged.mkdir()
    (damaged / "trial.json").write_text(json.dumps({"trial": {"encoder": 1}}))
    (damaged / "state").write_text("finished")
    assert seed_noise.find_seed_noise(build_experiment(), tmp_path) is not None


def test_nearest_budget_is_used_and_named_where_none_is_equal(tmp_path: Path) -> None:
    store(tmp_path, build({"budget.amount": 1e11}), [0.50, 0.51])
    store(tmp_path, build({"budget.amount": 5e11}), [0.70, 0.75])
    noise = seed_noise.find_seed_noise(build_experiment(), tmp_path)
    assert noise is not None
    assert noise.deviation == pytest.approx(np.std([0.70, 0.75], ddof=1))
    assert noise.budget == "5e+11 flops"
    store(tmp_path, build({WIDTH: 0.5}), [0.70, 0.71])
    noise = seed_noise.find_seed_noise(build_experiment(), tmp_path)
    assert noise is not None
    assert noise.budget is None


def test_plan_names_the_noise_and_its_source(tmp_path: Path) -> None:
    unknown = describe_plan(build_experiment(), None)
    assert unknown is not None
    assert "with 4 seeds, a difference of 3 times the seed standard deviation would" in unknown
    assert f"the seed standard deviation of {METRIC} is unknown" in unknown
    noise = seed_noise.SeedNoise(deviation=0.02, trials=6, budget=None)
    known = describe_plan(build_experiment(), noise)
    assert known is not None
    assert "a difference of 0.0602 would be found in 8 of 10 sweeps" in known  # 3.01 deviations
    assert "seed standard deviation 0.0200, from 6 trials" in known
    single = build_experiment(search=SearchConfig(seeds=1))
    assert "no difference can be found" in str(describe_plan(single, noise))
    assert describe_plan(build_experiment(compare={}), noise) is None
    assert describe_plan(build_experiment(answer="noise"), noise) is None


def test_plan_of_a_design_that_repeats_every_setting_counts_all_settings() -> None:
    from lab.config.experiment import Range

    tune = {"optim.lr": Range(low=1e-3, high=2e-3, log=True)}
    search = SearchConfig(sampler="grid", trials=2, seeds=4, repeated="every_setting")
    many = build_experiment(tune=tune, search=search)
    best = dataclasses.replace(many, search=SearchConfig(sampler="grid", trials=2, seeds=4))
    assert "3.4 times" in str(describe_plan(many, None))  # 4 settings
    assert "3 times" in str(describe_plan(best, None))  # 2 cells
