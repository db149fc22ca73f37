"""The Pareto front of a report: positions of the settings, their intervals, and what is said."""

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from lab.reporting import conclusion, stats
from lab.reporting.pareto.front import Front, compute_front
from lab.reporting.pareto.sentences import describe_front, front_frame, front_table
from lab.tracking import tags
from lab.tracking.frames import SweepFrames

METRIC, LOSS = "pairs/accuracy", "mlm/nats_per_character"
Settings = dict[tuple[str, str], tuple[float, list[float]]]  # by cell and tuned: cost, scores


def sweep(
    settings: Settings, *, metric: str = METRIC, role: str = "repeat", search: bool = True
) -> SweepFrames:
    """Return frames in which score i of each setting belongs to repeat i + 1."""
    trials: list[dict[str, Any]] = []
    cells = list(dict.fromkeys(cell for cell, _ in settings))
    compared = {"encoder.ffn": list(range(len(cells)))} if cells != ["base"] else {}

    def add(cell: str, tuned: str, cost: float, own_role: str, repeat: int, score: float) -> None:
        state = "diverged" if score == -math.inf else "finished"
        trials.append(
            {
                "number": len(trials), "state": state, "role": own_role, "repeat": repeat,
                "cell": cell, "tuned": tuned, "untrained": 0.5 if metric == METRIC else 3.0,
                "score": score if math.isfinite(score) else math.nan, "cost": cost,
                "encoder.ffn": cells.index(cell), "optim.lr": 1e-3,
            }
        )  # fmt: skip

    for (cell, tuned), (cost, scores) in settings.items():
        if search and tuned:
            add(cell, tuned, cost, "search", 0, float(np.mean([s for s in scores if s > 0])))
        for repeat, score in enumerate(scores, 1):
            add(cell, tuned, cost, role, repeat, score)
    return SweepFrames(
        name="front",
        sweep={
            tags.QUESTION: "Which?", tags.METRIC: metric, tags.COMPARE: json.dumps(compared),
            tags.TUNE: json.dumps({"optim.lr": {"low": 1e-4, "high": 1e-2, "log": True}}),
            tags.REFERENCE: json.dumps(dict.fromkeys(compared, 0)), tags.COST: "inference_flops",
            tags.SEARCH: "{}", tags.STATE: "finished",
        },
        measures={},
        texts={},
        trials=pd.DataFrame(trials),
        curves=pd.DataFrame(columns=["number", "spent/flops", metric]),
    )  # fmt: skip


def front_of(settings: Settings, **options: Any) -> Front:
    front = compute_front(sweep(settings, **options))
    assert front is not None
    return front


def around(mean: float, spread: float = 0.002) -> list[float]:
    return [mean - spread, mean, mean + spread]


FOUR: Settings = {
    ("base", "layers 1"): (1e4, around(0.60)),
    ("base", "layers 2"): (2e4, around(0.70)),
    ("base", "layers 3"): (3e4, around(0.62)),
    ("base", "layers 4"): (4e4, around(0.698)),
}


def test_each_setting_has_its_position() -> None:
    positions = {point.label: point.status for point in front_of(FOUR).points}
    assert positions == {
        "layers 1": "on the front",
        "layers 2": "on the front",
        "layers 3": "dominated",
        "layers 4": "not separable",
    }


def test_rivals_are_the_cheaper_settings_that_a_reader_would_ask_for() -> None:
    points = {point.label: point for point in front_of(FOUR).points}
    rivals = {label: point.rival for label, point in points.items()}
    assert rivals == {
        "layers 1": "", "layers 2": "layers 1", "layers 3": "layers 2", "layers 4": "layers 2"
    }  # fmt: skip
    assert points["layers 2"].is_better
    assert points["layers 3"].difference is not None
    assert points["layers 3"].difference.mean == pytest.approx(-0.08)
    assert points["layers 3"].difference.high < 0


def test_lower_scores_are_better_for_a_loss() -> None:
    losses = {key: (cost, [3 - s for s in scores]) for key, (cost, scores) in FOUR.items()}
    front = front_of(losses, metric=LOSS)
    assert [p.status for p in front.points] == [p.status for p in front_of(FOUR).points]
    assert [p.rival for p in front.points] == [p.rival for p in front_of(FOUR).points]
    assert [p.is_better for p in front.points] == [p.is_better for p in front_of(FOUR).points]


def test_expensive_setting_without_a_significant_gain_is_named() -> None:
    settings: Settings = {
        ("base", "layers 1"): (1e4, around(0.600, 0.02)),
        ("base", "layers 2"): (2e4, around(0.604, 0.03)),
    }
    frames = sweep(settings)
    text = describe_front(frames, front_of(settings), "inference_flops")
    assert text == (
        "On the Pareto front of pairs/accuracy and inference compute of the encoder per token: "
        "layers 1 (0.6000 at 10 kFLOP); layers 2 (0.6040 at 20 kFLOP). Not significantly better "
        "than the next cheaper one of these: layers 2."
    )


