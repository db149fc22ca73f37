"""Statistics: equal to SciPy's where SciPy has the same ones; undefined results are left out."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from lab.reporting import intervals, sentences, stats
from lab.reporting.figures import plots
from lab.tracking.frames import SweepFrames

METRIC = "detect/bigram/auroc"
PATH = "objective.generator.width"
LR = "optim.lr"


def sweep(
    scores: dict[float, list[float]],
    *,
    metric: str = METRIC,
    tune: dict[str, object] | None = None,
    flops: float = 1e12,
) -> SweepFrames:
    """Return frames of repeats; score i of each width belongs to repeat i + 1.

    Every curve is a straight line from 0.5 to the score.
    """
    trials, curves = [], []
    for width, values in scores.items():
        for repeat, score in enumerate(values, 1):
            number = len(trials)
            trials.append(
                {
                    "number": number,
                    "state": "failed" if math.isnan(score) else "finished",
                    "role": "repeat",
                    "repeat": repeat,
                    "cell": f"width {width:g}",
                    "tuned": "",
                    "score": score,
                    "untrained": 0.5,
                    "spent/flops": flops,
                    PATH: width,
                    LR: 1e-3,
                    metric: score,
                }
            )
            curves += [
                {
                    "number": number,
                    "spent/flops": flops * i / 4,
                    metric: 0.5 + (score - 0.5) * i / 4,
                }
                for i in range(5)
            ]
    return SweepFrames(
        name="widths",
        sweep={
            "metric": metric,
            "compare": json.dumps({PATH: list(scores)}),
            "tune": json.dumps(tune or {}),
            "reference": json.dumps({PATH: next(iter(scores))}),
        },
        measures={},
        texts={},
        trials=pd.DataFrame(trials),
        curves=pd.DataFrame(curves),
    )


def test_interval_equals_that_of_scipy() -> None:
    values = np.array([0.71, 0.73, 0.70, 0.74, 0.72])
    actual = intervals.t_interval(values)
    expected = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (actual.low, actual.high) == pytest.approx((expected.low, expected.high))


def test_interval_of_two_values_equals_that_of_scipy() -> None:
    values = np.array([0.71, 0.73])
    actual = intervals.t_interval(values)
    expected = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (actual.low, actual.high) == pytest.approx((expected.low, expected.high))
    assert math.isnan(intervals.t_interval(values[:1]).low)


def test_interval_of_two_cells_equals_the_paired_t_interval_of_scipy() -> None:
    a, b = [0.71, 0.73, 0.70, 0.76], [0.70, 0.70, 0.69, 0.71]
    actual = intervals.difference_interval(pd.DataFrame({"a": a, "b": b}), "a", "b")
    expected = scipy_stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (actual.low, actual.high) == pytest.approx((expected.low, expected.high), rel=1e-4)


def test_interval_of_three_cells_equals_that_of_games_and_howell_in_scipy() -> None:
    scores = {
        "a": [0.71, 0.73, 0.70, 0.76],
        "b": [0.70, 0.50, 0.69, 0.91],
        "c": [0.6, 0.61, 0.6, 0.6],
    }
    expected = scipy_stats.tukey_hsd(*scores.values(), equal_var=False).confidence_interval(0.95)
    for i, label in enumerate(scores):
        for j, other in enumerate(scores):
            if i != j:
                actual = intervals.difference_interval(pd.DataFrame(scores), label, other)
                width = (actual.high - actual.low) / (expected.high[i, j] - expected.low[i, j])
                assert 1 - 1e-4 <= width <= 1.03  # degrees of freedom are rounded down
                assert actual.mean == pytest.approx((expected.low[i, j] + expected.high[i, j]) / 2)


def test_interval_of_independent_cells_equals_that_of_games_and_howell_in_scipy() -> None:
    scores = {"a": [0.71, 0.73, 0.70, 0.76], "b": [0.66, 0.70, 0.69], "c": [0.6, 0.61, 0.6, 0.62]}
    table = pd.DataFrame({label: pd.Series(values) for label, values in scores.items()})
    expected = scipy_stats.tukey_hsd(*scores.values(), equal_var=False).confidence_interval(0.95)
    actual = intervals.unpaired_difference(table, "a", "b")
    assert actual.n == 3
    assert actual.mean == pytest.approx(np.mean(scores["a"]) - np.mean(scores["b"]))
    assert actual.mean == pytest.approx((expected.low[0, 1] + expected.high[0, 1]) / 2)
    width = (actual.high - actual.low) / (expected.high[0, 1] - expected.low[0, 1])
    assert 1 - 1e-4 <= width <= 1.03  # degrees of freedom are rounded down


def test_whole_degrees_of_freedom_are_not_rounded_down() -> None:
    first = np.array([0.71, 0.73, 0.70, 0.76])
    scores = {"a": first, "b": first[::-1] + 0.1, "c": first + 0.2}  # equal variances: 6 of freedom
    expected = scipy_stats.tukey_hsd(*scores.values(), equal_var=False).confidence_interval(0.95)
    actual = intervals.difference_interval(pd.DataFrame(scores), "a", "b")
    assert (actual.low, actual.high) == pytest.approx(
        (expected.low[0, 1], expected.high[0, 1]), rel=1e-4
    )


def test_difference_without_an_interval_has_its_number_of_repeats() -> None:
    table = pd.DataFrame({"a": [0.71, 0.73, math.nan], "b": [0.70, math.nan, 0.69]})
    single, itself = (intervals.difference_interval(table, "a", other) for other in ("b", "a"))
    assert (single.n, itself.n) == (1, 2)
    assert single.mean == pytest.approx(0.01)
    assert itself.mean == 0
    assert all(map(math.isnan, (single.low, single.high, itself.low, itself.high)))


def test_missing_repeat_does_not_favor_the_cell_that_lacks_it() -> None:
    """The missing repeat may be one in which every cell scores low."""
    frames = sweep({0.5: [0.71, 0.73, 0.72, 0.64], 0.25: [0.70, 0.7195, 0.7105, math.nan]})
    result = stats.compute_answer(frames)
    assert result is not None
    assert result.cells[0].label == "width 0.5"


def test_adjusted_means_equal_plain_means_without_missing_repeats() -> None:
    table = pd.DataFrame({"a": [0.71, 0.73, 0.70], "b": [0.70, 0.50, 0.69], "c": [0.6, 0.61, 0.5]})
    pd.testing.assert_series_equal(intervals.block_means(table), table.mean())


def test_adjusted_means_recover_an_additive_model_with_missing_repeats() -> None:
    repeats, cells = np.array([0.0, 0.1, -0.2, 0.05]), np.array([0.5, 0.6, 0.7])
    table = pd.DataFrame(repeats[:, None] + cells, columns=["a", "b", "c"])
    expected = table.mean()
    table.loc[2, "b"] = table.loc[0, "c"] = math.nan
    pd.testing.assert_series_equal(intervals.block_means(table), expected)


@pytest.mark.parametrize("cells", [3, 8])
def test_one_noisy_cell_among_equal_ones_is_rarely_told_apart(cells: int) -> None:
    generator = np.random.default_rng(0)
    scale = np.array([8.0] + [1.0] * (cells - 1))
    differences = 0
    for _ in range(200):
        table = pd.DataFrame(scale * generator.normal(size=(3, cells))).rename(columns=str)
        best = str(table.mean().idxmax())
        differences += any(
            intervals.difference_interval(table, c, best).excludes_zero for c in table if c != best
        )
    assert differences <= 18  # 10 expected at the level of 5 %; binomial: exceeded at 0.6 %


def test_noise_is_the_pooled_standard_deviation() -> None:
    a, b = [0.71, 0.73, 0.70], [0.60, 0.61, 0.65]
    result = stats.compute_answer(sweep({0.25: a, 0.5: b}))
    assert result is not None
    assert result.noise_sd == pytest.approx(math.sqrt((np.var(a, ddof=1) + np.var(b, ddof=1)) / 2))


def test_noise_weighs_cells_by_their_degrees_of_freedom() -> None:
    a, b, c = [0.71, 0.73, 0.70, 0.78], [0.60, 0.68], [0.5]
    table = pd.DataFrame({"a": a, "b": [*b, math.nan, math.nan], "c": [*c, *[math.nan] * 3]})
    pooled = (3 * np.var(a, ddof=1) + 1 * np.var(b, ddof=1)) / 4
    assert intervals.pooled_deviation(table) == pytest.approx(math.sqrt(pooled))
    assert math.isnan(intervals.pooled_deviation(table.iloc[:1]))


@pytest.mark.parametrize("cells", [2, 4])
def test_sweep_over_seeds_alone_finds_a_difference_in_at_most_five_percent(
    cells: int,
) -> None:
    generator = np.random.default_rng(0)
    differences = 0
    for _ in range(300):
        repeat_noise = generator.normal(size=(5, 1))
        table = pd.DataFrame(repeat_noise + generator.normal(size=(5, cells))).rename(columns=str)
        best = str(table.mean().idxmax())
        differences += any(
            intervals.difference_interval(table, c, best).excludes_zero for c in table if c != best
        )
    assert differences <= 26  # 15 expected; binomial: exceeded with probability 0.5 %


def test_identical_cells_are_tied() -> None:
    result = stats.compute_answer(sweep({0.25: [0.7, 0.71, 0.72], 0.5: [0.7, 0.71, 0.72]}))
    assert result is not None
    assert result.tied_labels == ("width 0.25", "width 0.5")
    assert not result.separable


@pytest.mark.parametrize(("metric", "best"), [(METRIC, "width 0.25"), ("train/loss", "width 0.5")])
def test_simulated_difference_is_found_in_the_direction_of_the_metric(
    metric: str, best: str
) -> None:
    frames = sweep({0.5: [0.70, 0.72, 0.71], 0.25: [0.75, 0.765, 0.762]}, metric=metric)
    result = stats.compute_answer(frames)
    assert result is not None
    assert result.separable
    assert result.tied_labels == (best,)


def test_difference_is_found_under_noise_that_cells_share() -> None:
    repeat_noise = np.array([-0.1, 0.1, 0.0, 0.05])
    cell_noise = np.array([0.001, -0.001, 0.0, 0.001])
    result = stats.compute_answer(
        sweep({0.5: list(0.7 + repeat_noise), 0.25: list(0.71 + repeat_noise + cell_noise)})
    )
    assert result is not None
    assert result.separable
    assert result.effect is not None
    assert result.effect.mean == pytest.approx(0.01025)


def test_single_repeats_give_no_significant_difference() -> None:
    result = stats.compute_answer(sweep({0.25: [0.9], 0.5: [0.6]}))
    assert result is not None
    assert not result.separable
    assert result.tied_labels == ("width 0.25", "width 0.5")
    assert any(
        "Fewer than" in flag for flag in stats.flag_trials(sweep({0.25: [0.9], 0.5: [0.6]}), result)
    )


def test_cells_are_paired_by_common_repeats() -> None:
    result = stats.compute_answer(sweep({0.5: [0.70, math.nan, 0.72], 0.25: [0.75, 0.10, 0.77]}))
    assert result is not None
    assert result.cells[0].label == "width 0.25"  # though its plain mean is lower
    assert result.effect is not None
    assert result.effect.mean == pytest.approx(0.05)
    assert result.effect.n == 2


def test_cell_without_a_finished_trial_is_listed() -> None:
    frames = sweep({0.5: [0.7, 0.71], 0.25: [math.nan, math.nan]})
    result = stats.compute_answer(frames)
    assert result is not None
    assert result.missing == ("width 0.25",)
    flags = stats.flag_trials(frames, result)
    assert any("No finished trial: width 0.25" in flag for flag in flags)
    assert any("2 of 4 trials diverged or failed (50%)" in flag for flag in flags)


def test_no_finished_trial_gives_no_answer() -> None:
    assert stats.compute_answer(sweep({0.5: [math.nan]})) is None


def test_search_trials_are_compared_only_if_no_repeat_has_finished() -> None:
    frames = sweep({0.5: [0.7, 0.6], 0.25: [0.8, 0.5]})
    frames.trials["role"] = "search"
    frames.trials["repeat"] = 0
    result = stats.compute_answer(frames)
    assert result is not None
    assert not result.confirmed
    assert [cell.score.mean for cell in result.cells] == [0.8, 0.7]
    assert not result.separable


@pytest.mark.reported
@pytest.mark.parametrize(
    ("ends", "starts"),
    [([0.7, 0.9], [0.5, 0.6]), ([0.7, 0.9], [0.6, 0.5]), ([0.62, 0.61], [0.4, 0.6])],
)
def test_caption_has_the_first_value_of_the_line_in_the_figure_and_no_change_at_zero(
    ends: list[float], starts: list[float]
) -> None:
    """The line begins at the best of all untrained scores, which are at the same amount, 0."""
    frames = sweep({width: [end] for width, end in zip((0.5, 0.25), ends, strict=True)})
    curves = frames.curves.copy()
    curves.loc[curves["spent/flops"] == 0, METRIC] = starts
    frames = replace(frames, curves=curves)
    runs = stats.scored_trials(frames)
    caption = sentences.describe_curve(frames, runs, "spent/flops", "FLOP")
    (line,) = [
        line
        for line in plots.plot_curves(frames, runs, "spent/flops").axes[0].lines
        if line.get_label() == "best mean"
    ]
    drawn = [float(y) for y in line.get_ydata()]
    assert drawn[0] == max(starts)
    assert f"from {drawn[0]:.4f} (untrained) to {drawn[-1]:.4f}" in caption
    assert "after 0 FLOP" not in caption
    x = [float(x) for x in line.get_xdata()]
    half = next(i for i, y in enumerate(drawn) if y - drawn[0] >= (drawn[-1] - drawn[0]) / 2)
    assert f"after {sentences.format_quantity(x[half], 'FLOP')}. " in caption


def test_fine_tuning_without_a_defined_score_is_flagged() -> None:
    frames = sweep({0.25: [0.9, 0.8], 0.5: [0.6, 0.5]})
    frames.trials["finetune/own/undefined"] = [math.nan, 2.0, math.nan, 1.0]
    flags = stats.flag_trials(frames, stats.compute_answer(frames))
    numbers = ", ".join(str(frames.trials["number"][row]) for row in (1, 3))
    expected = "finetune/own: 3 fine-tuning runs diverged or predict the same number"
    assert any(flag.startswith(expected) and f"(trials {numbers})" in flag for flag in flags)


@pytest.mark.parametrize(
    ("distribution", "value", "flagged"),
    [
        ({"low": 1e-4, "high": 1e-2, "log": True}, 1e-3, False),
        ({"low": 1e-4, "high": 1e-2, "log": True}, 1.05e-4, True),
        ({"low": 0.0, "high": 1e-2, "log": False}, 9.9e-3, True),
        ({"choices": [1e-4, 1e-3, 1e-2]}, 1e-2, True),
        ({"choices": [1e-4, 1e-3, 1e-2]}, 1e-3, False),
    ],
)
def test_best_value_at_an_edge_gives_a_warning(
    distribution: dict[str, object], value: float, flagged: bool
) -> None:
    frames = sweep({0.5: [0.7, 0.71, 0.72]}, tune={LR: distribution})
    frames.trials[LR] = value
    result = stats.compute_answer(frames)
    assert result is not None
    assert any("edge" in flag for flag in stats.flag_trials(frames, result)) == flagged


def test_marginal_bins_count_every_search_trial() -> None:
    frames = sweep(
        {0.5: list(np.linspace(0.6, 0.7, 20))}, tune={LR: {"low": 1e-4, "high": 1e-2, "log": True}}
    )
    frames.trials["role"] = "search"
    frames.trials[LR] = np.geomspace(1e-4, 1e-2, 20)
    binned = stats.marginal_means(frames, LR)
    assert binned["n"].sum() == 20
    assert list(binned["n"]) == [4, 4, 4, 4, 4]
    assert list(binned["value"]) == pytest.approx(np.geomspace(1e-4, 1e-2, 11)[1::2])
    assert binned["best"].iloc[-1] == pytest.approx(0.7)


def crossed(scores: dict[float, dict[float, list[float]]]) -> SweepFrames:
    """Return frames of a sweep that repeats every setting: scores by width, rate and seed."""
    frames = sweep({width: [0.5] for width in scores}, tune={LR: {"low": 1e-3, "high": 4e-3}})
    rows = [
        dict(frames.trials.iloc[index])
        | {
            "role": "search",
            "repeat": repeat,
            "tuned": f"lr {rate:g}",
            LR: rate,
            "score": score,
            METRIC: score,
            "state": "diverged" if math.isnan(score) else "finished",
        }
        for index, rates in enumerate(scores.values())
        for rate, values in rates.items()
        for repeat, score in enumerate(values, 1)
    ]
    trials = pd.DataFrame(rows)
    trials["number"] = range(len(trials))
    curves = [
        {"number": number, "spent/flops": flops, METRIC: value}
        for number, score in enumerate(trials["score"])
        for flops, value in ((0.0, 0.5), (1e12, score))
    ]
    return replace(frames, trials=trials, curves=pd.DataFrame(curves))


def test_cell_is_represented_by_its_setting_with_the_best_mean() -> None:
    frames = crossed(
        {
            0.25: {1e-3: [0.60, 0.62, 0.61], 2e-3: [0.70, 0.50, 0.52]},
            0.5: {1e-3: [0.64, 0.66, 0.65], 2e-3: [0.70, 0.71, 0.72]},
        }
    )
    result = stats.compute_answer(frames)
    assert result is not None
    assert [(c.label, c.tuned) for c in result.cells] == [
        ("width 0.5", "lr 0.002"),
        ("width 0.25", "lr 0.001"),
    ]
    assert [c.score.mean for c in result.cells] == pytest.approx([0.71, 0.61])
    assert result.settings == 4
    assert result.confirmed


def test_setting_with_a_diverged_seed_represents_no_cell_that_has_another_one() -> None:
    frames = crossed({0.25: {1e-3: [0.60, 0.62, 0.61], 2e-3: [0.90, math.nan, 0.91]}})
    result = stats.compute_answer(frames)
    assert result is not None
    assert result.cells[0].tuned == "lr 0.001"


def test_interval_after_a_selection_is_that_of_all_settings() -> None:
    scores = [
        [0.60, 0.63, 0.61, 0.60],
        [0.66, 0.68, 0.69, 0.66],
        [0.4, 0.41, 0.42, 0.41],
        [0.5, 0.51, 0.49, 0.5],
    ]
    frames = crossed(
        {0.25: {1e-3: scores[0], 2e-3: scores[2]}, 0.5: {1e-3: scores[1], 2e-3: scores[3]}}
    )
    result = stats.compute_answer(frames)
    assert result is not None
    gap = result.cells[1].difference
    assert gap is not None
    expected = scipy_stats.tukey_hsd(*scores, equal_var=False).confidence_interval(0.95)
    assert (gap.low, gap.high) == pytest.approx((expected.low[0, 1], expected.high[0, 1]), abs=2e-3)


def test_cell_is_not_worse_if_one_of_its_settings_is_too_noisy_to_tell() -> None:
    frames = crossed(
        {
            0.25: {1e-3: [0.60, 0.61, 0.60, 0.61], 2e-3: [0.40, 0.90, 0.35, 0.70]},
            0.5: {1e-3: [0.70, 0.71, 0.70, 0.71], 2e-3: [0.50, 0.51, 0.50, 0.51]},
        }
    )
    result = stats.compute_answer(frames)
    assert result is not None
    assert [(cell.label, cell.tied) for cell in result.cells] == [
        ("width 0.5", True),
        ("width 0.25", True),
    ]


def test_setting_that_lost_a_trial_to_the_machine_can_represent_its_cell() -> None:
    frames = crossed({0.25: {1e-3: [0.60, 0.62, 0.61], 2e-3: [0.90, math.nan, 0.91]}})
    frames.trials["state"] = frames.trials["state"].replace("diverged", "failed")
    result = stats.compute_answer(frames)
    assert result is not None
    assert result.cells[0].tuned == "lr 0.002"


def test_diverged_repeat_counts_as_the_worst_score() -> None:
    frames = sweep({0.5: [0.70, 0.71, 0.70, 0.71], 0.25: [0.75, 0.76, 0.75, math.nan]})
    frames.trials["state"] = frames.trials["state"].replace("failed", "diverged")
    result = stats.compute_answer(frames)
    assert result is not None
    assert [cell.label for cell in result.cells] == ["width 0.5", "width 0.25"]
    assert [cell.diverged for cell in result.cells] == [0, 1]
    assert result.cells[1].tied
    assert result.cells[1].difference is not None
    worst = 0.5  # before training
    assert result.cells[1].difference.mean == pytest.approx(
        (0.75 + 0.76 + 0.75 + worst) / 4 - 0.705
    )
    assert result.cells[1].score.mean == pytest.approx((0.75 + 0.76 + 0.75) / 3)


@pytest.mark.parametrize("sign", [1, -1])
def test_error_of_the_search_reaches_up_to_the_runner_up(sign: int) -> None:
    table = sign * pd.DataFrame(
        {"a": [0.70, 0.71, 0.70, 0.71], "b": [0.60, 0.61, 0.60, 0.61], "c": [0.1, 0.2, 0.1, 0.2]}
    )
    gap = intervals.difference_interval(table, "b", "a")

    def widen(**runners_up: float) -> intervals.Interval:
        signed = {cell: sign * score for cell, score in runners_up.items()}
        return intervals.add_search_error(gap, table, ("b", "a"), signed, maximize=sign > 0)

    assert widen() == gap
    assert widen(b=0.3, a=0.3) == gap
    near, far = (0.69, 0.9)
    ends = [(each.low, each.high) if sign > 0 else (-each.high, -each.low)
            for each in (gap, widen(b=near), widen(b=far), widen(a=far))]  # fmt: skip
    deviation = float(table["a"].std())
    half = scipy_stats.studentized_range.ppf(0.95, 3, 4.4) / math.sqrt(2)  # degrees by Welch
    assert ends[1] == (
        ends[0][0],
        pytest.approx(0.69 - 0.705 + half * deviation * math.sqrt(1.25), rel=0.03),
    )
    assert ends[2][1] - ends[1][1] == pytest.approx(0.21)
    assert ends[3][1] == ends[0][1]
    assert ends[3][0] < ends[0][0]


@pytest.mark.parametrize("settings", [3, 6])
@pytest.mark.parametrize("noisiest", [1.0, 4.0])
def test_cells_with_equally_good_best_settings_are_rarely_told_apart_after_a_selection(
    settings: int, noisiest: float
) -> None:
    """One cell has settings that are all equally good, so its best mean is the most optimistic."""
    generator = np.random.default_rng(0)
    centers = np.full((3, settings), -4.0)
    centers[0] = centers[1, 0] = centers[2, 1] = 0.0
    deviations = np.ones((3, settings))
    deviations[0] = noisiest
    wrong = 0
    for _ in range(200):
        noise = generator.normal(size=(3, settings, 4)) * deviations[..., None]
        scores = centers[..., None] + noise
        best = scores[np.arange(3), scores.mean(axis=2).argmax(axis=1)]
        table = pd.DataFrame(best.T, columns=["a", "b", "c"])
        top = str(table.mean().idxmax())
        wrong += any(
            intervals.difference_interval(table, c, top, 3 * settings).excludes_zero
            for c in table
            if c != top
        )
    assert wrong <= 18  # 10 expected at the level of 5 %; binomial: exceeded with probability 0.6 %


def test_effect_is_the_best_cell_minus_the_reference() -> None:
    better = {0.5: [0.70, 0.72, 0.71], 0.25: [0.75, 0.765, 0.762]}
    result = stats.compute_answer(sweep(better))
    assert result is not None
    assert (result.reference, result.effect) != (None, None)
    assert result.reference == result.cells[1]
    assert result.effect is not None
    assert result.effect.mean == pytest.approx((0.05 + 0.045 + 0.052) / 3)
    assert result.cells[1].difference is not None
    assert result.cells[1].difference.mean == pytest.approx(-result.effect.mean)


def test_reference_that_is_the_best_cell_has_no_effect() -> None:
    result = stats.compute_answer(sweep({0.5: [0.80, 0.82, 0.81], 0.25: [0.75, 0.765, 0.762]}))
    assert result is not None
    assert result.reference == result.cells[0]
    assert result.effect is None
    assert result.cells[0].difference is None


def test_reference_without_a_score_has_no_effect() -> None:
    result = stats.compute_answer(sweep({0.5: [math.nan] * 2, 0.25: [0.75, 0.765]}))
    assert result is not None
    assert (result.reference, result.effect) == (None, None)
    assert result.missing == ("width 0.5",)


def test_repeats_confirm_an_answer_and_search_trials_do_not() -> None:
    frames = sweep({0.5: [0.7, 0.6], 0.25: [0.8, 0.5]})
    confirmed = stats.compute_answer(frames)
    frames.trials["role"], frames.trials["repeat"] = "search", 0
    searched = stats.compute_answer(frames)
    assert confirmed is not None
    assert searched is not None
    assert (confirmed.confirmed, searched.confirmed) == (True, False)
    assert (confirmed.settings, searched.settings) == (None, None)


def test_one_cell_is_not_separable() -> None:
    result = stats.compute_answer(sweep({0.5: [0.70, 0.72, 0.71]}))
    assert result is not None
    assert result.tied_labels == ("width 0.5",)
    assert not result.separable


@pytest.mark.parametrize(
    ("low", "high", "excludes"),
    [(0.1, 0.2, True), (-0.2, -0.1, True), (-0.1, 0.1, False), (0.0, 0.1, False),
     (-0.1, 0.0, False), (math.nan, math.nan, False)],
)  # fmt: skip
def test_interval_that_touches_zero_contains_it(low: float, high: float, excludes: bool) -> None:
    found = intervals.Interval(mean=0.0, low=low, high=high, n=3)
    assert found.excludes_zero is excludes


def test_gain_since_step_0_is_that_of_the_paired_scores() -> None:
    frames = sweep({0.5: [0.70, 0.74, 0.72]})
    frames.trials["untrained"] = [0.5, 0.52, 0.51]
    result = stats.compute_answer(frames)
    assert result is not None
    runs = stats.scored_trials(frames)
    gain = stats.gain_over_untrained(frames, runs, "width 0.5")
    half = 4.302652729911275 * 0.01 / math.sqrt(3)  # t quantile of 2 degrees of freedom
    assert (gain.mean, gain.low, gain.high) == pytest.approx((0.21, 0.21 - half, 0.21 + half))
    assert stats.has_learned(frames, result, runs) is True


@pytest.mark.parametrize(
    ("metric", "scores", "untrained", "learned"),
    [
        (METRIC, [0.52, 0.54, 0.53], 0.45, True),
        (METRIC, [0.48, 0.49, 0.485], 0.45, False),  # better than before, and not than chance
        (METRIC, [0.52, 0.54, 0.53], 0.6, False),  # better than chance, and not than before
        (METRIC, [0.52, 0.54, 0.53], math.nan, True),  # only chance is known
        (METRIC, [0.52], math.nan, None),
        ("train/loss", [0.3, 0.32, 0.31], 0.4, True),
        ("train/loss", [0.3, 0.32, 0.31], 0.2, False),
        ("train/loss", [0.3, 0.32, 0.31], math.nan, None),
    ],
)
def test_cell_has_learned_if_it_beats_its_untrained_encoder_and_chance(
    metric: str, scores: list[float], untrained: float, learned: bool | None
) -> None:
    frames = sweep({0.5: scores}, metric=metric)
    frames.trials["untrained"] = untrained
    result = stats.compute_answer(frames)
    assert result is not None
    assert stats.has_learned(frames, result, stats.scored_trials(frames)) is learned


@pytest.mark.parametrize(("metric", "best"), [(METRIC, 0.9), ("train/loss", 0.6)])
def test_marginal_means_are_those_of_the_scores_of_a_choice(metric: str, best: float) -> None:
    frames = sweep({0.5: [0.6, 0.9, 0.7]}, metric=metric, tune={LR: {"choices": [1e-3, 2e-3]}})
    frames.trials["role"] = "search"
    frames.trials[LR] = [1e-3, 1e-3, 2e-3]
    rows = stats.marginal_means(frames, LR).to_dict("records")
    cell = {"cell": "width 0.5"}
    assert rows == [
        cell | {"value": 1e-3, "best": best, "mean": 0.75, "n": 2},
        cell | {"value": 2e-3, "best": 0.7, "mean": 0.7, "n": 1},
    ]


def test_bins_of_a_linear_range_are_equally_wide() -> None:
    frames = sweep({0.5: [0.6] * 10}, tune={LR: {"low": 0.0, "high": 1.0, "log": False}})
    frames.trials["role"] = "search"
    frames.trials[LR] = np.linspace(0.0, 1.0, 10)
    binned = stats.marginal_means(frames, LR)
    assert list(binned["value"]) == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
    assert list(binned["n"]) == [2, 2, 2, 2, 2]
