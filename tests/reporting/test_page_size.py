"""Pages have less than 6 MB: curves lose points, then figures give way to their static forms."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from frames.scaling_frames import METRIC, follow_law, scaling_frames
from matplotlib.figure import Figure
from project import ROOT

from lab.reporting import stats
from lab.reporting.conclusion import Headline
from lab.reporting.documents import rendering
from lab.reporting.figures.curve_lines import plot_lines
from lab.reporting.interactive import fitting
from lab.reporting.interactive import page as interactive
from lab.reporting.interactive.curves import draw_losses, draw_scores
from lab.reporting.interactive.spec import Json, run_path
from lab.reporting.tables import Table, list_trials
from lab.tracking.frames import SweepFrames

COMPARE = {"encoder.size": ("nano32", "nano48"), "budget.amount": (1e12,)}
REPORTS = sorted(ROOT.glob("reports/*/report.html"))


def make_sweep(trials: int, evaluations: int) -> SweepFrames:
    """Return a sweep of two settings with random curves of scores and losses."""
    frames = scaling_frames(follow_law(), compare=COMPARE, seeds=1)
    numbers = np.arange(trials)
    table = frames.trials.iloc[numbers % len(frames.trials)].assign(number=numbers)
    count, random = trials * evaluations, np.random.default_rng(0)
    steps = np.tile(np.arange(evaluations), trials)
    amounts = ("spent/flops", "spent/tokens", "spent/seconds")
    losses = (METRIC, "train/loss", "train/mlm_loss")
    curves = pd.DataFrame(
        {"number": np.repeat(numbers, evaluations), "step": steps}
        | {name: steps * random.uniform(1e9, 2e9) for name in amounts}
        | {name: random.normal(3, 1, count) for name in losses}
    )
    return dataclasses.replace(frames, trials=table, curves=curves)


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: report.parent.name)
def test_committed_pages_are_below_6_megabytes(report: Path) -> None:
    assert report.stat().st_size < 6_000_000


def build_context(frames: SweepFrames) -> dict[str, Any]:
    """Return the context of the template of a page for a sweep, without static figures."""
    empty = Table(caption="", head=(), rows=())
    trials = frames.trials.to_dict("records")
    return {
        "name": "many", "question": "Why?", "headline": Headline(answer="None.", doubts=()),
        "facts": (), "card": (), "flags": (), "cells": empty, "scores": empty, "sections": (),
        "trials": list_trials(frames.trials), "no_scores": "", "groups": [], "mlflow": "",
        "runs": {str(trial["number"]): run_path(frames, trial) for trial in trials},
        "policy": interactive.security_policy(), "figures": {"compute": [], "health": []},
        "interactive": {
            "compute": [draw_scores(frames, stats.scored_trials(frames))],
            "losses": [draw_losses(frames)],
        },
    }  # fmt: skip


def render(context: dict[str, Any]) -> tuple[int, list[Json]]:
    """Return the bytes of the page, and the traces of its trials."""
    page = rendering.render_page("comparison", context)
    specs = re.findall(r'<script type="application/json">(.*?)</script>', page)
    traces = [trace for each in specs for trace in json.loads(each)["traces"] if "meta" in trace]
    return len(page.encode()), traces


def test_page_of_500_trials_is_below_6_megabytes_and_shows_all_of_them() -> None:
    size, traces = render(build_context(make_sweep(trials=500, evaluations=60)))
    assert size < 6_000_000
    assert len(traces) == 1_000  # score and losses
    for trace in traces:
        lengths = {len(values) for axis in trace["columns"].values() for values in axis.values()}
        assert min(lengths) == max(lengths) > 2


def test_page_loses_points_and_then_figures_until_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    context = build_context(make_sweep(trials=20, evaluations=10))
    size, traces = render(context)
    monkeypatch.setattr(fitting, "MOST_BYTES", size - 1)
    smaller, thinner = render(context)
    assert smaller < size
    assert len(thinner) == len(traces)
    monkeypatch.setattr(fitting, "MOST_BYTES", 0)
    assert render(context)[1] == []


def test_curves_keep_their_ends_and_the_caption_says_what_is_drawn() -> None:
    figure = draw_losses(make_sweep(trials=2, evaluations=40))
    assert figure is not None
    forms = [
        form["losses"][0] for form in fitting.list_smaller({"losses": [figure]}) if form["losses"]
    ]
    lengths = []
    for form in forms:
        for trace, whole in zip(form.traces, figure.traces, strict=True):
            x, all_x = (each["columns"]["x"]["spent/flops"] for each in (trace, whole))
            assert (x[0], x[-1]) == (all_x[0], all_x[-1])
            assert set(x) <= set(all_x)
        lengths.append(len(form.traces[0]["columns"]["x"]["spent/flops"]))
    assert lengths[0] == 40
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] == 2
    assert forms[0].caption == figure.caption
    assert forms[1].caption == f"{figure.caption} One evaluation in 2 is drawn, and the last one."


def test_static_curves_have_a_limited_number_of_points_and_all_ends() -> None:
    frames = make_sweep(trials=100, evaluations=200)
    axes = Figure().subplots()
    plot_lines(axes, frames, "step", METRIC, dict.fromkeys(frames.trials["cell"], "red"))
    drawn = np.concatenate([line.get_xdata() for line in axes.lines])
    assert 2_500 < np.isfinite(drawn).sum() <= 5_000 + 100
    assert (drawn == 0).sum() == (drawn == 199).sum() == 100
