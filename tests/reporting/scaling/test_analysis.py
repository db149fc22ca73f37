"""Laws of a sweep's trials: the law that the losses follow is found, and refusals have a reason."""

import dataclasses

import numpy as np
import pytest
from frames.scaling_frames import (
    BUDGETS,
    LAW,
    METRIC,
    SIZES,
    follow_law,
    prefer_rate,
    scaling_frames,
)

from lab.reporting.scaling.analysis import FittedGroup, RefusedGroup, analyze_group
from lab.reporting.scaling.end_points import group_end_points
from lab.reporting.scaling.parameter_counts import BLOCKS, HEADS, TABLES
from lab.reporting.scaling.rates import RateRefusal, analyze_rates
from lab.scaling.rate_trend import RateTrend
from lab.tracking.frames import SweepFrames


@pytest.fixture(scope="module")
def frames() -> SweepFrames:
    return scaling_frames(follow_law())


@pytest.fixture(scope="module")
def fitted(frames: SweepFrames) -> FittedGroup:
    (group,) = group_end_points(frames)
    found = analyze_group(group)
    assert isinstance(found, FittedGroup)
    return found


def test_law_of_the_losses_is_inside_of_its_intervals(fitted: FittedGroup) -> None:
    assert len(fitted.fit.points) == 2 * len(SIZES) * len(BUDGETS)
    for name in ("alpha", "beta", "E", "allocation", "A", "B"):
        found = fitted.intervals[name]
        assert found.low < getattr(LAW, name) < found.high, name
        assert found.low <= found.value <= found.high, name
    assert not fitted.warnings


def test_parametrizations_of_compared_encoders_have_groups_of_their_own() -> None:
    """The standard deviation of the initial weights differs between sizes only."""
    shapes = [
        {"layers": 2, "hidden": 32 * n, "ffn": 128 * n, "heads": n, "embedding": 32 * n,
         "init_std": 0.1 / n, "dropout": 0}
        for n in (1, 2, 4)
    ]  # fmt: skip
    mup = [shape | {"parametrization": {"kind": "mup", "head_width": 32}} for shape in shapes]
    compare = {"encoder": (*shapes, *mup), "budget.amount": BUDGETS[1:4]}
    groups = group_end_points(scaling_frames(follow_law(), compare=compare))
    assert [group.label for group in groups] == ["parametrization standard", "parametrization mup"]
    assert [dict(group.settings) for group in groups] == [
        {"encoder.parametrization.kind": kind} for kind in ("standard", "mup")
    ]
    for group in groups:
        assert len(group.ends) == 2 * len(shapes) * 3
        assert len({end.shape for end in group.ends}) == len(shapes)
    (one,) = group_end_points(scaling_frames(follow_law(), compare=compare | {"encoder": mup}))
    assert (one.label, len({end.shape for end in one.ends})) == ("", len(shapes))


def test_optimum_is_that_of_the_law_and_the_decision_is_next_to_it(fitted: FittedGroup) -> None:
    sizes = [optimum.size.value for optimum in fitted.optima]
    assert sizes == sorted(sizes)
    assert [o.budget for o in fitted.optima if not o.extrapolated] == list(BUDGETS)
    for optimum in fitted.optima:
        assert optimum.size.low < optimum.size.value < optimum.size.high
        assert sum(each.share for each in optimum.shares) == pytest.approx(1.0)
        assert optimum.decided[0].share >= optimum.decided[-1].share


def test_intervals_contain_the_error_of_the_test_set_where_its_blocks_are_known(
    frames: SweepFrames, fitted: FittedGroup
) -> None:
    rng = np.random.default_rng(0)
    shared, slope = rng.standard_normal((2, 30)) * [[0.01], [0.004]]
    blocks = {
        (trial["number"], METRIC): list(shared + slope * np.log(trial["spent/tokens"] / 1e6))
        for trial in frames.trials.to_dict("records")
    }
    (group,) = group_end_points(dataclasses.replace(frames, blocks=blocks))
    found = analyze_group(group)
    assert isinstance(found, FittedGroup)
    assert found.fit.law == fitted.fit.law
    for name, narrow in fitted.intervals.items():
        wide = found.intervals[name]
        assert np.log(wide.high / wide.low) > np.log(narrow.high / narrow.low), name
    for one, other in zip(fitted.optima, found.optima, strict=True):
        assert other.size.low < one.size.low < one.size.high < other.size.high
        assert other.loss == one.loss, "new runs are scored on the same test set"
    (_, first), *_ = blocks.items()
    blocks = dict(list(blocks.items())[1:]) | {(0, METRIC): first[:-1]}
    (group,) = group_end_points(dataclasses.replace(frames, blocks=blocks))
    assert analyze_group(group).test_set is None


def test_branches_are_fitted_and_those_of_one_trunk_are_resampled_together() -> None:
    schedule = {"kind": "trunk", "warmup": 1e10}
    frames = scaling_frames(follow_law(), base={"schedule": schedule})
    names = [f"{row['encoder.size']}-{row['repeat']}" for _, row in frames.trials.iterrows()]
    frames = dataclasses.replace(frames, trials=frames.trials.assign(trunk=names))
    (group,) = group_end_points(frames)
    found = analyze_group(group)
    assert isinstance(found, FittedGroup)
    points = found.fit.points
    assert points.groups_n is not None
    for trunk in np.unique(points.groups_n):
        own = points.take(points.groups_n == trunk)
        assert sorted(own.budgets_n) == list(BUDGETS)
        assert len(np.unique(own.parameters_n)) == 1


