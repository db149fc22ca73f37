"""Score forecasts by the runs at their budgets."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lab.reporting.forecasts.observed import ObservedRun, StoreForecasts
from lab.reporting.forecasts.record import DesignRecord, ForecastRecord
from lab.scaling.forecasting.designs import as_forecast
from lab.scaling.forecasting.scoring import (
    Calibration,
    ForecastError,
    ForecastReport,
    calibrate,
    score_forecasts,
)


@dataclass(frozen=True, kw_only=True)
class ScoredForecast:
    """A forecast and its scores.

    Attributes:
        record: the forecast.
        report: its scores; None while none of its designs has a run that counts.
        excluded: runs at its budget that do not count.
    """

    record: ForecastRecord
    report: ForecastReport | None
    excluded: tuple[ObservedRun, ...]

    @property
    def errors(self) -> dict[str, ForecastError]:
        """What happened to each design that has runs, by label."""
        errors = () if self.report is None else self.report.errors
        return {error.forecast.setting: error for error in errors}

    def runs(self, design: DesignRecord) -> int:
        """Return the number of runs of a design; before there are any, as many as are assumed."""
        error = self.errors.get(design.design)
        return self.record.seeds if error is None else error.forecast.seeds

    def ends(self, design: DesignRecord) -> tuple[float, float]:
        """Return the ends of the interval of the mean of a design's runs.

        The lower end is 0, or the upper one infinite, if it is not limited.
        """
        return self.record.prediction(design).mean_ends(self.runs(design))


def score(stored: StoreForecasts) -> tuple[ScoredForecast, ...]:
    """Return all forecasts of a store with their scores, by time."""
    return tuple(score_one(record, stored.runs) for record in stored.records)


def calibrate_store(scored: Iterable[ScoredForecast]) -> Calibration | None:
    """Return the coverage of the intervals of all scored forecasts; None without scores."""
    by_law: list[list[ForecastError]] = []
    for forecast in scored:
        groups: dict[str, list[ForecastError]] = {}
        for design in forecast.record.designs:
            law = design.group if forecast.record.law == "size_and_data" else design.design
            if design.design in forecast.errors:
                groups.setdefault(law, []).append(forecast.errors[design.design])
        by_law += groups.values()
    return calibrate(by_law)


def score_one(record: ForecastRecord, runs: Iterable[ObservedRun]) -> ScoredForecast:
    """Return a forecast with its scores by those of `runs` that are runs of it."""
    own = [run for run in runs if run.forecast == record.name]
    losses: dict[str, list[float]] = {}
    for run in own:
        if not run.exclusion:
            losses.setdefault(run.design, []).append(run.loss)
    observed = {name: np.array(values, dtype=float) for name, values in losses.items()}
    made = [
        as_forecast(each.design, record.budget, record.prediction(each), len(observed[each.design]))
        for each in record.designs
        if each.design in observed
    ]
    return ScoredForecast(
        record=record,
        report=score_forecasts(made, observed, record.baseline.losses) if made else None,
        excluded=tuple(run for run in own if run.exclusion),
    )
