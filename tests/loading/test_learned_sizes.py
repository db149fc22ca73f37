"""The measured compute to learn agrees with the committed reports."""

import pandas as pd
import pytest
from project import ROOT

from lab.loading.learned_sizes import LEARNED, MIN_TO_LEARN, LearnedAt
from lab.suggestion.compute_tiers import DESIGNS

METRIC = "detect/bigram/auroc"


def gains(row: LearnedAt) -> pd.DataFrame:
    """Return FLOPs and gain over the untrained encoder of each evaluation of the best setting."""
    curves = pd.read_csv(ROOT / row.source / "curves.csv")
    trials = pd.read_csv(ROOT / row.source / "trials.csv").set_index("number")
    repeats = trials[(trials["role"] == "repeat") & (trials["state"] == "finished")]
    best = repeats.loc[repeats["score"].idxmax(), "cell"]
    numbers = repeats.index[repeats["cell"] == best]
    curves = curves[curves["number"].isin(numbers)].copy()
    assert (repeats["encoder.hidden"] == row.encoder.hidden).all()
    assert (repeats["data.length"] == row.window).all()
    start = curves[curves["step"] == 0].set_index("number")[METRIC]
    curves["gain"] = curves[METRIC] - curves["number"].map(start)
    return curves.rename(columns={"spent/flops": "flops"})[["flops", "gain"]]


@pytest.mark.parametrize("row", LEARNED, ids=lambda row: row.size)
def test_measured_compute_agrees_with_its_report(row: LearnedAt) -> None:
    table = gains(row)
    low = table[(table["flops"] / row.low - 1).abs() < 0.02]
    high = table[(table["flops"] / row.high - 1).abs() < 0.02]
    assert low["gain"].mean() > 0.01
    assert high["gain"].min() > 0.05


def test_smallest_size_learns_with_the_least_compute() -> None:
    assert LEARNED[0].size == "nano32"
    assert MIN_TO_LEARN == LEARNED[0].low < 3.3e11  # FLOPs with which nano32 has learned


def test_every_design_has_enough_seeds_for_a_useful_interval() -> None:
    assert min(design.seeds for design in DESIGNS) >= 3
