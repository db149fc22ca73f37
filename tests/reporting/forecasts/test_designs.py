"""Designs of a sweep: their settings, laws and calibration, and sweeps without a forecast."""

import dataclasses
import itertools
import math
from typing import Any

import pytest
from frames.scaling_frames import BUDGETS, RATE, SIZES, follow_law, scaling_frames

from lab.errors import UserError
from lab.reporting.figures.forecast_plots import plot_forecast
from lab.reporting.forecasts.designs import MODEL, has_settings, read_designs
from lab.reporting.forecasts.making import make_forecast
from lab.reporting.forecasts.observed import ObservedRun, StoreForecasts
from lab.reporting.forecasts.record import ForecastRecord
from lab.reporting.forecasts.scored import calibrate_store, score
from lab.reporting.forecasts.section import build_section
from lab.reporting.forecasts.tables import describe_figure, format_change
from lab.tracking import tags
from lab.tracking.frames import SweepFrames

WRITTEN = "2026-01-01T00:00:00+00:00"
TARGET = 2e13
MASK = "objective.mask_prob"


@pytest.fixture(scope="module")
def frames() -> SweepFrames:
    """Return frames of three sizes under two mask rates."""
    compare = {MASK: (0.15, 0.3), "encoder.size": SIZES[1:4], "budget.amount": BUDGETS}
    return scaling_frames(follow_law(), compare=compare)


@pytest.fixture(scope="module")
def record(frames: SweepFrames) -> ForecastRecord:
    return make_forecast(frames, TARGET, WRITTEN)


def arrive(record: ForecastRecord, design: str, *losses: float) -> tuple[ObservedRun, ...]:
    """Return runs of a design at the budget of a forecast."""
    return tuple(
        ObservedRun(
            forecast=record.name, design=design, sweep="s", fingerprint=str(i), loss=loss,
            exclusion="",
        )
        for i, loss in enumerate(losses)
    )  # fmt: skip


def test_designs_are_sizes_within_groups_of_other_settings(frames: SweepFrames) -> None:
    found = read_designs(frames)
    assert [design.name for design in found.designs] == [
        f"mask_prob {rate}, {width} × 2" for rate in (0.15, 0.3) for width in (48, 64, 96)
    ]
    assert {design.group for design in found.designs} == {"mask_prob 0.15", "mask_prob 0.3"}
    assert all(design.budgets == BUDGETS for design in found.designs)
    assert [settings[MASK] for settings in found.settings.values()] == [0.15] * 3 + [0.3] * 3


def test_trials_of_a_design_agree_in_all_settings_that_both_have(frames: SweepFrames) -> None:
    found = read_designs(frames)
    name = "mask_prob 0.15, 64 × 2"
    rows = frames.trials.to_dict("records")
    its = [row for row in rows if has_settings(found.settings[name], row)]
    assert {row["cell"].partition(", amount")[0] for row in its} == {"mask_prob 0.15, size nano"}
    assert len(its) == 2 * len(BUDGETS)
    other_rate = its[0] | {RATE: 9.0}
    assert not has_settings(found.settings[name], other_rate)
    assert has_settings(found.settings[name], other_rate, MODEL)
    assert not has_settings(found.settings[name], {})


def test_settings_that_scores_choose_or_that_follow_the_budget_are_not_of_the_design() -> None:
    tuned = scaling_frames(follow_law(), rates=(1e-3, 2e-3))
    settings = next(iter(read_designs(tuned).settings.values()))
    assert RATE not in settings
    assert settings["optim.kind"] == "muon"
    trend = scaling_frames(follow_law(), columns=lambda trial: {"batch": trial.budget.amount})
    assert "batch" not in next(iter(read_designs(trend).settings.values()))


def test_each_group_has_its_law_and_counts_as_one_trial_of_the_calibration(
    record: ForecastRecord,
) -> None:
    assert record.laws.keys() == {"mask_prob 0.15", "mask_prob 0.3"}
    runs = [arrive(record, d.design, d.loss - 1e-4, d.loss + 1e-4) for d in record.designs]
    stored = StoreForecasts(records=(record,), runs=tuple(itertools.chain(*runs)))
    found = calibrate_store(score(stored))
    assert found is not None
    assert (found.forecasts, found.laws, found.covered) == (6, 2, 6)
    assert found.mean_error == pytest.approx(0, abs=1e-12)
    assert calibrate_store(score(StoreForecasts(records=(record,)))) is None


