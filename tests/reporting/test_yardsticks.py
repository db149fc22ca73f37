"""Each score stands beside the untrained encoder of its shape, and beside look-up tables."""

import dataclasses
import json
import math
from typing import Any

import pandas as pd
import pytest

from lab.config.lookups import LOOKUPS, baseline_name, select_baselines
from lab.reporting import (
    conclusion,
    intervals,
    score_table,
    sentences,
    shapes,
    stats,
    tables,
    yardsticks,
)
from lab.reporting.figures import plots
from lab.reporting.stats import Answer
from lab.tracking.frames import SweepFrames

PROBE, AUROC = "probe/pos/accuracy", "detect/bigram/auroc"
HIDDEN = "encoder.hidden"
TRAINED = {32: [0.70, 0.71, 0.72], 64: [0.74, 0.75, 0.76]}
UNTRAINED = {32: [0.60, 0.61, 0.62], 64: [0.65, 0.66, 0.67]}


def sweep(
    trained: dict[int, list[float]],
    untrained: dict[int, list[float]],
    baselines: dict[str, float] | None = None,
    metric: str = PROBE,
    **tags: str,
) -> SweepFrames:
    """Return frames of repeats by hidden size; entry i of each list belongs to repeat i + 1."""
    entries = {baseline_name(table, metric): score for table, score in (baselines or {}).items()}
    trials: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    for hidden, scores in trained.items():
        for repeat, (score, before) in enumerate(zip(scores, untrained[hidden], strict=True), 1):
            number = len(trials)
            trials.append(
                {
                    "number": number, "state": "finished", "role": "repeat", "repeat": repeat,
                    "cell": f"hidden {hidden}", "tuned": "", "score": score, "untrained": before,
                    "spent/flops": 1e12, HIDDEN: hidden, "encoder.layers": 1,
                    "data.length": 16, "data.vocab": 512, "masked": "", metric: score, **entries,
                }
            )  # fmt: skip
            curves += [
                {"number": number, "step": step, "spent/flops": 1e12 * step, metric: value}
                for step, value in ((0, before), (1, score))
            ]
    first = {HIDDEN: next(iter(trained))}
    tags = {"answer": "ranking", "state": "finished", "reference": json.dumps(first)} | tags
    tags |= {"metric": metric, "compare": json.dumps({HIDDEN: list(trained)}), "tune": "{}"}
    return SweepFrames(
        name="sizes", sweep=tags, measures={}, texts={}, trials=pd.DataFrame(trials),
        curves=pd.DataFrame(curves),
    )  # fmt: skip


def analyze(frames: SweepFrames) -> tuple[Answer, pd.DataFrame]:
    result = stats.compute_answer(frames)
    assert result is not None
    return result, stats.scored_trials(frames)


def headline(frames: SweepFrames) -> str:
    return str(conclusion.write_headline(frames, *analyze(frames)))


def summary(frames: SweepFrames) -> dict[str, str]:
    return dict(conclusion.list_facts(frames, *analyze(frames)))


def test_gain_over_untrained_subtracts_the_untrained_score_printed_beside_it() -> None:
    line = summary(sweep(TRAINED, UNTRAINED))["untrained"]
    assert line.startswith("0.6600 (same shape and window); the best setting differs from it by")
    assert "+0.0900" in line
    assert "; it is significantly better; " in line


def test_untrained_score_in_the_tables_is_that_of_the_same_shape() -> None:
    frames = sweep(TRAINED, UNTRAINED)
    table = tables.cell_table(frames, *analyze(frames))
    column = table.head.index("untrained")
    assert {row[0]: row[column] for row in table.rows} == {
        "hidden 32": "0.6100",
        "hidden 64": "0.6600",
    }
    (row,) = score_table.score_table(frames, *analyze(frames)).rows
    assert row[2] == sentences.NONE
    assert row[4:6] == [
        "0.7500 ± 0.0100 (3); untrained 0.6600 ± 0.0100 (3)",
        "0.7100 ± 0.0100 (3); untrained 0.6100 ± 0.0100 (3)",
    ]


def test_one_shape_has_one_column_of_untrained_scores() -> None:
    frames = sweep({32: TRAINED[32]}, UNTRAINED)
    (row,) = score_table.score_table(frames, *analyze(frames)).rows
    assert row[2] == "0.6100 ± 0.0100 (3)"
    assert "untrained" not in row[4]


def test_shapes_are_labelled_by_the_settings_that_tell_them_apart() -> None:
    trials = sweep(TRAINED, UNTRAINED).trials
    assert set(shapes.label_shapes(trials)) == {"hidden 32", "hidden 64"}
    assert set(shapes.label_shapes(trials[trials[HIDDEN] == 32])) == {""}
    windows = trials.assign(**{"data.length": [16, 32] * 3})
    assert set(shapes.label_shapes(windows)) == {
        f"hidden {hidden}, length {length}" for hidden in (32, 64) for length in (16, 32)
    }
    assert shapes.label_shapes(trials[:0]).empty


