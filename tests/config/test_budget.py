"""Budgets: totals are exact sums, and a run ends within half a step of its budget."""

from dataclasses import asdict
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from lab.config.budget import Budget, Cost, Spent

settings = hypothesis_settings(deadline=None)
UNITS: tuple[Literal["flops", "tokens", "seconds"], ...] = ("flops", "tokens", "seconds")
counts = st.integers(1, 10**15)
costs = st.builds(Cost, tokens=counts, flops=counts, paper_flops=counts, six_n=counts)
moments = st.floats(0, 1e6)
steps_taken = st.lists(st.tuples(costs, moments), max_size=20)


def totals_after_each(taken: list[tuple[Cost, float]]) -> list[Spent]:
    spent = [Spent()]
    for cost, seconds in taken:
        spent.append(spent[-1].plus(cost, seconds))
    return spent


@given(taken=steps_taken)
@settings
def test_totals_are_sums_over_steps(taken: list[tuple[Cost, float]]) -> None:
    end = totals_after_each(taken)[-1]
    assert end.steps == len(taken)
    for unit in asdict(Cost(tokens=0, flops=0, paper_flops=0, six_n=0)):
        assert getattr(end, unit) == sum(getattr(cost, unit) for cost, _ in taken)
    assert end.seconds == pytest.approx(sum(seconds for _, seconds in taken))


@given(cost=costs, seconds=moments)
@settings
def test_plus_does_not_modify_the_totals(cost: Cost, seconds: float) -> None:
    spent = Spent()
    spent.plus(cost, seconds)
    assert spent == Spent()


@pytest.mark.parametrize("kind", UNITS)
@given(taken=steps_taken, amount=st.floats(1e-3, 1e18))
@settings
def test_fraction_starts_at_zero_and_never_decreases(
    kind: Literal["flops", "tokens", "seconds"], taken: list[tuple[Cost, float]], amount: float
) -> None:
    fractions = [
        Budget(kind=kind, amount=amount).fraction(spent) for spent in totals_after_each(taken)
    ]
    assert fractions[0] == 0
    assert fractions == sorted(fractions)


@pytest.mark.parametrize("kind", UNITS)
def test_fraction_is_one_when_the_amount_is_spent(
    kind: Literal["flops", "tokens", "seconds"],
) -> None:
    assert Budget(kind=kind, amount=640).fraction(Spent(tokens=640, flops=640, seconds=640)) == 1


@pytest.mark.parametrize("kind", UNITS)
def test_budget_depends_on_its_own_unit_only(kind: Literal["flops", "tokens", "seconds"]) -> None:
    others = {unit: 10**9 for unit in (*UNITS, "paper_flops", "six_n", "steps") if unit != kind}
    assert Budget(kind=kind, amount=1).fraction(Spent(**others)) == 0


@pytest.mark.parametrize("kind", ["flops", "tokens"])
@given(cost=costs, amount=st.floats(1, 1e15))
@settings
def test_spent_amount_is_within_half_a_step_of_the_budget(
    kind: Literal["flops", "tokens"], cost: Cost, amount: float
) -> None:
    budget = Budget(kind=kind, amount=amount)
    steps = budget.steps(cost)
    assert steps is not None
    one = getattr(cost, kind)
    assert abs(steps * one - amount) <= one / 2 * (1 + 1e-9)


@given(cost=costs, amount=st.floats(1e-3, 1e9))
@settings
def test_steps_of_a_budget_in_seconds_are_unknown(cost: Cost, amount: float) -> None:
    assert Budget(kind="seconds", amount=amount).steps(cost) is None
