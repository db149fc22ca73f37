"""Make the forecast of a sweep's designs at a larger budget."""

from collections.abc import Iterable
from statistics import median_low

import numpy as np

from lab import __version__
from lab.config.code_digest import code_digest
from lab.errors import UserError
from lab.reporting.compute.learning_curves import BUDGET
from lab.reporting.forecasts.designs import (
    MODEL,
    DesignEnd,
    SweepDesigns,
    has_settings,
    read_designs,
)
from lab.reporting.forecasts.record import (
    DesignRecord,
    ExcludedTrial,
    FittedTrial,
    ForecastRecord,
    Ranking,
)
from lab.reporting.scaling.parameter_counts import BLOCKS
from lab.scaling.extrapolation import check_extrapolation
from lab.scaling.forecasting.designs import (
    LawKind,
    RungForecast,
    choose_law,
    forecast_designs,
    rank_at,
    ranking_budget,
)
from lab.scaling.predictions import LEVEL
from lab.storage.trained_trials import TrainedTrial
from lab.tracking import tags
from lab.tracking.frames import SweepFrames
from lab.tracking.parameters import flatten_settings, parse_setting
from lab.tracking.spent_flops import FoundTrial

_OPTION = "--budget"
_CODE = ("scaling",)


def make_forecast(
    frames: SweepFrames, budget: float, written: str, law: LawKind | None = None
) -> ForecastRecord:
    """Return the forecast of each design of a sweep.

    Args:
        frames: frames of the sweep, which has ended.
        budget: FLOPs.
        written: present time, UTC, as in ISO 8601.
        law: kind of the laws; None chooses it by the number of sizes.

    Raises:
        UserError: the sweep has not ended or has no loss to forecast, or the budget is not larger
            than the largest one that was run or is more than 30 times as large.
        FitError: a law cannot be fitted.
    """
    if frames.sweep[tags.STATE] != "finished":
        raise UserError(
            f"{frames.name}: its sweep is {frames.sweep[tags.STATE]}; a forecast needs a finished "
            "sweep, so run the same lab.sweep command again first"
        )
    found = read_designs(frames)
    if found.metric is None or not found.designs:
        raise UserError(
            f"{frames.name}: has no runs to which a law can be fitted; it must compare sizes and "
            f"budgets in FLOPs, and have a held-out loss{_list_reasons(found.ends)}"
        )
    factor = _check_budget(frames, found, budget)
    kind = law or choose_law(found.designs)
    rung = forecast_designs(found.designs, budget, kind)
    at = ranking_budget(found.designs, budget)
    return ForecastRecord(
        written=written,
        sweep=frames.name,
        storage=frames.sweep.get(tags.STORAGE, ""),
        budget=budget,
        factor=factor,
        metric=found.metric.name,
        size=BLOCKS,
        law=kind,
        level=LEVEL,
        seeds=_count_seeds(found),
        laws=rung.laws,
        designs=_design_records(found, rung),
        baseline=Ranking(budget=at, losses=rank_at(found.designs, at)),
        trials=[_fitted(end) for end in found.fitted],
        excluded=[
            ExcludedTrial(fingerprint=end.fingerprint, reason=end.exclusion)
            for end in found.ends
            if end.exclusion
        ],
        warnings=list(rung.warnings),
        code=code_digest(_CODE),
        version=__version__,
        trial_codes=[version.code for version in frames.codes],
    )


def check_untrained(
    record: ForecastRecord, found: Iterable[FoundTrial], trained: Iterable[TrainedTrial]
) -> None:
    """Check that no design of a forecast has been trained at its budget or at a larger one.

    Args:
        record: the forecast.
        found: trials of the tracking store that have spent such a budget.
        trained: trials of the storage that are trained for such a budget.

    Raises:
        UserError: there is such a trial; the message names the first one.
    """
    candidates = [
        *((f"trial {each.fingerprint} of {each.sweep}", each.settings) for each in found),
        *(
            (f"trial {each.name}", {path: parse_setting(text) for path, text in flat.items()})
            for each in trained
            for flat in [flatten_settings(each.settings)]
        ),
    ]
    for trial, settings in candidates:
        for design in record.designs:
            if has_settings(design.settings, settings, MODEL):
                raise UserError(
                    f"{_OPTION} {record.budget:g}: {trial} has already been trained for this "
                    f"budget or a larger one with the design {design.design}; a forecast must be "
                    "written before"
                )


def _check_budget(frames: SweepFrames, found: SweepDesigns, budget: float) -> float:
    """Return how many times larger a budget is than the largest one that was fitted."""
    fitted = np.array([end.run.budget for end in found.fitted], dtype=float)
    factor = check_extrapolation(budget, fitted, _OPTION)
    largest = float(frames.trials[BUDGET].max())
    if not budget > largest * (1 + 1e-9):
        raise UserError(
            f"{_OPTION}: {budget:g} FLOPs; must be larger than the largest budget of "
            f"{frames.name}, {largest:g}"
        )
    return factor


def _list_reasons(ends: Iterable[DesignEnd]) -> str:
    reasons = sorted({end.exclusion for end in ends})
    return f"; its end points are excluded: {'; '.join(reasons[:3])}" if reasons else ""


def _count_seeds(found: SweepDesigns) -> int:
    """Return the number of runs that most designs have at their largest budget."""
    return median_low([len(design.losses_at(design.budgets[-1])) for design in found.designs])


def _design_records(found: SweepDesigns, rung: RungForecast) -> list[DesignRecord]:
    groups = {design.name: design.group for design in found.designs}
    return [
        DesignRecord(
            design=each.design,
            group=groups[each.design],
            settings=dict(found.settings[each.design]),
            parameters=each.parameters,
            tokens=each.tokens,
            epochs=each.epochs,
            loss=each.prediction.loss,
            low=each.prediction.low,
            high=each.prediction.high,
            noise=each.prediction.noise,
        )
        for each in rung.designs
    ]


def _fitted(end: DesignEnd) -> FittedTrial:
    return FittedTrial(
        fingerprint=end.fingerprint,
        design=end.design,
        parameters=end.run.parameters,
        tokens=end.run.tokens,
        budget=end.run.budget,
        loss=end.run.loss,
    )
