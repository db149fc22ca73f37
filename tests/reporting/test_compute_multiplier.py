"""Compute multipliers: true limits, from cooled-down scores only, and nominal coverage."""

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from benchmarks.multiplier_coverage import CURVES, measure
from lab.config.labels import label
from lab.reporting import sentences, stats
from lab.reporting.compute.learning_curves import ScorePoints
from lab.reporting.compute.multiplier import ComputeMultiplier, compute_multiplier
from lab.reporting.compute.test_inversion import (
    Goal,
    MultiplierBound,
    MultiplierInterval,
    bound_from_training,
    invert_test,
)
from lab.tracking import tags
from lab.tracking.frames import SweepFrames

METRIC = "detect/bigram/auroc"
WIDTH = "objective.generator.width"
AMOUNT = "budget.amount"
BUDGETS = (5e11, 1e12, 2e12)


def points(scores: list[list[float]], budgets: tuple[float, ...] = BUDGETS) -> ScorePoints:
    return ScorePoints(
        flops_K=np.array(budgets),
        scores_RK=np.array(scores),
        repeats=tuple(range(1, len(scores) + 1)),
    )


def goal(scores: list[float], test_error: float = 0.0) -> Goal:
    return Goal(flops=BUDGETS[-1], scores_R=np.array(scores), test_error=test_error)


def sweep(
    curves: dict[float, list[list[float]]],
    *,
    budgets: tuple[float, ...] = BUDGETS,
    compare_budgets: bool = True,
    schedule: str = "stable",
    metric: str = METRIC,
    **parameters: object,
) -> SweepFrames:
    """Return frames with a score for each width, repeat and budget.

    Args:
        curves: by width, a list for each repeat of the scores at the budgets.
        budgets: FLOPs of the scores.
        compare_budgets: whether each score is that of a trial of its own; otherwise the scores of a
            repeat are the evaluations of one trial.
    """
    trials, rows = [], []
    for width, repeats in curves.items():
        for repeat, scores in enumerate(repeats, 1):
            parts = [[i] for i in range(len(budgets))] if compare_budgets else [range(len(budgets))]
            for part in parts:
                number, last = len(trials), budgets[part[-1]]
                cell = f"width {width:g}" + f", amount {last:g}" * compare_budgets
                trials.append(
                    {
                        "number": number, "state": "finished", "role": "repeat", "tuned": "",
                        "repeat": repeat, "cell": cell, "score": scores[part[-1]], WIDTH: width,
                        "untrained": 0.0, "spent/flops": last, AMOUNT: last,
                        metric: scores[part[-1]], "schedule.kind": schedule,
                        "schedule.warmup": 0, **parameters,
                    }
                )  # fmt: skip
                rows.append({"number": number, "step": 0, "spent/flops": 0.0, metric: 0.0})
                rows += [
                    {"number": number, "step": 1 + i, "spent/flops": budgets[i], metric: scores[i]}
                    for i in part
                ]
    compare: dict[str, list[float]] = {WIDTH: list(curves)}
    reference = {WIDTH: next(iter(curves))}
    if compare_budgets:
        compare[AMOUNT] = list(budgets)
        reference[AMOUNT] = budgets[-1]
    tags = {"metric": metric, "tune": "{}", "compare": json.dumps(compare)}
    return SweepFrames(
        name="widths",
        sweep=tags | {"reference": json.dumps(reference), "answer": "ranking"},
        measures={},
        texts={},
        trials=pd.DataFrame(trials),
        curves=pd.DataFrame(rows),
    )


def find(frames: SweepFrames) -> ComputeMultiplier | None:
    result = stats.compute_answer(frames)
    assert result is not None
    return compute_multiplier(frames, stats.scored_trials(frames), result.cells[0].label)


NOISE = np.array([[0.010, -0.004, 0.002], [-0.008, 0.003, 0.006], [0.001, 0.005, -0.007]])
BETTER = (np.array([0.6, 0.7, 0.8]) + NOISE).tolist()  # gains .1 per doubling
REFERENCE = (np.array([0.5, 0.6, 0.7]) - NOISE).tolist()  # needs twice the compute


