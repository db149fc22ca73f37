"""Isolation plots: scores over one compared path among settings that agree in all others."""

import itertools
import json
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pytest

from lab.config.labels import label
from lab.reporting.figures import isolation
from lab.tracking.frames import SweepFrames

METRIC, MASK, OPTIMIZER, BATCH = "detect/bigram/auroc", "objective.mask_prob", "optim.kind", "batch"
COMPARE = {MASK: [0.4, 0.15, 0.25], OPTIMIZER: ["muon", "adam"]}
NOISE = 0.01


def sweep(
    compare: Mapping[str, Sequence[object]], scores: Mapping[tuple[object, ...], Sequence[float]]
) -> SweepFrames:
    """Return the frames of finished repeats: scores of the seeds by the values of a setting."""
    trials = [
        {
            "cell": label(values := dict(zip(compare, setting, strict=True)), compare),
            "repeat": repeat, "score": score, **values,
        }
        for setting, seeds in scores.items()
        for repeat, score in enumerate(seeds, 1)
    ]  # fmt: skip
    return SweepFrames(
        name="isolated", sweep={"metric": METRIC, "compare": json.dumps(compare)}, measures={},
        texts={}, trials=pd.DataFrame(trials), curves=pd.DataFrame(),
    )  # fmt: skip


@pytest.fixture
def scores() -> dict[tuple[object, ...], list[float]]:
    """Return random scores of three seeds of each setting of `COMPARE`."""
    settings = list(itertools.product(*COMPARE.values()))
    draws = np.random.default_rng(5).normal(0.7, 0.03, (len(settings), 3))
    return {setting: seeds.tolist() for setting, seeds in zip(settings, draws, strict=True)}


def isolate(frames: SweepFrames) -> dict[str, isolation.Isolation]:
    return {each.path: each for each in isolation.isolate_paths(frames, frames.trials)}


def test_each_line_has_the_means_of_settings_that_differ_in_one_path(
    scores: dict[tuple[object, ...], list[float]],
) -> None:
    frames = sweep(COMPARE, scores)
    found = isolate(frames)
    assert list(found) == [MASK, OPTIMIZER]
    (axes,) = isolation.plot(frames, found[MASK]).axes
    lines, bars = axes.lines[::2], axes.lines[1::2]  # each line is followed by its bars
    for kind, line, bar in zip(("muon", "adam"), lines, bars, strict=True):
        assert line.get_label() == f"optim {kind}"
        assert list(line.get_xdata()) == [0.15, 0.25, 0.4]
        seeds_VR = [scores[value, kind] for value in (0.15, 0.25, 0.4)]
        assert line.get_ydata() == pytest.approx(np.mean(seeds_VR, axis=1))
        ends_V2 = np.reshape(bar.get_ydata(), (3, 3))[:, :2]  # a gap follows each bar
        assert ends_V2.mean(axis=1) == pytest.approx(line.get_ydata())
        assert np.ptp(ends_V2, axis=1) == pytest.approx(2 * np.std(seeds_VR, axis=1, ddof=1))
    (axes,) = isolation.plot(frames, found[OPTIMIZER]).axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["optim muon", "optim adam"]
    drawn = {line.get_label(): line.get_ydata() for line in axes.lines}
    for value in COMPARE[MASK]:
        expected = [np.mean(scores[value, kind]) for kind in ("muon", "adam")]
        assert drawn[f"mask_prob {value}"] == pytest.approx(expected)


def test_caption_has_the_smallest_and_the_largest_effect_of_the_path(
    scores: dict[tuple[object, ...], list[float]],
) -> None:
    effects = {
        kind: np.ptp([np.mean(scores[value, kind]) for value in COMPARE[MASK]])
        for kind in COMPARE[OPTIMIZER]
    }
    (low, few), (high, many) = sorted((effect, kind) for kind, effect in effects.items())
    text = isolation.describe(isolate(sweep(COMPARE, scores))[MASK], NOISE)
    assert f"differ by {low:.4f} (optim {few}) to {high:.4f} (optim {many});" in text
    assert f"between seeds is {NOISE:.4f}" in text
    assert "intervals of the answer decide" in text
    for value in (0.15, 0.25):
        del scores[value, few]
    text = isolation.describe(isolate(sweep(COMPARE, scores))[MASK], NOISE)
    assert f"differ by {high:.4f} (optim {many});" in text


def test_path_is_isolated_only_beside_another_one_with_several_values(
    scores: dict[tuple[object, ...], list[float]],
) -> None:
    one = {setting: seeds for setting, seeds in scores.items() if setting[1] == "adam"}
    assert not isolate(sweep(COMPARE | {OPTIMIZER: ["adam"]}, one))
    assert not isolate(sweep({MASK: COMPARE[MASK]}, {key[:1]: each for key, each in one.items()}))
    assert list(isolate(sweep(COMPARE, one))) == [MASK]  # no muon trial has finished


def test_too_many_lines_are_one_mean_over_the_combinations_with_all_values() -> None:
    compare = {MASK: [0.15, 0.4], BATCH: list(range(20))}
    values = {(mask, batch): [mask + batch] for mask in compare[MASK] for batch in compare[BATCH]}
    del values[0.4, 19]
    found = isolate(sweep(compare, values))[MASK]
    assert list(found.lines["mean over 19 combinations"]) == pytest.approx([9.15, 9.4])
    (line,) = isolation.plot(sweep(compare, values), found).axes[0].lines
    assert list(line.get_ydata()) == pytest.approx([9.15, 9.4])
    assert "The line is the mean" in isolation.describe(found, NOISE)
    assert "Bars" not in isolation.describe(found, NOISE)
