"""The card: its sentence fits the question, and claims no more than its numbers hold."""

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest

from lab.reporting import conclusion, sentences, stats
from lab.reporting.compute_to_learn import LEARNED, advise_budget
from lab.tracking.frames import SweepFrames

AUROC = "detect/bigram/auroc"
PROBE = "probe/pos/accuracy"
WIDTH = "objective.generator.width"
SETTINGS = {
    "encoder.hidden": 128, "encoder.layers": 2, "budget.amount": 1e12, "budget.kind": "flops",
    "data.length": 16, "data.vocab": 2_048, "data.share": 1.0, "data.source.kind": "embedded",
    "objective.kind": "electra", "init_from.kind": "scratch",
}  # fmt: skip


def sweep(
    scores: dict[float, list[float]],
    *,
    metric: str = AUROC,
    untrained: float = 0.5,
    path: str = WIDTH,
    settings: dict[str, object] | None = None,
    **tags: str,
) -> SweepFrames:
    """Return frames of repeats: the i-th score of each value is that of repeat i + 1."""
    trials = [
        {
            "number": number, "state": "finished", "role": "repeat", "repeat": repeat,
            "cell": f"{path.rpartition('.')[2]} {value:g}", "tuned": "", "score": score,
            "untrained": untrained, "spent/flops": 1e12, path: value, metric: score,
            **SETTINGS, **(settings or {}),
        }
        for number, (repeat, value, score) in enumerate(
            (i, value, score) for value, found in scores.items() for i, score in enumerate(found, 1)
        )
    ]  # fmt: skip
    curves = [
        {"number": trial["number"], "step": step, "spent/flops": 1e12 * step, metric: score}
        for trial in trials
        for step, score in ((0, untrained), (1, trial["score"]))
        if not math.isnan(score)
    ]
    tags = {"state": "finished", "reference": json.dumps({path: next(iter(scores))})} | tags
    tags |= {"metric": metric, "compare": json.dumps({path: list(scores)}), "tune": "{}"}
    return SweepFrames(
        name="widths",
        sweep=tags,
        measures={},
        texts={},
        trials=pd.DataFrame(trials),
        curves=pd.DataFrame(curves),
    )


def headline(frames: SweepFrames) -> str:
    return conclusion.write_headline(
        frames, stats.compute_answer(frames), stats.scored_trials(frames)
    )


def card(frames: SweepFrames) -> dict[str, str]:
    result = stats.compute_answer(frames)
    assert result is not None
    return dict(conclusion.list_facts(frames, result, stats.scored_trials(frames)))


APART = {0.25: [0.80, 0.81, 0.79], 0.5: [0.70, 0.71, 0.69]}
ALIKE = {0.25: [0.80, 0.70, 0.90], 0.5: [0.81, 0.69, 0.88]}
NOTHING = {0.25: [0.501, 0.499, 0.502], 0.5: [0.490, 0.491, 0.492]}


def test_setting_that_is_told_apart_is_recommended() -> None:
    assert headline(sweep(APART)) == "Take width 0.25."
    assert headline(sweep(ALIKE)).startswith("Not separable: ")


def test_nothing_is_recommended_where_nothing_was_learned() -> None:
    frames = sweep(NOTHING)
    result = stats.compute_answer(frames)
    assert result is not None
    assert result.separable, "the case is about a winner among cells that learned nothing"
    said = headline(frames)
    assert said.startswith(
        f"Nothing was learned that {AUROC} shows: the best mean, 0.5007 [0.4969, 0.5045]"
    )
    assert "width 0.25" in said
    assert "Take" not in said
    assert "nano32 (32 wide, 1 layer) learns at 2.5e11 to 1e12 FLOPs" in said
    assert "tiny (128 wide, 2 layers) learns at 6e12 to 1.2e13 FLOPs" in said