def test_initial_weights_belong_to_the_start_but_not_to_the_shape() -> None:
    trials = sweep({32: TRAINED[32]}, UNTRAINED).trials.assign(
        **{"init_from.kind": ["scratch", "mlm", "mlm"], "encoder.dropout": [0.0, 0.1, 0.2]}
    )
    assert shapes.label_shapes(trials).nunique() == 1
    assert list(shapes.label_starts(trials)) == ["kind scratch", "kind mlm", "kind mlm"]


def test_interval_of_untrained_scores_counts_each_seed_once() -> None:
    frames = sweep({32: [0.7, 0.8], 64: [0.7, 0.8]}, {32: [0.5, 0.6], 64: [0.5, 0.6]})
    one_shape = dataclasses.replace(frames, trials=frames.trials.assign(**{HIDDEN: 32}))
    (score,) = shapes.untrained_by_shape(one_shape).values()
    assert score == intervals.t_interval(frames.trials["untrained"][:2].to_numpy())


def test_caption_of_the_curve_has_the_mean_untrained_score_of_the_best_setting() -> None:
    frames = sweep(TRAINED, UNTRAINED)
    caption = sentences.describe_curve(frames, stats.scored_trials(frames), "spent/flops", "FLOP")
    assert "The untrained encoders of that setting have 0.6600 on average" in caption


WORD = f"the word table ({LOOKUPS['word'].title}; 0.7880)"
TOKEN = f"the first token table ({LOOKUPS['first_token'].title}; 0.7145)"


def test_headline_says_that_a_table_is_not_beaten() -> None:
    text = headline(sweep(TRAINED, UNTRAINED, {"word": 0.788, "first_token": 0.7145}))
    assert text == (
        "Recommended setting: hidden 64. There is no evidence that the encoder uses context: "
        f"{PROBE} of hidden 64, 0.7500 [0.7252, 0.7748], is significantly worse than {WORD}."
    )
    near = headline(sweep(TRAINED, UNTRAINED, {"word": 0.76}))
    assert "is not significantly better than the word table" in near
    assert headline(sweep(TRAINED, UNTRAINED, {"word": 0.71})) == "Recommended setting: hidden 64."


def test_lower_losses_are_better_than_a_table() -> None:
    tables = {"unigram": 2.0, "bigram": 1.7}
    trained, untrained = {64: [1.80, 1.81, 1.82]}, {64: [2.10, 2.11, 2.12]}
    frames = sweep(trained, untrained, tables, metric="mlm/nats_per_character")
    by_table = {name: LOOKUPS[name].title for name in tables}
    assert summary(frames)["look-up tables"] == (
        f"hidden 64 is significantly better than the unigram table ({by_table['unigram']}; "
        f"2.0000); it is significantly worse than the bigram table ({by_table['bigram']}; 1.7000)"
    )
    text = headline(frames)
    assert "no evidence that the encoder uses more context than the two neighboring tokens" in text
    assert "is significantly worse than the bigram table" in text
    below = sweep({64: [1.60, 1.61, 1.62]}, untrained, tables, metric="mlm/nats_per_character")
    assert "evidence" not in headline(below)
    noise = sweep(trained, untrained, tables, metric="mlm/nats_per_character", answer="noise")
    assert summary(noise)["significantly better than look-up tables"] == (
        f"the unigram table ({by_table['unigram']}; 2.0000): hidden 64; "
        f"the bigram table ({by_table['bigram']}; 1.7000): no setting"
    )


def test_headline_names_the_weakest_table_that_is_not_beaten() -> None:
    frames = sweep(TRAINED, UNTRAINED, {"bigram": 0.9, "unigram": 0.8}, metric=AUROC)
    text = headline(frames)
    assert "no evidence that the encoder uses context: " in text
    assert "; 0.8000)" in text
    assert "; 0.9000)" not in text


def test_a_score_that_beats_no_untrained_encoder_is_not_called_learned() -> None:
    text = headline(sweep(UNTRAINED, UNTRAINED, {"word": 0.788}))
    assert text.startswith(f"{PROBE} shows no learning: ")
    assert "evidence" not in text


@pytest.mark.parametrize(
    ("table", "direction", "better"),
    [
        (0.70, "maximize", True),
        (0.73, "maximize", False),  # below the mean, but inside the interval
        (0.80, "maximize", False),
        (0.80, "minimize", True),
        (0.77, "minimize", False),
    ],
)
def test_a_table_is_beaten_if_the_interval_has_only_better_scores(
    table: float, direction: str, better: bool
) -> None:
    metric = AUROC if direction == "maximize" else "detect/bigram/calibrated_loss"
    frames = sweep({64: TRAINED[64]}, UNTRAINED, {"bigram": table}, metric=metric)
    result, runs = analyze(frames)
    (compared,) = yardsticks.compare_with_lookups(frames, runs, result.cells[0])
    assert compared.better is better


