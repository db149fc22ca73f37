"""The report shows how the best learning rate moves over widths, for each parametrization."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from frames.compared_sweeps import FIRST, sweep

from lab.reporting.scaling.rate_drift import drift_table
from lab.reporting.tables import Table
from lab.tracking.frames import SweepFrames

METRIC = "mlm/own_head/nats_per_character"
RATES = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3)


def frames_of(best: dict[tuple[str, int], float], noise: float = 1e-4) -> SweepFrames:
    """Return frames with three seeds of each rate; the best rates are those given."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "encoder.hidden": width, "encoder.parametrization.kind": kind, "optim.lr": rate,
            "budget.amount": 1e12, "role": "search", "repeat": repeat,
            "score": 2.5 + 0.05 * np.log(rate / optimum) ** 2 + rng.normal(0, noise),
        }
        for (kind, width), optimum in best.items()
        for rate in RATES
        for repeat in (1, 2, 3)
    ]  # fmt: skip
    read = sweep("drift", FIRST)
    trials = pd.DataFrame(rows).assign(number=range(len(rows)))
    return dataclasses.replace(read, trials=trials, sweep=read.sweep | {"metric": METRIC})


def rows_of(table: Table | None) -> dict[str, list[str]]:
    assert table is not None
    return {row[0]: list(row[1:]) for row in table.rows}


def test_best_rates_and_their_ratio_over_widths_are_found_for_each_parametrization() -> None:
    best = {("standard", 32): 3e-3, ("standard", 128): 1e-3, ("mup", 32): 2e-3, ("mup", 128): 2e-3}
    rows = rows_of(drift_table(frames_of(best)))
    assert list(rows) == ["standard", "mup"]
    for kind, expected in (("standard", 1 / 3), ("mup", 1.0)):
        *rates, ratio = rows[kind]
        found = [float(text.split()[0]) for text in rates]
        assert found == pytest.approx([best[kind, 32], best[kind, 128]], rel=0.02)
        assert float(ratio.split()[0]) == pytest.approx(expected, abs=0.02)
        low, high = (float(end) for end in ratio.split(maxsplit=1)[1].strip("[]").split(", "))
        assert low <= 1.02 * expected
        assert high >= 0.98 * expected


def test_a_minimum_outside_of_the_rates_is_said_and_has_no_ratio() -> None:
    rows = rows_of(drift_table(frames_of({("standard", 32): 5e-2, ("standard", 64): 2e-3})))
    assert rows["standard"][0] == "minimum at the edge of the rates"
    assert rows["standard"][-1] == "–"


def test_one_width_or_two_rates_have_no_table() -> None:
    assert drift_table(frames_of({("standard", 32): 2e-3})) is None
    read = frames_of({("standard", 32): 2e-3, ("standard", 64): 2e-3})
    few = read.trials[read.trials["optim.lr"] < 1.5e-3]
    assert drift_table(dataclasses.replace(read, trials=few)) is None
