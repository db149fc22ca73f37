"""A trunk schedule is that of a warm-up-stable-decay run, and its beginning knows no budget."""

from dataclasses import replace

import pytest
from experiments import BASE
from hypothesis import assume, given
from hypothesis import strategies as st

from lab.config.budget import Spent
from lab.config.schedules.learning_rate import Schedule
from lab.config.schedules.trunk import TrunkSchedule
from lab.config.schedules.trunks import branch_points, name_trunk, trunk_parts
from lab.config.trial import Trial
from lab.loading.search_space import build_trial

SPACE = BASE | {"schedule": {"kind": "trunk", "warmup": 1e11}}
amounts = st.floats(1e11, 1e13)
shares = st.floats(0.01, 0.9)


def make_trial(amount: float = 1e12, **changes: object) -> Trial:
    trial = build_trial(SPACE, {"budget.amount": amount})
    return replace(trial, **changes)


@given(budget=amounts, warmup=st.floats(0, 0.5), decay=st.floats(0.01, 0.5), progress=shares)
def test_multiplier_is_that_of_the_stable_schedule_with_the_same_shares(
    budget: float, warmup: float, decay: float, progress: float
) -> None:
    trunk = TrunkSchedule(kind="trunk", warmup=warmup * budget, decay=decay)
    stable = Schedule(kind="stable", warmup=warmup, decay=decay)
    assert trunk(progress, progress * budget) == pytest.approx(stable(progress))


@given(budget=amounts, other=amounts, spent=st.integers(0, 10**13))
def test_multiplier_before_the_cooldown_is_exactly_that_of_every_other_budget(
    budget: float, other: float, spent: int
) -> None:
    trials = [make_trial(3 * amount) for amount in (budget, other)]
    trunks = [trial.trunk for trial in trials]
    ends = [trunk.budget.amount for trunk in trunks if trunk is not None]
    assume(spent < (1 - 1e-9) * min(ends))
    runs = [run for run in (*trials, *trunks) if run is not None]
    used = Spent(flops=spent)
    assert len({run.rate_multiplier(run.budget.fraction(used), used) for run in runs}) == 1


def test_trunk_ends_where_the_cooldown_starts_and_has_no_cooldown() -> None:
    trunk = make_trial(2e12).trunk
    assert trunk is not None
    assert trunk.budget.amount == pytest.approx(1.6e12)
    assert trunk.trunk is None
    used = Spent(flops=round(trunk.budget.amount))
    assert trunk.rate_multiplier(1.0, used) == 1.0
    assert trunk.extendable
    assert not make_trial().extendable
    assert build_trial(BASE, {}).trunk is None


def test_trials_of_several_budgets_have_the_lineage_of_their_trunk() -> None:
    one, other = make_trial(1e12), make_trial(2e12)
    assert one.trunk is not None
    assert one.lineage("text") == other.lineage("text") == one.trunk.lineage("text")
    assert one.fingerprint("text") != other.fingerprint("text")
    assert one.lineage("text") != replace(one, seeds=one.seeds.repeat(1)).lineage("text")


def test_name_of_a_trunk_is_shared_by_its_branches_alone() -> None:
    trial = make_trial()
    assert name_trunk(build_trial(BASE, {})) is None
    branches = [trial, make_trial(3e12), replace(trial, evaluations=3)]
    assert len({name_trunk(branch) for branch in branches}) == 1
    assert name_trunk(replace(trial, seeds=trial.seeds.repeat(1))) != name_trunk(trial)


@given(budgets=st.lists(amounts, min_size=1, max_size=4, unique=True))
def test_parts_of_a_trunk_end_at_the_branch_points_up_to_its_own(budgets: list[float]) -> None:
    trials = [make_trial(3 * amount) for amount in budgets]
    points = branch_points(trials)
    for trial in trials:
        parts = trunk_parts(trial, points)
        ends = [part.budget.amount for part in parts]
        assert parts[-1] == trial.trunk
        assert ends == [point for point in points if point <= ends[-1]]
        assert len({part.lineage("text") for part in parts}) == 1


def test_trial_without_a_trunk_has_no_parts() -> None:
    trial = build_trial(BASE, {})
    assert branch_points([trial]) == ()
    assert trunk_parts(trial, (1e11,)) == ()
