"""The cheapest budget to trust: decision accuracy about the largest budget, with its limits."""

import json

import numpy as np
import pandas as pd
import pytest

from lab.config.labels import label
from lab.reporting.scaling.trusted_budgets import trust_table
from lab.tracking.frames import SweepFrames

METRIC, WIDTH, BUDGET = "pairs/accuracy", "objective.generator.width", "budget.amount"
BUDGETS = (1e11, 1e12, 1e13)


def sweep(settings: int, orders: dict[float, int], gap: float = 0.1) -> SweepFrames:
    """Return frames of settings whose true scores rise with their number, on three seeds.

    Args:
        settings: number of settings.
        orders: by budget, 1 for the true order and -1 for its reverse.
        gap: difference between neighbors.
    """
    rng, rows = np.random.default_rng(0), []
    values = [round(0.1 + 0.05 * number, 3) for number in range(settings)]
    compared = {WIDTH: values, BUDGET: list(orders)}
    for budget, sign in orders.items():
        for number, width in enumerate(values):
            for repeat in (1, 2, 3):
                score = 0.5 + sign * gap * number + 1e-3 * rng.standard_normal()
                cell = label({WIDTH: width, BUDGET: budget}, compared)
                rows.append({"number": len(rows), "cell": cell, "repeat": repeat, "score": score,
                             WIDTH: width, BUDGET: budget})  # fmt: skip
    trials = pd.DataFrame(rows)
    tags = {"metric": METRIC, "compare": json.dumps(compared)}
    return SweepFrames(
        name="x", sweep=tags, measures={}, texts={}, trials=trials, curves=pd.DataFrame()
    )


def caption(frames: SweepFrames) -> str:
    table = trust_table(frames, frames.trials)
    assert table is not None
    return table.caption


def test_cheapest_budget_is_the_first_from_which_on_orders_hold() -> None:
    frames = sweep(20, {1e11: -1, 1e12: 1, 1e13: 1})
    table = trust_table(frames, frames.trials)
    assert table is not None
    assert table.caption.startswith("The cheapest budget to trust is 1 TFLOP")
    assert [row[:3] for row in table.rows] == [
        ["100 GFLOP", "1/100", "0 of 190"],
        ["1 TFLOP", "1/10", "190 of 190"],
    ]


def test_few_settings_are_said_to_be_too_few_even_without_an_error() -> None:
    assert "even a budget without an error has 53%" in caption(sweep(4, {1e12: 1, 1e13: 1}))


def test_settings_that_do_not_differ_decide_nothing() -> None:
    text = caption(sweep(4, {1e12: 1, 1e13: 1}, gap=0.0))
    assert text.startswith("No budget can be trusted or distrusted")


@pytest.mark.parametrize(("settings", "budgets"), [(1, BUDGETS), (3, BUDGETS[:1])])
def test_one_setting_or_one_budget_has_no_table(settings: int, budgets: tuple[float, ...]) -> None:
    frames = sweep(settings, dict.fromkeys(budgets, 1))
    assert trust_table(frames, frames.trials) is None


def test_budgets_have_the_unit_of_the_sweep() -> None:
    frames = sweep(4, {1e6: 1, 1e7: 1})
    trials = frames.trials.assign(**{"budget.kind": "tokens"})
    table = trust_table(frames, trials)
    assert table is not None
    assert table.rows[0][0] == "1 M tokens"