@pytest.mark.parametrize("chance", range(20))
def test_recommendation_and_nothing_learned_never_stand_together(chance: int) -> None:
    drawn = np.random.default_rng(chance)
    scores = {
        width: list(drawn.normal(0.5 + drawn.choice([0, 0.01, 0.1]), 0.01, 3))
        for width in (0.25, 0.5, 1.0)
    }
    frames = sweep(scores)
    result, runs = stats.compute_answer(frames), stats.scored_trials(frames)
    assert result is not None
    said = headline(frames)
    learned = stats.has_learned(frames, result, runs)
    assert said.startswith("Nothing was learned") is (learned is False)
    assert said.startswith("Take ") is (learned is True and result.separable)


@pytest.mark.parametrize(
    ("metric", "untrained", "best", "learned"),
    [
        (PROBE, 0.65, [0.70, 0.71, 0.69], True),
        (PROBE, 0.65, [0.60, 0.61, 0.59], False),
        (PROBE, 0.65, [0.66, 0.70, 0.60], False),
        (PROBE, math.nan, [0.70, 0.71, 0.69], None),
        (AUROC, 0.5, [0.60, 0.61, 0.59], True),
        (AUROC, 0.40, [0.49, 0.50, 0.51], False),  # above its start, and still chance
        (AUROC, math.nan, [0.60, 0.61, 0.59], True),
        (AUROC, math.nan, [0.50, 0.51, 0.49], False),
        (AUROC, 0.5, [0.80], None),  # one run has no interval
        ("detect/bigram/loss", 0.67, [0.40, 0.41, 0.39], True),
        ("detect/bigram/loss", 0.67, [0.70, 0.71, 0.72], False),
    ],
)
def test_learned_is_what_lies_beyond_the_start_by_its_interval(
    metric: str, untrained: float, best: list[float], learned: bool | None
) -> None:
    frames = sweep({0.5: best}, metric=metric, untrained=untrained)
    result = stats.compute_answer(frames)
    assert result is not None
    assert stats.has_learned(frames, result, stats.scored_trials(frames)) is learned


def test_runs_that_start_from_weights_are_held_against_their_start() -> None:
    said = headline(sweep(NOTHING, settings={"init_from.kind": "transformers"}))
    assert "the score at its start, 0.5000" in said
    assert "learns at" not in said


@pytest.mark.parametrize("row", LEARNED, ids=lambda row: row.size)
def test_advice_names_the_size_itself_only_with_more_compute_than_was_spent(row: object) -> None:
    assert isinstance(row, type(LEARNED[0]))
    short = advise_budget(row.encoder.hidden, row.encoder.layers, row.high / 10)
    assert str(row) in short
    assert str(LEARNED[0]) in short
    assert "has learned with less" in advise_budget(
        row.encoder.hidden, row.encoder.layers, row.high
    )


def test_size_that_was_never_measured_is_told_the_cheapest_that_was() -> None:
    assert min(LEARNED, key=lambda row: row.high) == LEARNED[0]
    assert str(LEARNED[0]) in advise_budget(768, 12, 1e12)


def test_untrained_is_spoken_of_only_where_it_was_scored() -> None:
    worse = {0.5: [0.50, 0.51, 0.49], 0.25: [0.80, 0.81, 0.79]}
    assert "ends no better than untrained" in card(sweep(worse, untrained=0.5))["compute"]
    unknown = sweep(worse, metric="finetune/mine", untrained=math.nan)
    shown = card(unknown)
    assert "untrained" not in shown["compute"]
    assert "no score was taken before the end" in shown["compute"]
    assert shown["untrained"] == "not scored: this metric is taken at the end of a run only"
    assert "no untrained score was taken" in sentences.curve(unknown, "spent/flops", "FLOP")


def test_curve_that_never_rises_is_said_to() -> None:
    frames = sweep({0.5: [0.4, 0.3, 0.2]}, untrained=0.5)
    says = sentences.curve(frames, "spent/flops", "FLOP")
    assert says == "No score is better than the best untrained one, 0.5000."


