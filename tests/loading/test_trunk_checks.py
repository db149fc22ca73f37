"""A trunk schedule is refused, in one line, where trials of several budgets cannot begin alike."""

from collections import Counter
from pathlib import Path

import pytest
from project import ROOT

from lab.config.schedules.learning_rate import Schedule
from lab.config.schedules.trunk import TrunkSchedule
from lab.loading.error_messages import SpaceError
from lab.loading.search_space import build_trial, expand_cells, load_experiment

SPACE = """\
question: Which score does one trunk reach at each budget?
metric: mlm/nats_per_character
base:
  encoder: {size: nano32}
  objective: {kind: mlm}
  budget: {kind: flops, amount: 1e12}
  schedule: {kind: trunk, warmup: 2.5e10}
compare: {budget.amount: [2.5e11, 1e12]}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    written = tmp_path / "space.yaml"
    written.write_text(SPACE, encoding="utf-8")
    return written


MLM_RUN = "{kind: mlm, budget: {kind: flops, amount: 1e10}}"
FROZEN = f"{{kind: frozen, width: 0.5, init_from: {MLM_RUN}}}"
HALVING = (
    "tune={optim.lr: {low: 1e-3, high: 2e-3}}",
    "search={trials: 4, stopping: {kind: halving, first_rung: 0.5}}",
)
CANNOT = "base.schedule.kind: trunk cannot be used with "
REFUSED = {
    "seconds": (
        ("base.budget.kind=seconds", "base.budget.amount=9", "compare={}"),
        f"{CANNOT}a budget in seconds (base.budget.kind); use flops or tokens",
    ),
    "stages": (
        ("base.objective={kind: two_stage}",),
        f"{CANNOT}objective two_stage, whose stages are shares of the budget",
    ),
    "ramp of the mask": (
        ("base.objective.mask_prob={start: 0.4, end: 0.2}",),
        f"{CANNOT}settings that vary with progress (mask_prob); use constants",
    ),
    "ramp of the batch": (
        ("base.batch={start: 16, end: 32}",),
        f"{CANNOT}settings that vary with progress (batch); use constants",
    ),
    "growing windows": (
        ("base.data.length=32",),
        f"{CANNOT}windows that grow with progress (base.windows); use {{kind: full}}",
    ),
    "mlm runs": (
        (f"base.init_from={MLM_RUN}",),
        f"{CANNOT}initial weights of other runs (init_from); use {{kind: scratch}}",
    ),
    "earlier trial": (
        ("base.init_from={kind: trial, name: abcdef}",),
        f"{CANNOT}initial weights of other runs (init_from); use {{kind: scratch}}",
    ),
    "frozen generator": (
        (f"base.objective={{kind: electra, sharing: none, generator: {FROZEN}}}",),
        f"{CANNOT}initial weights of other runs (init_from); use {{kind: scratch}}",
    ),
    "no cooldown": (
        ("base.schedule.decay=0",),
        "base.schedule.decay: must be above 0, not 0: the cooldown of a branch",
    ),
    "no warm-up": (
        ("base.schedule={kind: trunk}",),
        "base.schedule.warmup: required, but missing",
    ),
    "share as warm-up": (
        ("base.schedule.warmup=0.1",),
        "base.schedule.warmup: must be 0, or at least one step (",
    ),
    "warm-up in the cooldown": (
        ("base.schedule.warmup=2e11", "base.budget.amount=2.5e11"),
        "base.schedule.warmup: must be 0, or at least one step (",
    ),
    "cooldown without a step": (
        ("base.schedule.decay=0.0001",),
        "base.budget.amount: ",
    ),
    "unknown key": (
        ("base.schedule.until=1",),
        "base.schedule.until: unknown key; allowed: kind, warmup, decay",
    ),
    "unknown kind": (
        ("base.schedule.kind=tree",),
        "base.schedule.kind: must be one of linear, cosine, stable, constant, trunk, not 'tree'",
    ),
    "rung in the warm-up": (
        (*HALVING, "base.schedule.warmup=6e10", "search.stopping.first_rung=0.25"),
        "search.stopping.first_rung: the trials at the rung of 0.25 of the budget are not valid: "
        "base.schedule.warmup: must be 0, or at least one step (",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_trunk_is_refused_in_one_line(case: str, file: Path) -> None:
    overrides, message = REFUSED[case]
    with pytest.raises(SpaceError) as error:
        load_experiment(file, overrides)
    assert str(error.value).startswith(f"{file}: {message}")
    assert "\n" not in str(error.value)


def test_trunk_is_accepted_with_halving(file: Path) -> None:
    experiment = load_experiment(file, HALVING)
    halving = experiment.search.stopping
    assert halving is not None
    trial = build_trial(experiment.base, {})
    (rung,) = halving.rungs(trial)
    assert rung.budget.amount == trial.budget.amount / 2
    assert rung.lineage("text") == trial.lineage("text")


def test_schedule_without_a_kind_is_stable_and_keeps_the_warm_up_of_its_size(file: Path) -> None:
    experiment = load_experiment(file, ("base.schedule={decay: 0.3}",))
    trial = build_trial(experiment.base, {})
    assert trial.schedule == Schedule(kind="stable", warmup=0.1, decay=0.3)


def test_warm_up_of_a_trunk_is_the_same_amount_at_all_budgets(file: Path) -> None:
    experiment = load_experiment(file)
    schedules = {build_trial(experiment.base, cell).schedule for cell in expand_cells(experiment)}
    assert schedules == {TrunkSchedule(kind="trunk", warmup=2.5e10)}


@pytest.mark.parametrize(
    ("name", "sizes", "budgets"), [("trunk", 1, 4), ("sizes/scaling_trunk", 5, 5)]
)
def test_shipped_search_space_has_one_trunk_for_each_size_and_seed(
    name: str, sizes: int, budgets: int
) -> None:
    experiment = load_experiment(ROOT / "search_spaces" / f"{name}.yaml")
    trials = [build_trial(experiment.base, cell) for cell in expand_cells(experiment)]
    by_size = Counter(trial.encoder for trial in trials)
    assert list(by_size.values()) == [budgets] * sizes
    assert len({trial.lineage("text") for trial in trials}) == sizes
