"""The best mean over compute: that of several seeds of one setting, with their deviation."""

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pytest

from lab.reporting import sentences, stats
from lab.reporting.compute.mean_curves import mean_curves
from lab.reporting.figures import plots
from lab.reporting.interactive import curves as interactive
from lab.tracking.frames import SweepFrames

METRIC, FLOPS, PATH = "detect/bigram/auroc", "spent/flops", "batch"
Curves = Mapping[str, Sequence[Sequence[float]]]


def sweep(scores: Curves, metric: str = METRIC, **columns: Sequence[object]) -> SweepFrames:
    """Return a sweep with scores after 0, 1, ... times the FLOPs of a setting.

    Args:
        scores: scores by evaluation of each seed of each setting; a step of setting i has i + 2
            FLOPs.
        metric: ranking metric.
        columns: columns of the trials that differ.
    """
    labels = [label for label, seeds in scores.items() for _ in seeds]
    values = [seed for seeds in scores.values() for seed in seeds]
    steps = [list(scores).index(label) + 2 for label in labels]
    trials = pd.DataFrame(
        {
            "number": range(len(labels)), "state": "finished", "role": "repeat", "cell": labels,
            "repeat": [i for seeds in scores.values() for i, _ in enumerate(seeds, 1)],
            "tuned": "", "score": [seed[-1] for seed in values], "shared": False, "run_id": "",
            "untrained": [seed[0] for seed in values], PATH: steps, **columns,
        }
    )  # fmt: skip
    rows = [
        {"number": number, "step": index, FLOPS: float(step * index), metric: value}
        for number, (seed, step) in enumerate(zip(values, steps, strict=True))
        for index, value in enumerate(seed)
    ]
    tags = {"metric": metric, "compare": json.dumps({PATH: sorted(set(steps))}), "tune": "{}",
            "reference": json.dumps({PATH: 2})}  # fmt: skip
    return SweepFrames(
        name="curves", sweep=tags, measures={}, texts={}, trials=trials, curves=pd.DataFrame(rows)
    )


@pytest.fixture
def random() -> Curves:
    """Return three settings with four seeds and five evaluations each."""
    scores_BSE = np.random.default_rng(3).normal(0.7, 0.05, (3, 4, 5)).round(6)
    return {f"batch {index + 2}": seeds.tolist() for index, seeds in enumerate(scores_BSE)}


@pytest.mark.parametrize(("metric", "best"), [(METRIC, max), ("train/loss", min)])
def test_best_mean_at_each_amount_is_that_of_the_best_setting_with_its_own_deviation(
    random: Curves, metric: str, best: object
) -> None:
    frames = sweep(random, metric)
    found = mean_curves(frames, frames.trials, FLOPS).steps
    assert len(found) > 2
    for row in found.to_dict("records"):
        reached = [
            (float(np.mean(column)), float(np.std(column, ddof=1)), label)
            for step, (label, seeds) in enumerate(random.items(), 2)
            for index, column in enumerate(zip(*seeds, strict=True))
            if step * index <= row[FLOPS]
        ]
        mean, sd, label = best(reached)
        assert (row["mean"], row["sd"], row["seeds"]) == pytest.approx((mean, sd, 4))
        assert row["setting"] == label


def test_lucky_trial_of_the_search_is_not_the_best_mean() -> None:
    repeats = {"batch 2": [[0.5, 0.6], [0.5, 0.7]]}
    searched = {"batch 2": [*repeats["batch 2"], [0.5, 0.9]]}
    frames = sweep(searched, role=["repeat", "repeat", "search"], repeat=[1, 2, 0])
    best = mean_curves(frames, stats.scored_trials(frames), FLOPS).best
    assert list(best["mean"]) == pytest.approx([0.5, 0.65])


def test_mean_at_an_evaluation_has_all_seeds_of_the_setting() -> None:
    frames = sweep({"batch 2": [[0.5, 0.6, 0.8], [0.5, 0.7, np.nan], [0.5, 0.7]]})
    means = mean_curves(frames, frames.trials, FLOPS).settings
    assert list(means["mean"]) == pytest.approx([0.5, 2 / 3])
    assert list(means["seeds"]) == [3, 3]


def test_figures_have_the_mean_of_the_reference_and_the_band_of_the_best_mean(
    random: Curves,
) -> None:
    frames = sweep(random)
    means = mean_curves(frames, frames.trials, FLOPS)
    (axes,) = plots.plot_curves(frames, frames.trials, FLOPS).axes
    lines = {str(line.get_label()): line for line in axes.lines}
    reference = np.mean(random["batch 2"], axis=0)
    assert lines["reference"].get_ydata() == pytest.approx(reference)
    assert lines["reference"].get_linewidth() > 2 * axes.lines[0].get_linewidth()
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices[:, 1]
    steps = means.steps
    expected = {*(steps["mean"] - steps["sd"]), *(steps["mean"] + steps["sd"])}
    assert sorted(set(corners)) == pytest.approx(sorted(expected))
    figure = interactive.draw_scores(frames, frames.trials)
    assert figure is not None
    drawn = {t.get("name"): t["columns"]["y"].get(FLOPS) for t in figure.traces}
    assert drawn["reference"] == pytest.approx(reference)
    assert drawn["best mean"] == list(steps["mean"])
    low, high = drawn[None], drawn["± 1 sd"]
    assert np.subtract(high, low) == pytest.approx(2 * steps["sd"])
    assert np.add(high, low) == pytest.approx(2 * steps["mean"])


def test_caption_names_the_reference_and_the_band_only_if_they_are_drawn(random: Curves) -> None:
    one = {"batch 2": random["batch 2"]}
    single = {label: seeds[:1] for label, seeds in random.items()}
    for scores, reference, band in ((random, 1, 1), (one, 0, 1), (single, 1, 0)):
        frames = sweep(scores)
        caption = sentences.describe_curve(frames, frames.trials, FLOPS, "FLOP")
        assert ("The line 'reference' is the mean of batch 2." in caption) == reference
        assert ("The band is ± one standard deviation" in caption) == band
        lines = plots.plot_curves(frames, frames.trials, FLOPS).axes[0].lines
        assert sum(line.get_label() == "reference" for line in lines) == reference


def test_sweep_without_a_finished_trial_has_curves_and_no_mean() -> None:
    frames = sweep({"batch 2": [[0.5, 0.6]]}, state=["running"], score=[np.nan])
    runs = stats.scored_trials(frames)
    assert sentences.describe_curve(frames, runs, FLOPS, "FLOP").startswith("No trial has finished")
    lines = plots.plot_curves(frames, runs, FLOPS).axes[0].lines
    figure = interactive.draw_scores(frames, runs)
    assert figure is not None
    names = {*(line.get_label() for line in lines), *(t.get("name") for t in figure.traces)}
    assert "batch 2" in names
    assert "best mean" not in names