def test_path_says_how_many_trials_finished_and_ranks_nothing() -> None:
    frames = sweep(APART, answer="path")
    assert headline(frames) == (
        "The whole path works: 6 of 6 trials finished, from text to report."
    )
    assert card(frames) == {}


def test_path_that_is_broken_says_so() -> None:
    frames = sweep(APART, answer="path")
    trials = frames.trials.copy()
    trials.loc[0, ["state", "score"]] = ["failed", math.nan]
    broken = dataclasses.replace(frames, trials=trials)
    assert headline(broken) == ("The path does not work yet: 5 of 6 trials finished (1 failed).")
    cut_off = dataclasses.replace(frames, sweep=frames.sweep | {"state": "interrupted"})
    assert headline(cut_off).startswith("The path does not work yet: 6 of 6")


def test_noise_shows_the_spread_of_each_setting_and_recommends_none() -> None:
    frames = sweep(
        {1e12: [0.50, 0.49, 0.51], 2e12: [0.70, 0.72, 0.74]}, path="budget.amount", answer="noise"
    )
    said = headline(frames)
    assert said == (
        f"Seeds alone spread {AUROC} by a standard deviation of 0.0100 to 0.0200; "
        f"no setting is recommended."
    )
    assert card(frames) == {
        "noise floor": "amount 1e+12: sd 0.0100 (3 seeds); amount 2e+12: sd 0.0200 (3 seeds)",
        "training shows": "mean above untrained, by its 95 % interval: amount 2e+12",
    }


def test_budgets_alone_are_compared_without_a_recommendation() -> None:
    frames = sweep(APART, path="budget.amount")
    assert headline(frames) == (
        "amount 0.25 has the best mean, 0.8000 [0.7752, 0.8248]; only budgets were compared, so "
        "no setting is recommended."
    )


def test_no_finished_trial_is_no_answer() -> None:
    frames = sweep(APART)
    none = dataclasses.replace(frames, trials=frames.trials.assign(score=math.nan))
    assert headline(none) == "No answer: no trial has finished."


def test_card_names_size_budget_window_text_and_objective() -> None:
    assert conclusion.describe_validity(sweep(APART)) == (
        "encoder 128 wide × 2 layers, 1e+12 FLOPs a run, windows of 16, the lab's embedded "
        "English, 2048 tokens in the vocabulary, objective electra"
    )


def test_card_names_every_value_that_trials_differ_in() -> None:
    frames = sweep(APART)
    trials = frames.trials.copy()
    trials.loc[:2, ["encoder.hidden", "data.length", "objective.kind"]] = [64, 32, "mlm"]
    trials["data.source.kind"], trials["data.source.paths"] = "files", '["a/*.txt"]'
    trials["data.share"] = 0.5
    said = conclusion.describe_validity(dataclasses.replace(frames, trials=trials))
    assert "encoder 64 wide × 2 layers and 128 wide × 2 layers" in said
    assert "windows of 32 and 16" in said
    assert '0.5 of ["a/*.txt"]' in said
    assert "objective mlm and electra" in said


OVERLAPS = {
    "text-a": [
        {"task": "pos", "questions": 12, "short": 2, "found": 3},
        {"task": "sentiment", "questions": 9, "short": 1, "found": 0},
    ]
}


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        (PROBE, "3 of 10 questions of pos"),
        ("finetune/sentiment", "0 of 8 questions of sentiment"),
        ("finetune/other", None),
        (AUROC, None),
    ],
)
def test_contamination_of_the_ranking_task_stands_on_the_card(
    metric: str, says: str | None
) -> None:
    shown = dict(
        conclusion.describe_contamination(
            sweep(APART, metric=metric, overlaps=json.dumps(OVERLAPS))
        )
    )
    assert (says is None) is ("contamination" not in shown)
    assert says is None or says in shown["contamination"]


def test_sweep_before_overlaps_were_kept_has_no_line_on_them() -> None:
    assert conclusion.describe_contamination(sweep(APART, metric=PROBE)) == []
