"""Error of the finite test set: what repeats share of it, in every interval of a report."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from lab.config.metrics import untrained_name
from lab.reporting import finite_test_set, intervals, sentences, stats, yardsticks
from lab.reporting.intervals import Interval
from lab.tracking.frames import SweepFrames

Blocks = dict[tuple[int | str, str], list[float]]
METRIC = "detect/bigram/auroc"
WIDTH = "objective.generator.width"
B = 50


def draw(
    rng: np.random.Generator, *, repeats: int, seeds: float, shared: float, own: float
) -> pd.DataFrame:
    """Return contributions of blocks: a shared part, and one of each repeat, by repeat.

    Args:
        rng: random numbers.
        repeats: number of repeats.
        seeds: standard deviation of the score between seeds over all test sets.
        shared: standard deviation of the score over test sets that repeats share.
        own: standard deviation of the score over test sets of one repeat alone.
    """
    parts_RB = shared * rng.normal(size=B) + own * rng.normal(size=(repeats, B))
    return pd.DataFrame(parts_RB / math.sqrt(B) + seeds * rng.normal(size=(repeats, 1)) / B)


def test_error_is_that_of_the_part_which_repeats_share() -> None:
    rng = np.random.default_rng(0)
    squares = [
        finite_test_set.shared_error(draw(rng, repeats=4, seeds=1.0, shared=0.5, own=0.5)) ** 2
        for _ in range(400)
    ]
    assert np.mean(squares) == pytest.approx(0.25, rel=0.05)
    nothing = [
        finite_test_set.shared_error(draw(rng, repeats=4, seeds=1.0, shared=0.0, own=0.5))
        for _ in range(100)
    ]
    assert np.mean(nothing) < 0.1


@pytest.mark.parametrize("shared", [0.3, 1.0])
def test_interval_contains_the_difference_over_all_test_sets(shared: float) -> None:
    """The scores of all repeats are taken on one drawn test set; the truth is 0."""
    rng = np.random.default_rng(0)
    with_error = without = 0
    for _ in range(1_000):
        table = draw(rng, repeats=4, seeds=1.0, shared=shared, own=0.3)
        seeds_only = intervals.t_interval(table.sum(axis=1).to_numpy())
        error = finite_test_set.shared_error(table)
        whole = finite_test_set.add_test_error(seeds_only, error)
        with_error += whole.low <= 0 <= whole.high
        without += seeds_only.low <= 0 <= seeds_only.high
    assert with_error >= 935  # 950 expected; binomial standard deviation 7
    assert with_error > without


def test_interval_without_seed_noise_is_that_of_the_test_set() -> None:
    exact = Interval(mean=0.1, low=0.1, high=0.1, n=3)
    found = finite_test_set.add_test_error(exact, 0.01)
    assert found.high - found.mean == pytest.approx(scipy_stats.norm.ppf(0.975) * 0.01)
    wider = finite_test_set.add_test_error(exact, 0.01, settings=9)
    assert wider.high > found.high
    assert finite_test_set.add_test_error(exact, math.nan) == exact


def build_frames(blocks: Blocks) -> SweepFrames:
    scores = {0.5: [0.70, 0.72, 0.71], 0.25: [0.80, 0.815, 0.812]}
    trials = [
        {
            "number": 3 * cell + i, "state": "finished", "role": "repeat", "repeat": i + 1,
            "cell": f"width {width:g}", "tuned": "", "score": score, "untrained": 0.5,
            "spent/flops": 1e12, WIDTH: width, METRIC: score,
        }
        for cell, (width, values) in enumerate(scores.items())
        for i, score in enumerate(values)
    ]  # fmt: skip
    curves = [
        {"number": t["number"], "step": 1, "spent/flops": 1e12, METRIC: t["score"]} for t in trials
    ]
    tags = {"metric": METRIC, "compare": json.dumps({WIDTH: [0.5, 0.25]}), "tune": "{}"}
    return SweepFrames(
        name="widths",
        sweep=tags | {"reference": json.dumps({WIDTH: 0.5})},
        measures={},
        texts={},
        trials=pd.DataFrame(trials),
        curves=pd.DataFrame(curves),
        blocks=blocks,
    )


def answer(blocks: Blocks) -> stats.Answer:
    result = stats.compute_answer(build_frames(blocks))
    assert result is not None
    return result


def test_answer_contains_the_error_of_the_test_set_where_it_is_recorded() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, B)) * 0.05 / math.sqrt(B)
    blocks: Blocks = {(n, METRIC): list(first if n < 3 else second) for n in range(6)}
    without, result = answer({}), answer(blocks)
    assert math.isnan(without.test_error)
    expected = math.sqrt(B * np.var(second - first, ddof=1))
    assert result.test_error == pytest.approx(expected)
    assert without.effect is not None
    assert result.effect is not None
    assert result.effect.low < without.effect.low
    assert result.cells[0].score.low < without.cells[0].score.low
    assert without.separable
    assert not result.separable


def test_error_that_settings_share_does_not_change_their_difference() -> None:
    values = list(np.random.default_rng(0).normal(size=B))
    result = answer({(n, METRIC): values for n in range(6)})
    assert result.test_error == 0.0
    assert result.effect == answer({}).effect


@pytest.mark.parametrize("lost", [[], [0.1] * (B - 1)])
def test_error_is_unknown_if_a_trial_lacks_blocks_or_has_another_test_set(
    lost: list[float],
) -> None:
    changed: Blocks = {(n, METRIC): lost if n < 3 else [0.1] * B for n in range(6)}
    result = answer(changed)
    assert math.isnan(result.test_error)
    assert result.effect == answer({}).effect


FINETUNED = "finetune/sentiment"


@pytest.mark.parametrize("lost", [[], [1], [0, 1, 2, 3, 4, 5]])
def test_report_of_fine_tuning_scores_says_whether_the_error_is_recorded(lost: list[int]) -> None:
    """They have no value at step 0, and trials of earlier versions have no blocks of them."""
    rng = np.random.default_rng(0)
    blocks: Blocks = {
        (n, FINETUNED): list(rng.normal(size=B) * 1e-3) for n in range(6) if n not in lost
    }
    frames = build_frames(blocks)
    frames.sweep["metric"] = FINETUNED
    columns = {METRIC: FINETUNED}
    trials = frames.trials.rename(columns=columns).assign(untrained=math.nan)
    frames = replace(frames, trials=trials, curves=frames.curves.rename(columns=columns))
    result = stats.compute_answer(frames)
    assert result is not None
    line = dict(sentences.describe_best(result))["finite test set"]
    assert ("not recorded" in line) is bool(lost)
    assert ("the intervals contain" in line) is not bool(lost)


# The gain over the untrained encoder.

BEST = "width 0.25"  # trials 3 to 5


def draw_gains(rng: np.random.Generator) -> tuple[Blocks, "np.ndarray[tuple[int], np.dtype[Any]]"]:
    """Return the contributions of documents to scores of trials, and the mean gain of each."""
    level_D = 0.2 * rng.normal(size=B)  # documents that are easy with and without training
    blocks: Blocks = {}
    gains_RD = 0.15 * rng.normal(size=B) + 0.01 * rng.normal(size=(3, B))
    for n, gain_D in zip((3, 4, 5), gains_RD, strict=True):
        for name, score_D in ((METRIC, level_D + gain_D), (untrained_name(METRIC), level_D)):
            blocks[n, name] = ((score_D - score_D.mean()) / B).tolist()
    return blocks, gains_RD.mean(0)


def gain(blocks: Blocks) -> Interval:
    frames = build_frames(blocks)
    return stats.gain_over_untrained(frames, stats.scored_trials(frames), BEST)


def test_interval_of_the_gain_contains_the_error_of_a_bootstrap_of_documents() -> None:
    blocks, gain_D = draw_gains(np.random.default_rng(0))
    error = scipy_stats.bootstrap((gain_D,), np.mean, n_resamples=4_000).standard_error
    seeds_only, whole = gain({}), gain(blocks)
    assert whole.mean == seeds_only.mean
    half = math.hypot(seeds_only.high - seeds_only.mean, scipy_stats.norm.ppf(0.975) * error)
    assert whole.high - whole.mean == pytest.approx(half, rel=0.1)
    assert whole.high - whole.mean > 2 * (seeds_only.high - seeds_only.mean)


def test_error_that_the_untrained_encoder_shares_does_not_change_the_gain() -> None:
    values = list(np.random.default_rng(0).normal(size=B))
    names = (METRIC, untrained_name(METRIC))
    assert gain({(n, name): values for n in range(6) for name in names}) == gain({})


def test_gain_that_other_documents_could_reverse_is_not_called_learning() -> None:
    frames = build_frames({})
    result, runs = answer({}), stats.scored_trials(frames)
    assert stats.has_learned(frames, result, runs) is True
    rng = np.random.default_rng(0)
    values = rng.normal(size=B) / math.sqrt(B)
    blocks: Blocks = {(n, METRIC): list(values) for n in (3, 4, 5)}
    blocks |= {(n, untrained_name(METRIC)): [0.0] * B for n in (3, 4, 5)}
    assert stats.has_learned(build_frames(blocks), result, runs) is False


@pytest.mark.parametrize("lost", [[], [0.1] * (B - 1)])
def test_report_says_where_the_error_of_the_gain_is_not_recorded(lost: list[float]) -> None:
    blocks, _ = draw_gains(np.random.default_rng(0))
    note = "the sampling error of the test set is not recorded at step 0"

    def describe(blocks: Blocks) -> str:
        frames = build_frames(blocks)
        runs = stats.scored_trials(frames)
        return dict(yardsticks.describe_yardsticks(frames, answer(blocks), runs))["untrained"]

    assert note not in describe(blocks)
    without: Blocks = {
        key: lost if key[1] == untrained_name(METRIC) else row for key, row in blocks.items()
    }
    assert gain(without) == gain({})
    assert note in describe(without)
