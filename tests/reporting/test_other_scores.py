"""Other scores that disagree with the ranking metric are named; incomparable ones are left out."""

import dataclasses
import json
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from lab.reporting import conclusion, intervals, other_scores, score_table, stats
from lab.reporting.documents import markdown
from lab.reporting.other_scores import Disagreement
from lab.reporting.stats import Answer
from lab.tracking.frames import SweepFrames

RANKING, PROBE, MLM = "detect/bigram/auroc", "probe/pos/accuracy", "detect/mlm/auroc"
PAIRS = "pairs/accuracy"
WIDTH = "objective.generator.width"
NOISE = np.array([-0.01, 0.004, 0.0, 0.006])


def sweep(means: dict[str, tuple[float, ...]], path: str = WIDTH) -> SweepFrames:
    """Return frames of four repeats of each cell; `means` has a score's mean in each cell.

    The noise of the scores differs, so that differences between cells have it too.
    """
    count = len(means[RANKING])
    values = [0.25 * 2**cell for cell in range(count)]
    generator = np.random.default_rng(3)
    rows = []
    for cell, value in enumerate(values):
        noise = {name: generator.permutation(NOISE) for name in means}
        rows += [
            {
                "number": len(NOISE) * cell + repeat, "state": "finished", "role": "repeat",
                "repeat": repeat, "cell": f"c{cell}", "tuned": "", "untrained": 0.5, path: value,
                "spent/flops": 1e12, "encoder.hidden": 32,
                **{name: mean[cell] + noise[name][repeat] for name, mean in means.items()},
            }
            for repeat in range(len(NOISE))
        ]  # fmt: skip
    trials = pd.DataFrame(rows)
    trials["score"] = trials[RANKING]
    ends = trials[["number", "spent/flops", *means]]
    starts = ends.assign(**dict.fromkeys(means, 0.5), **{"spent/flops": 0.0})
    sweep_tags = {
        "metric": RANKING, "compare": json.dumps({path: values}), "tune": "{}",
        "reference": json.dumps({path: values[0]}), "state": "finished",
    }  # fmt: skip
    return SweepFrames(
        name="widths", sweep=sweep_tags, measures={}, texts={}, trials=trials,
        curves=pd.concat([starts.assign(step=0), ends.assign(step=1)], ignore_index=True),
    )  # fmt: skip


def analyze(frames: SweepFrames) -> tuple[Answer, pd.DataFrame]:
    result = stats.compute_answer(frames)
    assert result is not None
    return result, stats.scored_trials(frames)


def find(frames: SweepFrames) -> tuple[Disagreement, ...]:
    return other_scores.find_disagreements(frames, *analyze(frames))


def searched(frames: SweepFrames) -> SweepFrames:
    """Add a search trial of the repeated setting of each cell, and one of another setting."""
    first = frames.trials[frames.trials["repeat"] == 0]
    repeats = frames.trials.assign(tuned="lr 1")
    search = [
        first.assign(role="search", tuned=tuned, number=first["number"] + offset)
        for tuned, offset in (("lr 1", 100), ("lr 2", 200))
    ]
    search[1][[RANKING, PROBE, "score"]] -= 0.003
    trials = pd.concat([repeats.assign(repeat=repeats["repeat"] + 1), *search], ignore_index=True)
    return dataclasses.replace(frames, trials=trials)


def crossed(frames: SweepFrames) -> SweepFrames:
    """Return the sweep as one that repeats every setting, with a second setting of each cell."""
    trials = frames.trials.assign(role="search", repeat=frames.trials["repeat"] + 1)
    others = trials.assign(tuned="lr 2", number=trials["number"] + 100)
    others[[RANKING, PROBE, "score"]] -= 0.003 * others[["repeat"]].to_numpy()
    both = pd.concat([trials.assign(tuned="lr 1"), others], ignore_index=True)
    return dataclasses.replace(frames, trials=both)