def test_summary_compares_the_best_setting_with_each_table() -> None:
    line = summary(sweep(TRAINED, UNTRAINED, {"word": 0.788, "first_token": 0.7145}))
    assert line["look-up tables"] == (
        f"hidden 64 is significantly better than {TOKEN}; it is significantly worse than {WORD}"
    )
    assert summary(sweep(TRAINED, UNTRAINED))["look-up tables"].startswith(f"none for {PROBE}: ")


def test_single_trial_cannot_be_compared_with_a_table() -> None:
    frames = sweep({64: [0.9]}, {64: [0.6]}, {"word": 0.788})
    assert "evidence" not in headline(frames)
    assert "cannot be compared, without an interval" in summary(frames)["look-up tables"]


def test_each_setting_is_compared_with_the_tables_of_its_own_vocabulary() -> None:
    frames = sweep(TRAINED, UNTRAINED, {"first_token": 0.7})
    entry = baseline_name("first_token", PROBE)
    frames.trials.loc[frames.trials[HIDDEN] == 64, entry] = 0.8
    assert "; 0.8000)" in headline(frames)
    (row,) = score_table.score_table(frames, *analyze(frames)).rows
    assert row[3] == "first token 0.7000 to 0.8000"


def test_noise_report_lists_the_settings_that_beat_each_table() -> None:
    frames = sweep(TRAINED, UNTRAINED, {"word": 0.788, "first_token": 0.7145}, answer="noise")
    assert summary(frames)["significantly better than look-up tables"] == (
        f"{TOKEN}: hidden 64; {WORD}: no setting"
    )


def test_figures_have_a_labelled_line_for_each_yardstick() -> None:
    frames = sweep(TRAINED, UNTRAINED, {"word": 0.788})
    result, runs = analyze(frames)
    curves = plots.plot_curves(frames, runs, "spent/flops")
    cells = plots.plot_cells(frames, result, runs)
    shapes_of_lines = {"untrained, hidden 32", "untrained, hidden 64"}
    assert shapes_of_lines <= set(curves.axes[0].get_legend_handles_labels()[1])
    assert "untrained" in cells.axes[0].get_legend_handles_labels()[1]
    for figure in (curves, cells):
        (note,) = figure.axes[0].texts
        assert note.get_text() == "look-up: word"
        assert any(set(line.get_ydata()) == {0.788} for line in figure.axes[0].lines)


def test_yardsticks_far_from_the_scores_of_cells_are_named_instead_of_drawn() -> None:
    close = {32: [0.7000, 0.7001, 0.7002]}
    frames = sweep(close, UNTRAINED, {"word": 0.788})
    result, runs = analyze(frames)
    (axes,) = plots.plot_cells(frames, result, runs).axes
    (note,) = axes.texts
    assert "untrained: 0.6100" in note.get_text()
    assert "look-up: word: 0.7880" in note.get_text()
    assert axes.get_ylim()[1] < 0.71


def test_caption_of_the_settings_names_all_yardsticks() -> None:
    frames = sweep(TRAINED, UNTRAINED, {"word": 0.788})
    text = yardsticks.describe_levels(frames, stats.scored_trials(frames))
    assert text == "For comparison, untrained: 0.6100 to 0.6600; look-up tables: word 0.7880."
    unscored = {hidden: [math.nan] * 3 for hidden in TRAINED}
    frames = sweep(TRAINED, unscored)
    assert yardsticks.describe_levels(frames, stats.scored_trials(frames)) == ""


def test_baselines_are_found_by_metric_and_table() -> None:
    names = [baseline_name("word", PROBE), baseline_name("bigram", AUROC), PROBE]
    assert select_baselines(names, PROBE) == {"word": f"baseline/word/{PROBE}"}
    assert math.isnan(yardsticks.untrained_score(sweep(TRAINED, UNTRAINED).trials, "none"))


def test_fine_tuning_scores_stand_beside_the_most_frequent_label() -> None:
    frames = sweep(TRAINED, UNTRAINED)
    task = "finetune/sentiment"
    scored = frames.trials.assign(**{task: 0.58, baseline_name("majority", task): 0.5033})
    frames = dataclasses.replace(frames, trials=scored)
    result, runs = analyze(frames)
    table = score_table.score_table(frames, result, runs)
    (row,) = (row for row in table.rows if row[0] == task)
    assert row[3] == "majority 0.5033"
    ranked = frames.rank_by(task)
    result, runs = analyze(ranked)
    text = " ".join(value for _, value in yardsticks.describe_yardsticks(ranked, result, runs))
    assert "the majority table (the most frequent label; 0.5033)" in text