def test_headline_names_the_front_the_ties_and_the_dominated_settings() -> None:
    frames = sweep(FOUR)
    text = conclusion.write_headline(frames, stats.compute_answer(frames), frames.trials).answer
    assert "On the Pareto front" in text
    assert "Off the front by their means, but not separable from it: layers 4." in text
    assert "Dominated: layers 3." in text
    assert "Recommended" not in text


def test_settings_that_are_equal_are_rarely_called_dominated() -> None:
    generator, false, draws = np.random.default_rng(0), 0, 120
    for _ in range(draws):
        settings: Settings = {
            ("base", f"lr {n}"): (1e4 * (n + 1), list(generator.normal(0.6, 0.01, 3)))
            for n in range(3)
        }
        false += bool(front_of(settings, search=False).with_status("dominated"))
    # 0.05 of the draws are expected at most; 0.1 leaves room for three standard errors.
    assert false / draws <= 0.1


def test_interval_of_two_settings_is_the_paired_t_interval_of_scipy() -> None:
    a, b = [0.60, 0.63, 0.61], [0.66, 0.68, 0.69]
    front = front_of({("base", "a"): (1.0, a), ("base", "b"): (2.0, b)})
    expected = scipy_stats.ttest_rel(b, a).confidence_interval(0.95)
    gap = front.points[1].difference
    assert gap is not None
    assert (gap.low, gap.high) == pytest.approx((expected.low, expected.high))


def test_cells_with_one_setting_have_the_intervals_of_the_comparison() -> None:
    """They contain the error of the search, as those of a sweep without a second objective."""
    settings: Settings = {
        ("ffn 64", "lr 0.001"): (1e4, around(0.60, 0.01)),
        ("ffn 128", "lr 0.002"): (2e4, around(0.64, 0.01)),
        ("ffn 256", "lr 0.001"): (3e4, around(0.61, 0.01)),
    }
    frames = sweep(settings)
    points = {point.label: point for point in front_of(settings).points}
    assert list(points) == ["ffn 64", "ffn 128", "ffn 256"], "the cell names the setting"
    difference = stats.compare_cells(frames, stats.scored_trials(frames))
    assert points["ffn 256"].difference == difference("ffn 256", "ffn 128")


def test_diverged_repeat_counts_as_the_worst_score() -> None:
    settings = FOUR | {("base", "layers 2"): (2e4, [0.699, 0.700, -math.inf])}
    point = {each.label: each for each in front_of(settings).points}["layers 2"]
    assert point.diverged == 1
    assert point.score.n == 2
    text = describe_front(sweep(settings), front_of(settings), "inference_flops")
    assert "layers 4 (0.6980 at 40 kFLOP)" in text, "its mean is better than with the diverged one"


def test_every_repeated_setting_of_a_search_is_compared() -> None:
    settings = {(cell, tuned): value for (cell, tuned), value in FOUR.items()}
    front = front_of(settings, role="search", search=False)
    assert [point.label for point in front.points] == [tuned for _, tuned in settings]
    assert front.confirmed


def test_search_scores_are_compared_where_nothing_was_repeated() -> None:
    frames = sweep(FOUR)
    searched = frames.trials[frames.trials["role"] == "search"]
    front = compute_front(SweepFrames(**(vars(frames) | {"trials": searched})))
    assert front is not None
    assert not front.confirmed
    assert {point.status for point in front.points} == {"on the front", "not separable"}
    assert all(math.isnan(point.score.low) for point in front.points)


def test_comparison_takes_the_setting_with_the_best_search_score() -> None:
    """A cell of the comparison has one setting, although its whole front was repeated."""
    frames = sweep(FOUR)
    runs = stats.scored_trials(frames)
    assert set(runs["tuned"]) == {"layers 2"}
    assert len(runs) == 3


def test_table_and_numbers_have_every_setting() -> None:
    front = front_of(FOUR)
    table, numbers = front_table(front, "inference_flops"), front_frame(front)
    assert [row[0] for row in table.rows] == list(numbers["setting"]) == [t for _, t in FOUR]
    assert list(numbers["cost"]) == [1e4, 2e4, 3e4, 4e4]
    assert numbers["difference"].isna().tolist() == [True, False, False, False]


def test_sweep_without_a_second_objective_has_no_front() -> None:
    frames = sweep(FOUR)
    del frames.sweep[tags.COST]
    assert compute_front(frames) is None
