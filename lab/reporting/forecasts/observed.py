"""Read the forecasts of a store, and the runs at their budgets that have arrived since."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path as File

from pydantic import BaseModel, ConfigDict

from lab.reporting.forecasts.designs import DesignEnd, has_settings, read_designs
from lab.reporting.forecasts.record import ForecastRecord, parse_records
from lab.storage.forecasts import read_forecasts
from lab.storage.mirror import Mirror
from lab.tracking.frames import FramesError, SweepFrames, load_frames
from lab.tracking.spent_flops import FoundTrial, find_trials

TOLERANCE = 0.01  # of a budget; a trial spends its budget within 1 %


class ObservedRun(BaseModel):
    """A trial of a forecast design at the forecast budget.

    Attributes:
        forecast: name of the forecast.
        design: label of the design.
        sweep: name of the trial's sweep.
        fingerprint: fingerprint of the trial.
        loss: final value of the forecast's metric; NaN without one.
        exclusion: why the run is not counted; empty if it is.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    forecast: str
    design: str
    sweep: str
    fingerprint: str
    loss: float
    exclusion: str


@dataclass(frozen=True, kw_only=True)
class StoreForecasts:
    """The forecasts of a store, with the runs by which they are scored.

    Attributes:
        records: forecasts of all sweeps, by time.
        runs: runs at the budgets of the forecasts.
        problems: messages about files that are not used.
    """

    records: tuple[ForecastRecord, ...] = ()
    runs: tuple[ObservedRun, ...] = ()
    problems: tuple[str, ...] = ()


NO_FORECASTS = StoreForecasts()


def load_forecasts(storage: File, mirror: Mirror, uri: str) -> StoreForecasts:
    """Return the forecasts of a storage, with the runs that the tracking store has for them.

    Args:
        storage: local folder of the storage.
        mirror: synchronization of `storage` with a remote storage.
        uri: URI of the tracking store.

    Raises:
        StoreError: the tracking store cannot be read.
    """
    records, problems = parse_records(read_forecasts(storage, mirror))
    found = observe_runs(records, uri)
    return replace(found, problems=tuple(problems.values()))


def observe_runs(records: Sequence[ForecastRecord], uri: str) -> StoreForecasts:
    """Return forecasts with the runs of their designs at their budgets, from all sweeps.

    Args:
        records: the forecasts.
        uri: URI of the tracking store.

    Raises:
        StoreError: the tracking store cannot be read.
    """
    sweeps: dict[str, SweepFrames | None] = {}
    runs = [run for record in records for run in _read_runs(record, uri, sweeps)]
    return StoreForecasts(records=tuple(records), runs=tuple(runs))


def _read_runs(
    record: ForecastRecord, uri: str, sweeps: dict[str, SweepFrames | None]
) -> Iterator[ObservedRun]:
    """Yield the runs of a forecast.

    Args:
        record: the forecast.
        uri: URI of the tracking store.
        sweeps: frames by the id of the sweep's run, extended in place.
    """
    ends = (record.budget * (1 + sign * TOLERANCE) for sign in (-1, 1))
    matched = {
        trial.fingerprint: (design.design, trial)
        for trial in find_trials(uri, *ends)
        for design in record.designs
        if has_settings(design.settings, trial.settings)
    }
    for trial in {each.sweep_run: each for _, each in matched.values()}.values():
        if trial.sweep_run not in sweeps:
            sweeps[trial.sweep_run] = _load(uri, trial)
        for end in _read_ends(sweeps[trial.sweep_run], record.metric):
            design, found = matched.get(end.fingerprint, ("", None))
            if found is not None and found.sweep_run == trial.sweep_run:
                yield _observe(record, design, found, end)


def _load(uri: str, trial: FoundTrial) -> SweepFrames | None:
    """Return the frames of a trial's sweep; None if another program has deleted its run."""
    try:
        return load_frames(uri, trial.sweep, run_id=trial.sweep_run)
    except FramesError:
        return None


def _read_ends(frames: SweepFrames | None, metric: str) -> tuple[DesignEnd, ...]:
    if frames is None or metric not in frames.trials:
        return ()
    return read_designs(frames.rank_by(metric)).ends


def _observe(record: ForecastRecord, design: str, trial: FoundTrial, end: DesignEnd) -> ObservedRun:
    written = datetime.fromisoformat(record.written).timestamp()
    exclusion = end.exclusion
    if not trial.began >= written:  # NaN: the time is unknown
        exclusion = "began before the forecast was written"
    return ObservedRun(
        forecast=record.name,
        design=design,
        sweep=trial.sweep,
        fingerprint=end.fingerprint,
        loss=end.run.loss,
        exclusion=exclusion,
    )
