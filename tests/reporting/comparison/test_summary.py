"""Conclusion, warnings and table of a comparison state what was compared, and every cell."""

import math

import numpy as np
import pytest
from frames.compared_sweeps import FIRST, SECOND, SETTINGS, read, sweep
from simulated.sweeps import METRIC

from lab.config.metrics import untrained_name
from lab.reporting import stats
from lab.reporting.comparison.cell_rows import cell_table
from lab.reporting.comparison.comparability import find_obstacle
from lab.reporting.comparison.joint_answer import compare_sweeps
from lab.reporting.comparison.summary import list_facts, list_flags, write_headline
from lab.reporting.comparison.sweep_results import join_frames, join_runs
from lab.tracking import tags


def test_best_setting_of_all_sweeps_is_recommended() -> None:
    better = {"c": [0.91, 0.92, 0.91], "d": [0.71, 0.72, 0.71]}
    sweeps = read(sweep("one", {"a": FIRST["a"]}), sweep("two", better))
    assert (
        write_headline(sweeps, compare_sweeps(sweeps), "").answer == "Recommended setting: two / c."
    )
    facts = dict(list_facts(sweeps, compare_sweeps(sweeps), across_code=False))
    assert facts["best mean score"].startswith("two / c: 0.9133 [")
    assert facts["reproduce"] == "python -m lab.report one two"


def test_sweeps_with_different_budgets_give_no_recommendation() -> None:
    long = sweep("two", {"c": [0.91, 0.92, 0.91]}, settings=SETTINGS | {"budget.amount": 4e12})
    sweeps = read(sweep("one", FIRST), long)
    headline = write_headline(sweeps, compare_sweeps(sweeps), "").answer
    assert headline.startswith("two / c has the best mean score")
    assert "different budgets (1e+12, 4e+12), so no setting is recommended" in headline
    facts = dict(list_facts(sweeps, compare_sweeps(sweeps), across_code=False))
    assert facts["sweeps differ in"] == "budget.amount, objective.disc_weight"


def test_no_setting_is_recommended_where_none_has_learned() -> None:
    sweeps = read(sweep("one", {"a": [0.50, 0.51, 0.49]}), sweep("two", {"c": [0.40, 0.41, 0.42]}))
    assert "shows no learning" in write_headline(sweeps, compare_sweeps(sweeps), "").answer


def test_gain_over_the_untrained_encoder_has_the_error_of_the_sweeps_own_test_set() -> None:
    rng = np.random.default_rng(0)
    first, second = sweep("one", FIRST), sweep("two", SECOND)
    for each in (first, second):
        documents = 0.02 * rng.normal(size=30)
        for number in map(int, each.trials["number"]):
            each.blocks[number, METRIC] = list(documents)
            each.blocks[number, untrained_name(METRIC)] = [0.0] * 30
    joint = read(first, second)
    answer, frames, runs = compare_sweeps(joint), join_frames(joint), join_runs(joint)
    assert answer is not None
    for result, name, own in ((joint[0], "one", "a"), (joint[1], "two", "c")):
        expected = stats.gain_over_untrained(result.frames, result.runs, own)
        assert stats.gain_over_untrained(frames, runs, f"{name} / {own}") == expected
    plain = read(sweep("one", FIRST), sweep("two", SECOND))
    facts = dict(list_facts(joint, answer, across_code=False))
    assert "is not recorded" not in facts["untrained"]
    assert "is not recorded" in dict(list_facts(plain, answer, across_code=False))["untrained"]


def test_every_cell_has_a_row_also_without_a_score() -> None:
    first = sweep("one", FIRST | {"lost": [math.nan] * 2})
    sweeps = read(first, sweep("two", SECOND))
    ranked, unranked = (cell_table(sweeps, a) for a in (compare_sweeps(sweeps), None))
    names = [("one", "a"), ("one", "b"), ("one", "lost"), ("two", "c")]
    assert [(row[0], row[1]) for row in unranked.rows] == names
    order = [("one", "a"), ("one", "b"), ("two", "c"), ("one", "lost")]
    assert [(row[0], row[1]) for row in ranked.rows] == order
    rows = [dict(zip(ranked.head, row, strict=True)) for row in ranked.rows]
    assert [row["comparison"] for row in rows] == ["best", "tie", "worse", "–"]
    assert [row["n"] for row in rows] == ["4", "4", "3", "–"]
    assert [row["trials"] for row in rows] == [
        "4 finished", "4 finished", "3 finished", "2 failed"
    ]  # fmt: skip
    assert rows[0]["training FLOP"] == "1 T"
    assert {dict(zip(unranked.head, row, strict=True))["comparison"] for row in unranked.rows} == {
        "not ranked", "–"
    }  # fmt: skip


def test_trials_that_several_sweeps_share_are_counted_in_a_warning() -> None:
    first, second = sweep("one", FIRST), sweep("two", SECOND)
    second.trials.loc[:1, "fingerprint"] = list(first.trials["fingerprint"][:2])
    flags = list_flags(read(first, second), ranked=True)
    assert "2 compared trials of one configuration and seed are part of more than one sweep." in (
        flags
    )


def test_running_sweep_is_a_warning() -> None:
    running = sweep("two", SECOND, **{tags.STATE: "running"})
    flags = list_flags(read(sweep("one", FIRST), running), ranked=True)
    assert "Not all sweeps have finished: two is running." in flags


def test_second_objective_that_takes_no_part_in_the_ranking_is_a_warning() -> None:
    costly = sweep("two", SECOND, **{tags.COST: "parameters"})
    warning = "two: its second objective, parameters, has no part in this ranking."
    assert warning in list_flags(read(sweep("one", FIRST), costly), ranked=True)
    assert warning not in list_flags(read(sweep("one", FIRST), costly), ranked=False)


@pytest.mark.parametrize("count", [0, 1])
def test_sweeps_without_a_finished_trial_are_named(count: int) -> None:
    lost = sweep("two", {"c": [math.nan] * 2})
    first = sweep("one", FIRST) if count else sweep("one", {"a": [math.nan]})
    sweeps = read(first, lost)
    answer = compare_sweeps(sweeps)
    headline = write_headline(sweeps, answer, find_obstacle(sweeps, across_code=False)).answer
    assert (headline == "No answer: no trial has finished.") is (count == 0)
    assert ("two / c" in headline) is (count == 1)