def test_interval_of_points_on_a_line_is_that_of_fieller() -> None:
    """On a line, with the goal at a budget, the limits solve |mean| = t * standard error."""
    slope = np.array([0.1, 0.12, 0.11])
    level = np.array([0.70, 0.72, 0.69])
    best = points((level[:, None] + slope[:, None] * np.array([-1, 0, 1])).tolist())
    found = invert_test(best, goal([0.71] * 3))
    quantile = scipy_stats.t.ppf(0.975, 2)

    def excess(doublings: float) -> float:
        gaps = level + slope * doublings - 0.71
        return abs(gaps.mean()) - quantile * gaps.std(ddof=1) / math.sqrt(3)

    doublings = np.linspace(-1, 1, 200_001)
    inside = doublings[[excess(d) <= 0 for d in doublings[::100]].index(True) * 100 :]
    assert found.low == pytest.approx(2 ** inside[0] / 2, rel=5e-3)
    assert math.log2(found.factor * 2) == pytest.approx(
        (0.71 - level.mean()) / slope.mean(), abs=5e-3
    )


@pytest.mark.parametrize(
    ("curve", "noise", "seeds"), [("power law", 0.1, 8), ("sigmoid", 0.1, 3), ("sigmoid", 0.5, 4)]
)
def test_coverage_is_nominal(curve: str, noise: float, seeds: int) -> None:
    budgets = 2.0 ** np.arange(-2.0, 1.0)
    rates = measure(CURVES[curve], budgets, 0.8, noise, seeds, 200)
    assert rates["coverage"] >= 0.91  # .95 with a binomial error of .015
    assert rates["bound"] >= 0.91
    assert rates["bootstrap"] < rates["coverage"]


def test_factor_of_curves_that_are_a_doubling_apart_is_one_half() -> None:
    found = find(sweep({1.0: REFERENCE, 0.25: BETTER}))
    assert found is not None
    assert (found.best, found.reference, found.flops) == ("width 0.25", "width 1", 2e12)
    assert isinstance(found.value, MultiplierInterval)
    assert found.value.low < 0.5 < found.value.high
    assert found.value.factor == pytest.approx(0.5, rel=0.05)
    assert found.value.budgets == 3


def test_settings_that_are_mappings_are_told_apart() -> None:
    """Frames store mappings as JSON; both have the same kind."""
    frames = sweep({1.0: REFERENCE, 0.25: BETTER})
    generators = {width: {"kind": "trained", "width": width} for width in (1.0, 0.25)}
    stored = frames.trials[WIDTH].map(lambda width: json.dumps(generators[width]))
    path, compare = "objective.generator", {"objective.generator": list(generators.values())}
    tags = frames.sweep | {
        "compare": json.dumps(compare | {AMOUNT: list(BUDGETS)}),
        "reference": json.dumps({path: generators[1.0], AMOUNT: BUDGETS[-1]}),
    }
    trials = frames.trials.assign(**{path: stored}).drop(columns=WIDTH)
    cells = [label({path: generators[w], AMOUNT: b}, compare) for w in generators for b in BUDGETS]
    trials["cell"] = [cells[BUDGETS.index(b) + 3 * (w < 1)] for w, b in zip(
        frames.trials[WIDTH], frames.trials[AMOUNT], strict=True)]  # fmt: skip
    found = find(dataclasses.replace(frames, sweep=tags, trials=trials))
    assert found is not None
    assert (found.best, found.reference) == ("trained, width 0.25", "trained, width 1")


def test_losses_give_the_same_factors() -> None:
    scores = find(sweep({1.0: REFERENCE, 0.25: BETTER}))
    losses = {w: (-np.array(c)).tolist() for w, c in ((1.0, REFERENCE), (0.25, BETTER))}
    assert find(sweep(losses, metric="detect/bigram/calibrated_loss")) == scores


def test_evaluations_of_a_constant_schedule_are_ends_of_shorter_runs() -> None:
    curves = {1.0: REFERENCE, 0.25: BETTER}
    compared = find(sweep(curves))
    constant = find(sweep(curves, compare_budgets=False, schedule="constant"))
    assert constant == compared


@pytest.mark.parametrize("parameters", [{"schedule.warmup": 0.1}, {"schedule/batch": 64.0}])
def test_evaluations_of_runs_that_depend_on_their_end_give_no_interval(
    parameters: dict[str, object],
) -> None:
    curves = {1.0: REFERENCE, 0.25: BETTER}
    frames = sweep(curves, compare_budgets=False, schedule="constant", **parameters)
    assert find(frames) is None