@pytest.mark.parametrize("design", [lambda frames: frames, searched, crossed])
def test_score_with_the_values_of_the_ranking_metric_has_the_intervals_of_the_answer(
    design: Callable[[SweepFrames], SweepFrames],
) -> None:
    frames = sweep({RANKING: (0.70, 0.69, 0.60), PROBE: (0.60, 0.60, 0.60)})
    frames = design(
        dataclasses.replace(frames, trials=frames.trials.assign(**{PROBE: frames.trials[RANKING]}))
    )
    result, runs = analyze(frames)
    ranked = frames.rank_by(PROBE)
    compare = stats.compare_cells(ranked, ranked.trials.loc[runs.index])
    best, *others = result.cells
    assert [compare(cell.label, best.label) for cell in others] == [c.difference for c in others]
    assert PROBE not in {each.metric for each in find(frames)}
    plain = intervals.difference_interval(
        runs.pivot_table(index="repeat", columns="cell", values=PROBE), others[0].label, best.label
    )
    assert others[0].difference is not None
    wider = others[0].difference.high - others[0].difference.low > plain.high - plain.low
    assert wider == (design in (searched, crossed))


def test_score_that_separates_a_tie_is_found_with_the_interval_of_the_answer() -> None:
    frames = sweep({RANKING: (0.70, 0.70, 0.70), PROBE: (0.60, 0.60, 0.70)})
    found = find(frames)
    assert {(each.metric, each.verdict) for each in found} == {(PROBE, "separates a tie")}
    assert {(each.better, each.worse) for each in found} == {("c2", "c0"), ("c2", "c1")}
    table = frames.trials.pivot_table(index="repeat", columns="cell", values=PROBE)
    assert found[0].difference == intervals.difference_interval(
        table, found[0].better, found[0].worse
    )


@pytest.mark.parametrize(
    ("probe", "verdict"),
    [(0.70, "contradicts"), (0.613, "ranks in reverse"), (0.601, None), (0.50, None)],
)
def test_score_in_the_opposite_direction_is_found_by_its_significance(
    probe: float, verdict: str | None
) -> None:
    frames = sweep({RANKING: (0.80, 0.70, 0.80), PROBE: (0.60, probe, 0.60)})
    pairs = {each.verdict for each in find(frames) if "c1" in (each.better, each.worse)}
    assert pairs - {"separates a tie"} == ({verdict} if verdict else set())


def test_headline_and_summary_name_scores_that_disagree() -> None:
    frames = sweep({RANKING: (0.80, 0.70), PROBE: (0.60, 0.70), MLM: (0.80, 0.70)})
    result, runs = analyze(frames)
    headline = conclusion.write_headline(frames, result, runs)
    assert headline.answer == "Recommended setting: c0."
    assert headline.doubts == (f"Other scores contradict this order significantly: {PROBE}.",)
    assert str(headline) == " ".join((headline.answer, *headline.doubts))
    line = dict(conclusion.list_facts(frames, result, runs))["other scores"]
    assert line.startswith(f"{PROBE} contradicts {RANKING} significantly: c1 better than c0 by +0.")
    assert "[+0." in line
    assert MLM not in line


def test_headline_distinguishes_scores_that_contradict_and_that_separate_a_tie() -> None:
    frames = sweep({RANKING: (0.8, 0.8, 0.7), PROBE: (0.7, 0.7, 0.8), PAIRS: (0.6, 0.9, 0.5)})
    result, runs = analyze(frames)
    text = str(conclusion.write_headline(frames, result, runs))
    assert f"Other scores contradict this order significantly: {PROBE}. " in text
    assert f"Other scores separate settings that tie here: {PAIRS}." in text


def test_summary_says_that_no_other_score_disagrees() -> None:
    frames = sweep({RANKING: (0.80, 0.70), PROBE: (0.80, 0.70), "train/loss": (0.2, 0.9)})
    line = dict(conclusion.list_facts(frames, *analyze(frames)))["other scores"]
    assert line == f"none disagrees with {RANKING}: {PROBE}"


