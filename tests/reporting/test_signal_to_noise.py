"""Signal-to-noise ratios equal those of scores that were drawn with known deviations."""

import math

import numpy as np
import pandas as pd
import pytest

from lab.config.metrics import find_metric
from lab.reporting import signal_to_noise
from lab.tracking.frames import SweepFrames

PAIRS, NATS, UNIGRAM = "pairs/accuracy", "mlm/nats_per_character", "detect/unigram/auroc"
WIDTH = "objective.generator.width"


def sweep(rows: list[tuple[float, str, int, dict[str, float]]], before: float) -> SweepFrames:
    """Return frames of trials: budget, cell, repeat and scores; all untrained scores are equal."""
    trials = pd.DataFrame(
        [
            {"number": number, "cell": cell, "repeat": repeat, signal_to_noise.BUDGET: budget}
            | {WIDTH: float(cell)} | scores
            for number, (budget, cell, repeat, scores) in enumerate(rows)
        ]
    )  # fmt: skip
    names = [name for name in trials if find_metric(str(name)) is not None]
    curves = pd.DataFrame({"number": trials["number"], "step": 0} | dict.fromkeys(names, before))
    return SweepFrames(
        name="x", sweep={"metric": PAIRS}, measures={}, texts={}, trials=trials, curves=curves
    )


def drawn(metric: str, settings: float, seeds: float, gain: float, cells: int) -> SweepFrames:
    generator = np.random.default_rng(0)
    rows = []
    for cell, mean in enumerate(generator.normal(gain, settings, cells)):
        for repeat, error in enumerate(generator.normal(0, seeds, 6), 1):
            rows.append((1e12, str(cell), repeat, {metric: 0.5 + mean + error}))
    return sweep(rows, 0.5)


@pytest.mark.parametrize("settings", [0.0, 0.02, 0.1])
def test_ratios_are_those_of_the_distribution_that_scores_are_drawn_from(settings: float) -> None:
    frames = drawn(PAIRS, settings, 0.02, 0.3, 400)
    metric = find_metric(PAIRS)
    assert metric is not None
    result = signal_to_noise.measure(frames, frames.trials, metric)
    assert result is not None
    assert result.repeats == 2_400
    assert result.deviation == pytest.approx(0.02, rel=0.05)
    assert result.training == pytest.approx(0.3 / 0.02, rel=0.1)
    assert result.settings == pytest.approx(settings / 0.02, rel=0.1, abs=0.25)


def test_training_that_lowers_a_loss_has_a_positive_ratio() -> None:
    rows = [(1e12, "1", repeat, {NATS: 2.0 + repeat / 100}) for repeat in (1, 2, 3)]
    frames = sweep(rows, 2.5)
    metric = find_metric(NATS)
    assert metric is not None
    result = signal_to_noise.measure(frames, frames.trials, metric)
    assert result is not None
    assert result.deviation == pytest.approx(0.01)
    assert result.training == pytest.approx(48)  # (2.5 - 2.02) / .01
    assert math.isnan(result.settings)  # a single cell


def test_score_that_cannot_rank_the_settings_has_no_ratio_of_settings() -> None:
    frames = drawn(UNIGRAM, 0.1, 0.02, 0.3, 3)  # cells differ in the generator's width
    metric = find_metric(UNIGRAM)
    assert metric is not None
    result = signal_to_noise.measure(frames, frames.trials, metric)
    assert result is not None
    assert math.isnan(result.settings)
    assert result.training > 0


def test_table_has_a_row_per_score_and_three_columns_per_budget_in_order() -> None:
    rows = [
        (budget, cell, repeat, {PAIRS: 0.6 + 0.1 * int(cell) + 0.01 * repeat})
        for budget in (5e11, 1e12)
        for cell in ("0", "1")
        for repeat in (1, 2, 3)
    ]
    frames = sweep(rows, 0.5)
    table = signal_to_noise.signal_table(frames, frames.trials)
    assert list(table.head)[1:4] == [
        "sd between seeds at 5e+11", "training at 5e+11", "settings at 5e+11"
    ]  # fmt: skip
    # Gains .12 and .22; the variance of the true means is .1 ** 2 / 2 - .01 ** 2 / 3.
    assert list(table.rows) == [[PAIRS, *["0.0100", "17.0", "7.0"] * 2]]


def test_table_without_repeats_is_empty() -> None:
    frames = sweep([(1e12, "0", 1, {PAIRS: 0.6}), (1e12, "1", 1, {PAIRS: 0.7})], 0.5)
    assert list(signal_to_noise.signal_table(frames, frames.trials).rows) == []
