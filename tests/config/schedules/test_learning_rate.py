"""Schedules are bounded functions of progress with the documented shapes."""

import math
from typing import Literal, get_args, get_type_hints

import pytest
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from lab.config.schedules.learning_rate import Schedule

Kind = Literal["linear", "cosine", "stable", "constant"]
KINDS: tuple[Kind, ...] = ("linear", "cosine", "stable", "constant")
settings = hypothesis_settings(deadline=None)
progress_ = st.floats(0, 1)
warmups = st.floats(0, 1, exclude_max=True)
schedules = st.builds(Schedule, kind=st.sampled_from(KINDS), warmup=warmups, decay=st.floats(0, 1))


def test_all_kinds_are_tested() -> None:
    assert get_args(get_type_hints(Schedule)["kind"]) == KINDS


@given(schedule=schedules, progress=st.floats(0, 1.5))
@settings
def test_multiplier_is_between_zero_and_one(schedule: Schedule, progress: float) -> None:
    assert 0 <= schedule(progress) <= 1


@given(schedule=schedules)
@settings
def test_warm_up_starts_at_zero(schedule: Schedule) -> None:
    assume(schedule.warmup > 0)
    assert schedule(0) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_without_warm_up_the_run_starts_at_the_peak_rate(kind: Kind) -> None:
    assert Schedule(kind=kind, warmup=0)(0) == 1


# A fixed number of warm-up steps could exceed the length of a short run; a share cannot.
@given(warmup=st.floats(1e-3, 0.99), share=st.floats(0, 1), steps=st.sampled_from([10, 10_000]))
@settings
def test_warm_up_is_a_share_of_the_run(warmup: float, share: float, steps: int) -> None:
    schedule = Schedule(kind="constant", warmup=warmup)
    assert schedule(share * warmup) == pytest.approx(share, abs=1e-9)
    done = math.ceil(warmup * steps)
    assert schedule(done / steps) == pytest.approx(1)


@pytest.mark.parametrize("kind", ["linear", "cosine", "stable"])
@given(warmup=warmups, decay=st.floats(0.01, 1))
@settings
def test_decaying_schedule_ends_at_zero(kind: Kind, warmup: float, decay: float) -> None:
    schedule = Schedule(kind=kind, warmup=warmup, decay=decay)
    assert schedule(1) == pytest.approx(0, abs=1e-7)
    assert schedule(1.01) == pytest.approx(0, abs=1e-7)  # the last step may end past the budget


@given(schedule=schedules, a=progress_, b=progress_)
@settings
def test_rate_never_increases_after_warm_up(schedule: Schedule, a: float, b: float) -> None:
    early, late = sorted((max(a, schedule.warmup), max(b, schedule.warmup)))
    assert schedule(late) <= schedule(early) + 1e-12


@given(warmup=st.floats(0, 0.5), progress=progress_)
@settings
def test_linear_is_the_product_of_warm_up_and_decay_as_in_the_official_code(
    warmup: float, progress: float
) -> None:
    assume(progress >= warmup)
    assert Schedule(kind="linear", warmup=warmup)(progress) == pytest.approx(1 - progress)


def test_cosine_is_one_half_at_half_of_the_run() -> None:
    assert Schedule(kind="cosine", warmup=0)(0.5) == pytest.approx(0.5)


@given(warmup=st.floats(0, 0.4), decay=st.floats(0, 0.4), share=st.floats(0, 1))
@settings
def test_stable_is_constant_between_warm_up_and_decay(
    warmup: float, decay: float, share: float
) -> None:
    middle = warmup + share * (1 - decay - warmup)
    assert Schedule(kind="stable", warmup=warmup, decay=decay)(min(middle, 1 - decay)) == 1


def test_stable_decays_as_one_minus_a_square_root() -> None:
    assert Schedule(kind="stable", warmup=0, decay=0.4)(0.7) == pytest.approx(0.5)


@given(decay=st.floats(0, 1), other=st.floats(0, 1), progress=progress_)
@settings
@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
def test_decay_is_used_by_stable_only(
    kind: Kind, decay: float, other: float, progress: float
) -> None:
    assert Schedule(kind=kind, decay=decay)(progress) == Schedule(kind=kind, decay=other)(progress)


@given(warmup=warmups, progress=progress_)
@settings
def test_constant_stays_at_the_peak_rate_after_warm_up(warmup: float, progress: float) -> None:
    assume(progress >= warmup)
    assert Schedule(kind="constant", warmup=warmup)(progress) == pytest.approx(1)