@pytest.mark.parametrize("score", ["train/loss", "detect/unigram/auroc"])
def test_scores_that_may_not_rank_the_settings_are_left_out_and_marked(score: str) -> None:
    frames = sweep({RANKING: (0.80, 0.70), score: (0.60, 0.70)})
    assert find(frames) == ()
    assert other_scores.rank_correlations(frames)["trials"].tolist() == [0]
    table = score_table.score_table(frames, *analyze(frames))
    assert {row[0] for row in table.rows} == {f"{RANKING} ‡", f"{score} †"}
    assert f"‡ are not neutral between trials that differ in {WIDTH}" in table.caption
    assert "† are not compared, because their values are not comparable" in table.caption
    assert WIDTH in table.caption
    opposite = (0.60, 0.90) if score.endswith("auroc") else (0.90, 0.60)
    rates = sweep({RANKING: (0.80, 0.70), score: opposite}, path="optim.lr")
    assert bool(find(rates)) is (score != "train/loss")


def test_unigram_detection_is_left_out_if_one_objective_is_random() -> None:
    score = "detect/unigram/auroc"
    frames = sweep({RANKING: (0.80, 0.70), score: (0.60, 0.70)}, path="objective.disc_weight")
    assert find(frames)
    laws = ["unigram"] * 4 + [""] * 4
    trials = frames.trials.assign(**{"objective.replacement_distribution": laws})
    assert find(dataclasses.replace(frames, trials=trials)) == ()


def test_rank_correlation_equals_that_of_scipy_and_inverts_losses() -> None:
    frames = sweep(
        {RANKING: (0.7, 0.8), PROBE: (0.6, 0.65), "detect/mlm/calibrated_loss": (0.4, 0.3)}, "batch"
    )
    ranks = other_scores.rank_correlations(frames).set_index("metric")["rank_correlation"]
    scores = frames.trials["score"]
    for name, sign in ((PROBE, 1), ("detect/mlm/calibrated_loss", -1)):
        expected = scipy_stats.spearmanr(scores, frames.trials[name]).statistic
        assert ranks[name] == pytest.approx(sign * expected)


def test_rank_correlation_is_computed_within_a_shape() -> None:
    """Both scores rise with the width; within a width they are in opposite order."""
    frames = sweep({RANKING: (0.7, 0.8), PROBE: (0.6, 0.7)}, "encoder.hidden")
    trials = frames.trials.assign(
        **{PROBE: frames.trials["encoder.hidden"] - frames.trials["score"]}
    )
    row = other_scores.rank_correlations(dataclasses.replace(frames, trials=trials)).iloc[0]
    assert (row["metric"], row["rank_correlation"], row["trials"]) == (PROBE, -1.0, 8)


def test_scores_of_the_tokenizer_are_correlated_within_a_vocabulary() -> None:
    frames = sweep({RANKING: (0.7, 0.8), MLM: (0.6, 0.7)}, "data.vocab")
    assert find(frames) == ()
    assert other_scores.rank_correlations(frames)["trials"].tolist() == [8]


def test_lines_of_a_summary_are_lines_of_its_cell_in_markdown() -> None:
    assert markdown.escape_lines("a|b\n<br>\nc") == r"a\|b<br>&lt;br&gt;<br>c"


def test_scores_that_are_not_neutral_and_parts_of_the_ranking_metric_do_not_disagree() -> None:
    part = "pairs/order/accuracy"
    scores = {PAIRS: (0.80, 0.70), part: (0.60, 0.70), RANKING: (0.60, 0.70)}
    frames = sweep(scores)
    frames = dataclasses.replace(frames.rank_by(PAIRS))
    assert find(frames) == ()
    table = score_table.score_table(frames, *analyze(frames))
    last = {row[0]: row[-1] for row in table.rows}
    assert last[part] == "part of the ranking metric"
    assert f"{RANKING} ‡" in last
    assert part not in table.caption