@pytest.mark.parametrize("budgets", [(1e12, 2e12), (4e11, 1e12, 2e12)])
def test_few_or_distant_budgets_give_no_interval(budgets: tuple[float, ...]) -> None:
    curves = {w: [row[: len(budgets)] for row in c] for w, c in ((1.0, REFERENCE), (0.25, BETTER))}
    assert find(sweep(curves, budgets=budgets)) is None


def test_one_budget_with_a_decay_gives_an_upper_limit_without_interpolation() -> None:
    better = (np.array([0.6, 0.8, 0.85]) + NOISE).tolist()
    found = find(sweep({1.0: REFERENCE, 0.25: better}, compare_budgets=False))
    assert found is not None
    assert found.value == MultiplierBound(factor=0.5)
    constant = sweep({1.0: REFERENCE, 0.25: better}, compare_budgets=False, schedule="constant")
    value = getattr(find(constant), "value", None)
    assert isinstance(value, MultiplierInterval)


def test_upper_limit_is_the_first_evaluation_after_which_all_are_better() -> None:
    reference = goal([0.70, 0.71, 0.70])
    better = [[0.80, 0.60, 0.80], [0.81, 0.61, 0.81], [0.80, 0.60, 0.80]]
    assert bound_from_training(points(better), reference) is None
    rising = [[0.60, 0.80, 0.81], [0.61, 0.81, 0.82], [0.60, 0.80, 0.81]]
    assert bound_from_training(points(rising), reference) == MultiplierBound(factor=0.5)


def test_equal_settings_and_single_repeats_have_no_multiplier() -> None:
    assert find(sweep({0.25: BETTER, 1.0: REFERENCE})) is None  # the best setting is the reference
    assert find(sweep({1.0: REFERENCE[:1], 0.25: BETTER[:1]})) is None


def test_score_outside_of_the_budgets_gives_one_limit() -> None:
    reference = goal([row[-1] for row in REFERENCE])
    always_better = invert_test(points((np.array(BETTER) + 0.5).tolist()), reference)
    assert (always_better.low, always_better.high) == (0.0, pytest.approx(0.25))
    assert math.isnan(always_better.factor)
    never = invert_test(points((np.array(BETTER) - 0.5).tolist()), reference)
    assert (never.low, never.high) == (pytest.approx(1.0), math.inf)


def describe(value: MultiplierInterval | MultiplierBound) -> str:
    multiplier = ComputeMultiplier(best="a", reference="b", flops=1e12, value=value)
    return sentences.describe_multiplier(multiplier)


def test_limits_are_said_in_words() -> None:
    def interval(low: float, high: float) -> str:
        return describe(MultiplierInterval(factor=0.9, low=low, high=high, budgets=3))

    start = "a reaches the score of b at 1 TFLOP with "
    assert interval(0.78, 1.2).startswith(
        start + "0.78 to 1.20 times the FLOPs (95 % interval; est"
    )
    assert "at least 0.78 times the FLOPs; no upper limit can be given" in interval(0.78, math.inf)
    assert "at most 1.20 times the FLOPs; no lower limit can be given" in interval(0.0, 1.2)
    bound = describe(MultiplierBound(factor=0.75))
    assert bound.startswith(start + "at most 0.75 times the FLOPs (95 %); this is an upper limit, ")
    assert not any("inf" in text or "∞" in text for text in (interval(0.78, math.inf), bound))


def test_error_of_the_test_set_widens_the_limits() -> None:
    scores = [row[-1] for row in REFERENCE]
    seeds_only = invert_test(points(BETTER), goal(scores))
    with_test_set = invert_test(points(BETTER), goal(scores, test_error=0.01))
    assert with_test_set.factor == seeds_only.factor
    assert with_test_set.low < seeds_only.low
    assert with_test_set.high > seeds_only.high


def test_limits_are_those_of_the_parabola_and_its_distance_from_straight_lines() -> None:
    """The spline through three points is the parabola, whose slopes it has."""
    scores = np.array([[0.40, 0.64, 0.71], [0.42, 0.61, 0.74], [0.39, 0.66, 0.70]])
    reference, test_error = np.array([0.60, 0.62, 0.59]), 0.004
    found = invert_test(points(scores.tolist()), goal(reference.tolist(), test_error))
    doublings = np.linspace(-2, 0, 20_001)
    parabolas = np.stack([np.polyval(np.polyfit([-2, -1, 0], row, 2), doublings) for row in scores])
    straight = np.stack([np.interp(doublings, [-2, -1, 0], row) for row in scores])
    gaps = parabolas - reference[:, None]
    quantile = scipy_stats.t.ppf(0.975, 2)
    half = np.hypot(quantile * gaps.std(axis=0, ddof=1) / math.sqrt(3), 1.959964 * test_error)
    half = half + np.abs((parabolas - straight).mean(axis=0))
    inside = doublings[np.abs(gaps.mean(axis=0)) <= half]
    assert (found.low, found.high) == pytest.approx((2 ** inside[0], 2 ** inside[-1]), rel=3e-3)
    crossing = doublings[(gaps.mean(axis=0) >= 0).argmax()]
    assert found.factor == pytest.approx(2**crossing, rel=1e-3)


