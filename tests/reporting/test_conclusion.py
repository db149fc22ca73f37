"""The summary of a report: its conclusion fits the question and is supported by the numbers."""

import dataclasses
import json
import math
import re

import numpy as np
import pandas as pd
import pytest

from lab.loading.learned_sizes import LEARNED
from lab.reporting import conclusion, sentences, stats, tables
from lab.reporting.compute.budget_to_learn import advise_budget
from lab.reporting.conclusion import Headline
from lab.reporting.documents import run_note
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
    """Return frames of repeats; score i of each compared value belongs to repeat i + 1."""
    trials = [
        {
            "number": number, "state": "finished", "role": "repeat", "repeat": repeat,
            "cell": f"{path.rpartition('.')[2]} {value:g}", "tuned": "", "score": score,
            "untrained": untrained, "spent/flops": 1e12, path: value, metric: score,
            **SETTINGS, **(settings or {}),
        }
        for number, (repeat, value, score) in enumerate(
            (i, value, score) for value, row in scores.items() for i, score in enumerate(row, 1)
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
    answer, runs = stats.compute_answer(frames), stats.scored_trials(frames)
    return str(conclusion.write_headline(frames, answer, runs))


def summary(frames: SweepFrames) -> dict[str, str]:
    result = stats.compute_answer(frames)
    assert result is not None
    return dict(conclusion.list_facts(frames, result, stats.scored_trials(frames)))


DIFFERENT = {0.25: [0.80, 0.81, 0.79], 0.5: [0.70, 0.71, 0.69]}
SIMILAR = {0.25: [0.80, 0.70, 0.90], 0.5: [0.81, 0.69, 0.88]}
UNTRAINED = {0.25: [0.501, 0.499, 0.502], 0.5: [0.490, 0.491, 0.492]}


def test_significantly_better_setting_is_recommended() -> None:
    assert headline(sweep(DIFFERENT)) == "Recommended setting: width 0.25."
    assert headline(sweep(SIMILAR)).startswith("width 0.25 has the best mean score. Not separable")


@pytest.mark.parametrize("worse", [1, 2, 9])
def test_tied_and_worse_settings_are_listed(worse: int) -> None:
    tied = {0.25: [0.711, 0.712, 0.713], 0.5: [0.700, 0.712, 0.714]}
    others = {1.0 + i: [0.6 - i / 50 + j / 1000 for j in range(3)] for i in range(worse)}
    listed = "; ".join(f"width {1 + i}" for i in range(min(worse, 8)))
    more = " and 1 more" if worse == 9 else ""
    assert headline(sweep(tied | others)) == (
        "width 0.25 has the best mean score. Not separable from it: width 0.5. "
        f"Significantly worse: {listed}{more}."
    )


def diverge(frames: SweepFrames, *numbers: int) -> SweepFrames:
    """Return the frames with some trials diverged."""
    trials = frames.trials.copy()
    trials.loc[trials["number"].isin(numbers), ["state", "score"]] = ["diverged", math.nan]
    return dataclasses.replace(frames, trials=trials)


def test_headline_counts_the_diverged_repeats_of_a_recommended_setting() -> None:
    scores = {0.25: [0.80, 0.81, 0.80, 0.81, 0.80], 0.5: [0.50, 0.51, 0.50, 0.51, 0.50]}
    frames = diverge(sweep(scores), 4)
    assert headline(frames) == "Recommended setting: width 0.25 (1 of 5 repeats diverged)."
    assert headline(diverge(frames, 3)) == (
        "width 0.25 (2 of 5 repeats diverged) has the best mean score. "
        "Not separable from it: width 0.5."
    )


def test_headline_names_settings_without_a_score() -> None:
    frames = diverge(sweep(DIFFERENT | {1.0: [0.9, 0.9, 0.9]}), 6, 7, 8)
    assert headline(frames) == "Recommended setting: width 0.25. Without a score: width 1."


def test_nothing_is_recommended_if_no_setting_beats_untrained() -> None:
    frames = sweep(UNTRAINED)
    result = stats.compute_answer(frames)
    assert result is not None
    assert result.separable, "this case needs a best cell among cells that learned nothing"
    text = headline(frames)
    assert text.startswith(
        f"{AUROC} shows no learning: the best mean score, 0.5007 [0.4969, 0.5045]"
    )
    assert "width 0.25" in text
    assert "Recommended" not in text
    assert "nano32 (hidden size 32, 1 layer) at 2.5e11 to 1e12 FLOPs" in text
    assert "tiny (hidden size 128, 2 layers) at 4e12 to 8e12 FLOPs" in text


def test_answer_of_several_budgets_is_that_of_the_largest_one() -> None:
    """The other width is better at the smaller budget, where both have lower scores."""
    scores = {(1e12, 0.25): 0.70, (1e12, 1.0): 0.60, (4e12, 0.25): 0.80, (4e12, 1.0): 0.90}
    frames = sweep(dict.fromkeys((0.25, 1.0), [0.0] * 3), metric=PROBE)
    rows = [
        frames.trials.iloc[0].to_dict()
        | {"cell": f"width {width:g}, amount {budget:g}", "budget.amount": budget, WIDTH: width}
        | {"repeat": repeat, "score": score + 0.001 * repeat, PROBE: score + 0.001 * repeat}
        for (budget, width), score in scores.items()
        for repeat in (1, 2, 3)
    ]
    trials = pd.DataFrame(rows).assign(number=range(len(rows)))
    compare = {WIDTH: [0.25, 1.0], "budget.amount": [1e12, 4e12]}
    frames = dataclasses.replace(
        frames, trials=trials, sweep=frames.sweep | {"compare": json.dumps(compare)}
    )
    recommended = "At the largest budget: Recommended setting: width 1, amount 4e+12."
    assert headline(frames).startswith(recommended)
    result, runs = stats.compute_answer(frames), stats.scored_trials(frames)
    assert result is not None
    facts = dict(conclusion.list_facts(frames, result, runs))
    assert facts["largest budget"].startswith("4e+12 flops: the answer and the lines on effects")
    assert facts["effect"].startswith(
        "width 1, amount 4e+12 minus the reference setting, width 0.25, amount 4e+12: +0.1000 ["
    )
    assert [line.split(":")[0] for line in facts["best mean at each budget"].splitlines()] == [
        "width 0.25, amount 1e+12",
        "width 1, amount 4e+12",
    ]
    assert facts["best mean score"].startswith("width 1, amount 4e+12: 0.9020")
    trials.loc[trials["budget.amount"] == 4e12, "score"] = math.nan
    assert headline(frames).startswith("Recommended setting: width 0.25, amount 1e+12.")


def test_no_learning_is_measured_against_the_untrained_encoders_of_the_best_cell() -> None:
    frames = sweep({0.25: [0.62, 0.61, 0.63], 1.0: [0.60, 0.61, 0.59]}, metric=PROBE)
    untrained = frames.trials["cell"].map({"width 0.25": 0.66, "width 1": 0.4})
    frames = dataclasses.replace(frames, trials=frames.trials.assign(untrained=untrained))
    assert "is not significantly better than the untrained encoder, 0.6600." in headline(frames)


@pytest.mark.parametrize("seed", range(20))
def test_recommendation_and_no_learning_exclude_each_other(seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores = {
        width: list(generator.normal(0.5 + generator.choice([0, 0.01, 0.1]), 0.01, 3))
        for width in (0.25, 0.5, 1.0)
    }
    frames = sweep(scores)
    result, runs = stats.compute_answer(frames), stats.scored_trials(frames)
    assert result is not None
    text = headline(frames)
    learned = stats.has_learned(frames, result, runs)
    assert text.startswith(f"{AUROC} shows no learning") is (learned is False)
    assert text.startswith("Recommended setting: ") is (learned is True and result.separable)


@pytest.mark.parametrize(
    ("metric", "untrained", "best", "learned"),
    [
        (PROBE, 0.65, [0.70, 0.71, 0.69], True),
        (PROBE, 0.65, [0.60, 0.61, 0.59], False),
        (PROBE, 0.65, [0.66, 0.70, 0.60], False),
        (PROBE, math.nan, [0.70, 0.71, 0.69], None),
        (AUROC, 0.5, [0.60, 0.61, 0.59], True),
        (AUROC, 0.40, [0.49, 0.50, 0.51], False),  # above untrained but not above chance
        (AUROC, math.nan, [0.60, 0.61, 0.59], True),
        (AUROC, math.nan, [0.50, 0.51, 0.49], False),
        (AUROC, 0.5, [0.80], None),  # a single trial has no interval
        ("detect/bigram/calibrated_loss", 0.67, [0.40, 0.41, 0.39], True),
        ("detect/bigram/calibrated_loss", 0.67, [0.70, 0.71, 0.72], False),
    ],
)
def test_cell_has_learned_if_its_interval_is_better_than_untrained(
    metric: str, untrained: float, best: list[float], learned: bool | None
) -> None:
    frames = sweep({0.5: best}, metric=metric, untrained=untrained)
    result = stats.compute_answer(frames)
    assert result is not None
    assert stats.has_learned(frames, result, stats.scored_trials(frames)) is learned


def test_trials_that_start_from_weights_are_compared_with_their_start() -> None:
    text = headline(sweep(UNTRAINED, settings={"init_from.kind": "transformers"}))
    assert "the encoder at the start of training, 0.5000" in text
    assert "FLOPs" not in text


@pytest.mark.parametrize("row", LEARNED, ids=lambda row: row.size)
def test_advice_names_the_same_size_and_whether_less_compute_sufficed(row: object) -> None:
    assert isinstance(row, type(LEARNED[0]))
    advice = advise_budget(row.encoder.hidden, row.encoder.layers, row.high / 10)
    assert str(row) in advice
    assert str(LEARNED[0]) in advice
    assert "with no more compute" in advise_budget(row.encoder.hidden, row.encoder.layers, row.high)


def test_advice_for_an_unmeasured_size_names_the_cheapest_measured_one() -> None:
    assert min(LEARNED, key=lambda row: row.high) == LEARNED[0]
    assert str(LEARNED[0]) in advise_budget(768, 12, 1e12)


def test_untrained_is_mentioned_only_if_it_was_scored() -> None:
    scores = {0.5: [0.50, 0.51, 0.49], 0.25: [0.80, 0.81, 0.79]}
    unscored = sweep(scores, metric="finetune/mine", untrained=math.nan)
    lines = summary(unscored)
    assert "compute" not in lines  # no multiplier without scores during training
    assert lines["untrained"] == "not scored: this metric is computed only at the end of a trial"
    assert "no untrained score was taken" in sentences.describe_curve(
        unscored, stats.scored_trials(unscored), "spent/flops", "FLOP"
    )


def test_caption_of_a_curve_without_improvement() -> None:
    frames = sweep({0.5: [0.4, 0.3, 0.2]}, untrained=0.5)
    runs = stats.scored_trials(frames)
    caption = sentences.describe_curve(frames, runs, "spent/flops", "FLOP")
    assert caption.startswith("No setting has a better mean than the best untrained one, 0.5000.")


def test_path_reports_the_number_of_finished_trials_and_no_ranking() -> None:
    frames = sweep(DIFFERENT, answer="path")
    assert headline(frames) == ("All steps from text to report work: 6 of 6 trials finished.")
    assert summary(frames) == {}


def test_path_with_a_failed_trial_or_an_interrupted_sweep_is_reported() -> None:
    frames = sweep(DIFFERENT, answer="path")
    trials = frames.trials.copy()
    trials.loc[0, ["state", "score"]] = ["failed", math.nan]
    broken = dataclasses.replace(frames, trials=trials)
    assert headline(broken) == (
        "Not all steps from text to report have worked: 5 of 6 trials finished (1 failed)."
    )
    interrupted = dataclasses.replace(frames, sweep=frames.sweep | {"state": "interrupted"})
    assert headline(interrupted).startswith("Not all steps from text to report have worked: 6 of 6")


def test_noise_reports_the_deviation_of_each_setting_and_recommends_none() -> None:
    frames = sweep(
        {1e12: [0.50, 0.49, 0.51], 2e12: [0.70, 0.72, 0.74]}, path="budget.amount", answer="noise"
    )
    text = headline(frames)
    assert text == (
        f"Between trials that differ only in their seeds, {AUROC} has a standard deviation of "
        f"0.0100 to 0.0200; no setting is recommended."
    )
    assert summary(frames) == {
        "seed noise": "amount 1e+12: standard deviation 0.0100 (3 seeds); "
        "amount 2e+12: standard deviation 0.0200 (3 seeds)",
        "significantly better than untrained": "amount 2e+12 (95 % interval of the mean)",
    }


def test_budgets_alone_are_compared_without_a_recommendation() -> None:
    frames = sweep(DIFFERENT, path="budget.amount")
    assert headline(frames) == (
        "amount 0.25 has the best mean score, 0.8000 [0.7752, 0.8248]; only budgets were compared, "
        "so no setting is recommended."
    )


def test_no_answer_without_a_finished_trial() -> None:
    frames = sweep(DIFFERENT)
    unfinished = dataclasses.replace(frames, trials=frames.trials.assign(score=math.nan))
    assert headline(unfinished) == "No answer: no trial has finished."


def test_validity_lists_size_budget_window_text_and_objective() -> None:
    assert conclusion.describe_validity(sweep(DIFFERENT)) == (
        "encoder with 2 layers of hidden size 128, 1e+12 FLOPs per trial, windows of 16 tokens, "
        "training text: the embedded English text, vocabulary of 2048 tokens, objective electra"
    )


def test_validity_lists_every_value_in_which_trials_differ() -> None:
    frames = sweep(DIFFERENT)
    trials = frames.trials.copy()
    trials.loc[:2, ["encoder.hidden", "data.length", "objective.kind"]] = [64, 32, "mlm"]
    trials["data.source.kind"], trials["data.source.paths"] = "files", '["a/*.txt"]'
    trials["data.share"] = 0.5
    text = conclusion.describe_validity(dataclasses.replace(frames, trials=trials))
    assert "encoder with 2 layers of hidden size 64 or 128, " in text
    assert "windows of 32 and 16 tokens" in text
    assert '0.5 of ["a/*.txt"]' in text
    assert "objective mlm and electra" in text


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ({"kind": "mixture"}, "training text: a mixture of sources, "),
        ({"kind": "hub", "name": "wikitext"}, "training text: wikitext, "),
        ({"kind": "saved", "path": "sets/news"}, "training text: sets/news, "),
    ],
)
def test_validity_names_the_source_of_the_text(source: dict[str, str], name: str) -> None:
    settings: dict[str, object] = {f"data.source.{key}": value for key, value in source.items()}
    assert name in conclusion.describe_validity(sweep(DIFFERENT, settings=settings))


OVERLAPS = {
    "text-a": [
        {"task": "pos", "questions": 12, "short": 2, "found": 3},
        {"task": "sentiment", "questions": 9, "short": 1, "found": 0},
    ]
}


@pytest.mark.parametrize(
    ("metric", "count"),
    [
        (PROBE, "3 of 10 examples of pos"),
        ("finetune/sentiment", "0 of 8 examples of sentiment"),
        ("finetune/other", None),
        (AUROC, None),
    ],
)
def test_contamination_of_the_ranking_task_is_in_the_summary(
    metric: str, count: str | None
) -> None:
    lines = dict(
        conclusion.describe_contamination(
            sweep(DIFFERENT, metric=metric, overlaps=json.dumps(OVERLAPS))
        )
    )
    assert (count is None) is ("contamination" not in lines)
    assert count is None or count in lines["contamination"]


def test_summary_says_that_contaminated_lines_were_removed() -> None:
    overlaps = {"text-a": [overlap | {"removed": True} for overlap in OVERLAPS["text-a"]]}
    frames = sweep(DIFFERENT, metric=PROBE, overlaps=json.dumps(overlaps))
    ((_, line),) = conclusion.describe_contamination(frames)
    assert line.endswith("text-a, from which these lines were removed")


def test_sweep_without_stored_overlaps_has_no_line_on_contamination() -> None:
    assert conclusion.describe_contamination(sweep(DIFFERENT, metric=PROBE)) == []


def test_summary_says_how_the_intervals_contain_the_error_of_the_selection() -> None:
    by_one_trial = sweep({0.25: [0.6, 0.61, 0.62], 0.5: [0.7, 0.71, 0.72]})
    assert "selection" not in summary(by_one_trial)
    searched = [
        by_one_trial.trials.assign(role="search", repeat=0, tuned=tuned).iloc[::3]
        for tuned in ("lr 0.001", "lr 0.002")
    ]
    trials = pd.concat([by_one_trial.trials.assign(tuned="lr 0.001"), *searched])
    selected = dataclasses.replace(by_one_trial, trials=trials)
    assert "intervals of differences are widened" in summary(selected)["selection"]


def test_summary_counts_all_settings_where_every_setting_is_repeated() -> None:
    frames = sweep({0.25: [0.6, 0.61, 0.62], 0.5: [0.7, 0.71, 0.72]})
    rates = [frames.trials.assign(role="search", tuned=f"lr {rate}") for rate in (0.001, 0.002)]
    crossed = pd.concat(rates).assign(score=lambda t: t["score"] - 0.1 * (t["tuned"] == "lr 0.002"))
    frames = dataclasses.replace(frames, trials=crossed)
    assert "for all 4 combinations at once" in summary(frames)["selection"]


def test_summary_states_the_smallest_difference_that_the_design_finds() -> None:
    similar = sweep({0.25: [0.80, 0.79, 0.82], 0.5: [0.79, 0.81, 0.80], 1.0: [0.7, 0.71, 0.72]})
    text = summary(similar)["power"]
    noise = math.sqrt(np.mean([np.var(row, ddof=1) for row in ([0, -1, 2], [-1, 1, 0], [0, 1, 2])]))
    assert text == (
        f"with 3 seeds, a difference of {4.488 * noise / 100:.4f} would be found in 8 of 10 sweeps "
        f"(seed standard deviation {noise / 100:.4f}, from this sweep)"
    )


def test_summary_of_two_settings_uses_the_noise_of_paired_differences() -> None:
    shared = [0.1, -0.1, 0.0]
    frames = sweep({0.25: [0.7 + s for s in shared], 0.5: [0.7 + s + 1e-3 * s for s in shared]})
    assert "seed standard deviation 0.0001, from this sweep" in summary(frames)["power"]


def test_summary_states_the_seeds_and_the_compute_that_separate_ties() -> None:
    tied = {0.25: [0.80, 0.79, 0.82], 0.5: [0.79, 0.80, 0.795], 1.0: [0.8031, 0.7925, 0.8144]}
    frames = sweep(tied)
    text = summary(frames)["to separate ties"]
    near, far = text.splitlines()
    assert near.startswith("if the true difference between width 0.25 and width 1 is the observed")
    assert near.endswith("no number of seeds within 30 times this sweep's cost is enough")
    found = re.search(
        r"(\d+) seeds of each setting would separate .*: (\d+) more of each, together (.*)$", far
    )
    assert found is not None
    assert int(found[1]) == int(found[2]) + 3
    assert found[3] == f"{3 * int(found[2])} TFLOP"  # three settings with 1e12 FLOPs each
    frames.trials["slot/seconds"] = 60.0
    slots = dataclasses.replace(frames, measures={"slots": 2.0})
    assert f"TFLOP, {90 * int(found[2]) // 60} min" in summary(slots)["to separate ties"]
    assert "to separate ties" not in summary(sweep(DIFFERENT))
    assert "power" not in summary(sweep(DIFFERENT, answer="noise"))


def test_note_of_the_run_is_markdown_in_which_texts_are_not_interpreted() -> None:
    headline = Headline("width <1> has the best mean score.", ("Other scores.",))
    note = run_note.write_note("Which `width`?", headline, [("ties", "one\ntwo")])
    assert note == (
        "# Which \\`width\\`?\n\n**width &lt;1&gt; has the best mean score.**\n\nOther scores.\n\n"
        "- *ties*: one<br>two"
    )


def test_means_of_settings_at_each_budget_are_a_matrix() -> None:
    scores = {(1e12, 0.25): 0.70, (1e12, 1.0): 0.60, (4e12, 0.25): 0.80}
    frames = sweep(dict.fromkeys((0.25, 1.0), [0.0] * 3), metric=PROBE)
    rows = [
        frames.trials.iloc[0].to_dict()
        | {"cell": f"width {width:g}, amount {budget:g}", "budget.amount": budget, WIDTH: width}
        | {"repeat": repeat, "score": score + 0.001 * repeat, PROBE: score + 0.001 * repeat}
        for (budget, width), score in scores.items()
        for repeat in (1, 2, 3)
    ]
    compare = {WIDTH: [0.25, 1.0], "budget.amount": [1e12, 4e12]}
    frames = dataclasses.replace(
        frames,
        trials=pd.DataFrame(rows).assign(number=range(len(rows))),
        sweep=frames.sweep | {"compare": json.dumps(compare)},
    )
    runs = stats.scored_trials(frames)
    table = tables.budget_table(frames, stats.compute_answer(frames), runs)
    assert table is not None
    assert table.trials == [[(), [0, 1, 2], [6, 7, 8]], [(), [3, 4, 5], []]]
    assert list(table.head) == ["setting", "1 TFLOP", "4 TFLOP"]
    assert table.rows == [
        ["width 0.25", "0.7020 ± 0.0010 (3)", "0.8020 ± 0.0010 (3)"],
        ["width 1", "0.6020 ± 0.0010 (3)", "–"],
    ]
    one = sweep(DIFFERENT)
    assert tables.budget_table(one, stats.compute_answer(one), stats.scored_trials(one)) is None