def test_excluded_runs_and_their_reasons_are_in_the_record() -> None:
    frames = scaling_frames(
        follow_law(), columns=lambda trial: {"spent/epochs": 5.0 * (trial.encoder.hidden == 32)}
    )
    record = make_forecast(frames, TARGET, WRITTEN)
    assert {each.reason for each in record.excluded} == {"5.0 epochs of its data, more than 4"}
    assert len(record.excluded) == 2 * len(BUDGETS)
    assert "32 × 2" not in {each.design for each in record.designs}


def test_name_of_a_forecast_is_that_of_its_inputs(record: ForecastRecord) -> None:
    later = record.model_copy(update={"written": "2027-01-01T00:00:00+00:00", "warnings": ["a"]})
    assert later.name == record.name
    first, *others = record.trials
    trials = [first.model_copy(update={"loss": first.loss * 1.001}), *others]
    for changes in ({"law": "curves"}, {"trials": trials}, {"budget": 3e13}, {"code": "0" * 12}):
        assert record.model_copy(update=changes).name != record.name


def test_sweeps_without_end_or_loss_are_refused(frames: SweepFrames) -> None:
    def refuse(message: str, **changes: Any) -> None:
        with pytest.raises(UserError, match=message):
            make_forecast(dataclasses.replace(frames, **changes), TARGET, WRITTEN)

    refuse(
        "scaling: its sweep is interrupted; a forecast needs a finished sweep",
        sweep=frames.sweep | {tags.STATE: "interrupted"},
    )
    refuse(
        "scaling: has no runs to which a law can be fitted",
        trials=frames.trials.assign(**{"budget.kind": "tokens"}),
    )
    refuse(
        "its end points are excluded: not cooled down",
        trials=frames.trials.assign(**{"schedule.kind": "constant"}),
    )


def test_interval_is_that_of_the_mean_of_the_runs_that_arrived(record: ForecastRecord) -> None:
    design = record.ranked[0]

    def width(count: int) -> float:
        runs = arrive(record, design.design, *[design.loss] * count)
        (scored,) = score(StoreForecasts(records=(record,), runs=runs))
        forecast = scored.errors[design.design].forecast
        return math.log(forecast.high / forecast.low)

    assert width(1) > width(4) > math.log(design.high / design.low)


def test_figure_has_the_predicted_and_the_observed_losses_by_rank(record: ForecastRecord) -> None:
    first, second, *_ = record.ranked
    runs = (*arrive(record, first.design, first.loss), *arrive(record, second.design, 9.0, 9.2))
    (scored,) = score(StoreForecasts(records=(record,), runs=runs))
    (axes,) = plot_forecast(scored).axes
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == [design.design for design in record.ranked]
    for design, bars in zip(record.ranked, axes.containers, strict=True):
        assert bars[0].get_ydata() == [design.loss]
        (segment,) = bars[2][0].get_segments()
        assert tuple(segment[:, 1]) == pytest.approx(scored.ends(design))
    diamonds = [line for line in axes.lines if line.get_marker() == "D" and len(line.get_xdata())]
    assert [line.get_ydata()[0] for line in diamonds] == [first.loss, pytest.approx(9.1)]
    assert [line.get_markerfacecolor() == "none" for line in diamonds] == [False, True]
    caption = describe_figure(scored)
    assert "2 of 6 designs have runs; the interval of 1 of them contains" in caption
    assert (
        f"The largest error is {format_change(second.loss / 9.1 - 1)} ({second.design})" in caption
    )


def test_interval_without_a_limit_ends_at_the_frame_of_the_figure(record: ForecastRecord) -> None:
    first, *others = record.designs
    open_ended = first.model_copy(update={"low": 0.0, "high": math.inf})
    (scored,) = score(
        StoreForecasts(records=(record.model_copy(update={"designs": [open_ended, *others]}),))
    )
    (axes,) = plot_forecast(scored).axes
    rank = scored.record.ranked.index(open_ended)
    (segment,) = axes.containers[rank][2][0].get_segments()
    assert tuple(segment[:, 1]) == pytest.approx(axes.get_ylim())
    assert "ends at the frame. No design has a run" in describe_figure(scored)


def test_section_exists_only_for_sweeps_with_forecasts_or_back_tests(
    record: ForecastRecord,
) -> None:
    one_budget = scaling_frames(
        follow_law(), compare={"encoder.size": SIZES[1:4], "budget.amount": BUDGETS[:1]}
    )
    assert build_section(one_budget, StoreForecasts()) is None
    other = record.model_copy(update={"sweep": "other"})
    assert build_section(one_budget, StoreForecasts(records=(other,))) is None
    found = build_section(one_budget, StoreForecasts(problems=("forecasts/a.json: damaged",)))
    assert found is not None
    assert found.notes == ("Not used: forecasts/a.json: damaged.",)
    assert (found.figures, found.tables, found.files) == ((), (), {})