def test_upper_limit_needs_a_one_sided_difference() -> None:
    """The quantile of t with two degrees of freedom is 2.92 one-sided, and 4.30 two-sided."""
    reference = goal([0.5, 0.5, 0.5])
    gaps = np.array([[0.1], [0.2], [0.3]])  # the mean is 3.46 standard errors
    better = points((0.5 + gaps + np.zeros(3)).tolist())
    assert bound_from_training(better, reference) == MultiplierBound(factor=0.25)
    noisy = points((0.5 + gaps * [[0.0], [1.0], [1.0]] + np.zeros(3)).tolist())  # 1.89
    assert bound_from_training(noisy, reference) is None


def test_limit_on_one_side_is_a_finding_and_on_no_side_is_none() -> None:
    better = (np.array(BETTER) + 0.2).tolist()
    found = find(sweep({1.0: REFERENCE, 0.25: better}))
    assert found is not None
    assert isinstance(found.value, MultiplierInterval)
    assert found.value.low == 0.0
    assert found.value.high == pytest.approx(0.25)
    noise = np.array([[0.5], [-0.5], [0.01]])
    assert find(sweep({1.0: REFERENCE, 0.25: (np.array(BETTER) + noise).tolist()})) is None


def test_repeats_of_only_one_setting_are_left_out() -> None:
    common = find(sweep({1.0: REFERENCE[:2], 0.25: BETTER[:2]}))
    assert common is not None
    assert find(sweep({1.0: REFERENCE, 0.25: BETTER[:2]})) == common
    assert find(sweep({1.0: REFERENCE[:2], 0.25: BETTER})) == common


def test_selected_repeats_keep_their_order() -> None:
    chosen = points([[0.1] * 3, [0.2] * 3, [0.3] * 3]).select((3, 1))
    assert chosen.repeats == (3, 1)
    assert chosen.scores_RK.tolist() == [[0.3] * 3, [0.1] * 3]
    assert chosen.flops_K.tolist() == list(BUDGETS)


def test_unknown_error_of_the_test_set_is_none() -> None:
    frames = sweep({1.0: REFERENCE, 0.25: BETTER})
    runs = stats.scored_trials(frames)
    unknown, zero, known = (
        compute_multiplier(frames, runs, "width 0.25, amount 2e+12", error)
        for error in (math.nan, 0.0, 0.01)
    )
    assert unknown is not None
    assert unknown == zero != known


def test_stages_have_schedules_of_their_own_so_that_no_evaluation_is_an_end() -> None:
    curves = {1.0: REFERENCE, 0.25: BETTER}
    frames = sweep(curves, compare_budgets=False, schedule="constant")
    two_stages = sweep(
        curves, compare_budgets=False, schedule="constant", **{"objective.kind": "two_stage"}
    )
    assert find(frames) is not None
    assert find(two_stages) is None


def test_line_says_that_the_error_of_a_selection_is_not_in_the_multiplier() -> None:
    frames = sweep({0.25: BETTER, 1.0: REFERENCE})
    tune = json.dumps({"optim.lr": {"low": 1e-3, "high": 1e-2, "log": True}})
    tuned = dataclasses.replace(frames, sweep=frames.sweep | {tags.TUNE: tune})
    value = MultiplierBound(factor=0.5)
    multiplier = ComputeMultiplier(best="a", reference="b", flops=1e12, value=value)
    result = stats.compute_answer(frames)
    assert result is not None
    answer = dataclasses.replace(result, multiplier=multiplier)
    for each, is_selected in ((frames, False), (tuned, True)):
        line = dict(sentences.describe_effects(each, answer))["compute"]
        assert line.endswith("; the error of selecting nuisance parameters is not in it") is (
            is_selected
        )
