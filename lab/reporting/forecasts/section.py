"""The section of a report on forecasts, and its CSV files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from lab.reporting.compute.learning_curves import BUDGET
from lab.reporting.figures import svg
from lab.reporting.figures.figure import Figure
from lab.reporting.figures.forecast_plots import plot_forecast
from lab.reporting.forecasts import tables
from lab.reporting.forecasts.designs import read_designs
from lab.reporting.forecasts.observed import StoreForecasts
from lab.reporting.forecasts.scored import ScoredForecast, calibrate_store, score
from lab.reporting.tables import Table
from lab.scaling.forecasting.back_tests import RungTest, leave_one_rung_out
from lab.scaling.forecasting.designs import choose_law
from lab.tracking.frames import SweepFrames

_FORECASTS, _BACK_TESTS = "forecasts.csv", "back_tests.csv"
_FEWEST_BUDGETS = 4  # of a back-test: a curve over the others needs three


@dataclass(frozen=True, kw_only=True)
class ForecastSection:
    """What a report says about forecasts.

    Attributes:
        notes: sentences above figures and tables.
        figures: a figure for each forecast of the sweep.
        tables: a table for each forecast of the sweep, then that of the back-tests.
        files: contents of CSV files, by name.
    """

    notes: tuple[str, ...]
    figures: tuple[Figure, ...]
    tables: tuple[Table, ...]
    files: dict[str, pd.DataFrame]


def build_section(frames: SweepFrames, stored: StoreForecasts) -> ForecastSection | None:
    """Return the section on forecasts; None without a forecast or a back-test of the sweep.

    Args:
        frames: frames of the sweep.
        stored: forecasts of the store, with the runs by which they are scored.
    """
    scored = score(stored)
    own = [each for each in scored if each.record.sweep == frames.name]
    tests = _back_test(frames)
    if not own and not tests and not stored.problems:
        return None
    found = [tables.forecast_table(each) for each in own]
    files = {_FORECASTS: pd.DataFrame(_forecast_rows(own))} if own else {}
    if tests:
        found.append(tables.back_test_table(tests))
        files[_BACK_TESTS] = pd.DataFrame(_test_rows(tests))
    notes = [f"Not used: {problem}." for problem in stored.problems]
    if scored:
        notes.append(tables.describe_calibration(calibrate_store(scored)))
    return ForecastSection(
        notes=tuple(notes), figures=tuple(_draw(own)), tables=tuple(found), files=files
    )


def _draw(forecasts: Sequence[ScoredForecast]) -> Iterator[Figure]:
    for number, scored in enumerate(forecasts, start=1):
        yield Figure(
            name=f"forecast-{number}",
            title="Forecast and observed loss",
            caption=tables.describe_figure(scored),
            files=(_FORECASTS,),
            svg=svg.render_svg(plot_forecast(scored)),
        )


def _back_test(frames: SweepFrames) -> tuple[RungTest, ...]:
    if len(frames.compare.get(BUDGET, ())) < _FEWEST_BUDGETS:
        return ()
    designs = read_designs(frames).designs
    if max((len(design.budgets) for design in designs), default=0) < _FEWEST_BUDGETS:
        return ()
    return leave_one_rung_out(designs, choose_law(designs))


def _forecast_rows(forecasts: Sequence[ScoredForecast]) -> Iterator[dict[str, object]]:
    for scored in forecasts:
        record = scored.record
        for rank, design in enumerate(record.ranked, start=1):
            error = scored.errors.get(design.design)
            low, high = scored.ends(design)
            yield {
                "forecast": record.name,
                "written": record.written,
                "budget": record.budget,
                "factor": record.factor,
                "metric": record.metric,
                "law": record.law,
                "rank": rank,
                "design": design.design,
                "parameters": design.parameters,
                "tokens": design.tokens,
                "loss": design.loss,
                "level": record.level,
                "runs": scored.runs(design),
                "low": low,
                "high": high,
                "loss_low": design.low,
                "loss_high": design.high,
                "baseline_budget": record.baseline.budget,
                "baseline_loss": record.baseline.losses.get(design.design),
                "observed": None if error is None else error.observed,
                "covered": None if error is None else error.covered,
            }


def _test_rows(tests: Sequence[RungTest]) -> Iterator[dict[str, object]]:
    for test in tests:
        others = " ".join(f"{budget:g}" for budget in test.others)
        if test.report is None:
            yield {"budget": test.budget, "from": others, "problem": test.problem}
            continue
        for error in test.report.errors:
            yield {
                "budget": test.budget,
                "from": others,
                "problem": "",
                "design": error.forecast.setting,
                "loss": error.forecast.value,
                "low": error.forecast.low,
                "high": error.forecast.high,
                "runs": error.forecast.seeds,
                "observed": error.observed,
                "covered": error.covered,
            }