def test_other_definitions_have_their_own_exponents(fitted: FittedGroup) -> None:
    assert [each.name for each in fitted.definitions] == [BLOCKS, HEADS, TABLES]
    blocks, *others = fitted.definitions
    assert blocks.fit is not None
    assert blocks.fit.law == fitted.fit.law
    for other in others:
        assert other.fit is not None
        assert other.intervals["alpha"].value > blocks.intervals["alpha"].value


def test_every_trial_is_an_end_point_or_has_a_reason() -> None:
    frames = scaling_frames(follow_law(), rates=(5e-4, 1e-3, 2e-3))
    trials = frames.trials.copy()
    trials.loc[3, ["state", "reason", "score", METRIC]] = [
        "diverged",
        "loss is nan",
        np.nan,
        np.nan,
    ]
    trials.loc[8, ["state", "reason", "score", METRIC]] = ["failed", "memory", np.nan, np.nan]
    (group,) = group_end_points(dataclasses.replace(frames, trials=trials))
    numbers = [end.number for end in group.ends] + [left.number for left in group.left_out]
    assert sorted(numbers) == list(trials["number"])
    reasons = {left.number: left.reason for left in group.left_out}
    assert reasons[8] == "failed: memory"
    assert reasons[0].startswith("search trial")
    found = analyze_group(group)
    assert {each.run.name: each.reason for each in found.selection.excluded} == {
        "trial 3": "diverged"
    }


def test_groups_are_the_compared_settings_other_than_size_budget_and_rate() -> None:
    compare = {
        "encoder.size": SIZES[:3], "budget.amount": BUDGETS[:3], "optim.lr": (1e-3, 2e-3),
        "objective.mask_prob": (0.2, 0.3),
    }  # fmt: skip
    frames = scaling_frames(prefer_rate(1.2e-3), compare=compare, noise=0)
    groups = group_end_points(frames)
    assert [group.label for group in groups] == ["mask_prob 0.2", "mask_prob 0.3"]
    for group in groups:
        assert {end.rate for end in group.ends} == {1e-3}
        assert len(group.ends) == len(group.left_out) == 2 * 9
        assert all("another learning rate (0.001)" in left.reason for left in group.left_out)
        assert group.settings == {"objective.mask_prob": float(group.label.split()[-1])}


@pytest.mark.parametrize(
    ("compare", "surface", "reason"),
    [
        ({"encoder.size": SIZES[:2], "budget.amount": BUDGETS}, follow_law(), "2 sizes and 5"),
        ({"encoder.size": SIZES, "budget.amount": BUDGETS[:2]}, follow_law(), "5 sizes and 2"),
        (None, lambda _, tokens, __: 2.0 + 1e6 / tokens, "no law L(N, D)"),
        (None, lambda *_: 9.5, "0 sizes and 0 budgets"),
    ],
)  # fmt: skip
def test_runs_that_do_not_determine_a_law_are_refused_in_words(
    compare: dict | None, surface: object, reason: str
) -> None:
    (group,) = group_end_points(scaling_frames(surface, compare=compare, seed=1))
    found = analyze_group(group)
    assert isinstance(found, RefusedGroup)
    assert reason in found.reason


def test_exponent_that_the_runs_do_not_limit_is_refused() -> None:
    frames = scaling_frames(lambda _, tokens, __: 2.0 + 1e6 / tokens, seed=2)
    (group,) = group_end_points(frames)
    found = analyze_group(group)
    assert isinstance(found, RefusedGroup)
    assert "do not limit alpha" in found.reason


def test_trend_of_the_tuned_rates_is_the_one_that_the_losses_follow() -> None:
    def surface(parameters: float, tokens: float, rate: float) -> float:
        best = 1.2e-3 * (parameters / 1e5) ** -0.3 * (tokens / 1e6) ** -0.1
        return 2.6 + 0.05 * np.log(rate / best) ** 2

    frames = scaling_frames(surface, rates=(5e-4, 1e-3, 2e-3, 4e-3), noise=1e-4)
    found = analyze_rates(group_end_points(frames))
    assert isinstance(found, RateTrend)
    assert found.names == ("parameters", "tokens")
    for name, exponent in (("parameters", -0.3), ("tokens", -0.1)):
        assert found.exponent(name).value == pytest.approx(exponent, abs=0.02)


def test_rates_that_were_varied_at_two_sizes_have_no_trend() -> None:
    compare = {"encoder.size": SIZES[:2], "budget.amount": BUDGETS[:3]}
    tuned = scaling_frames(prefer_rate(1e-3), compare=compare, rates=(5e-4, 1e-3, 2e-3))
    found = analyze_rates(group_end_points(tuned))
    assert isinstance(found, RateRefusal)
    assert "3 sizes or more, got 2" in found.reason
    untuned = scaling_frames(prefer_rate(1e-3), compare=compare)
    assert analyze_rates(group_end_points(untuned)) is None
