"""Read the evidence for an advice from the frames of sweeps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lab.advice.evidence import Evidence
from lab.advice.stored_rates import read_rates
from lab.advice.stored_trials import StoredTrials
from lab.config.architecture import SIZES
from lab.config.budget import Budget
from lab.config.trial import Seeds, Trial
from lab.errors import UserError
from lab.reporting.scaling.analysis import FittedGroup, RefusedGroup, analyze_group
from lab.reporting.scaling.end_points import EndPoint, RunGroup, group_end_points
from lab.tracking.frames import SweepFrames


@dataclass(frozen=True, kw_only=True)
class Sweeps:
    """Frames of the sweeps that an advice is from.

    Attributes:
        law: the sweep with the law; then sweeps whose runs are added to it.
        group: compared settings of the runs, as in the report; None if only one group of runs has a
            law.
        rates: the sweep that tunes the learning rate; None for the first one of `law`.
    """

    law: Sequence[SweepFrames]
    group: str | None = None
    rates: SweepFrames | None = None


def read_evidence(sweeps: Sweeps) -> Evidence:
    """Return the runs and the law of sweeps, and the trend of the best learning rate.

    Raises:
        UserError: no law can be fitted to the runs, several groups of runs have one, added runs
            differ in other settings, or `rates` determines no trend.
    """
    first, *more = sweeps.law
    stored = [StoredTrials(frames) for frames in sweeps.law]
    groups = _select_groups(first, sweeps.group)
    for number, frames in enumerate(more, start=1):
        groups = [_add_runs(group, stored[0], frames, stored[number]) for group in groups]
    fitted = _select_fitted(first.name, [analyze_group(group) for group in groups])
    found = [_find(end, stored) for end in fitted.ends]
    law = tuple(trials.build(end.number) for end, trials in found)
    tuned = first if sweeps.rates is None else sweeps.rates
    rates = read_rates(tuned, fitted.group.settings, law[0].objective.kind)
    if sweeps.rates is not None and isinstance(rates, str):
        raise UserError(f"--rates {tuned.name}: {rates}")
    name, label = " + ".join(frames.name for frames in sweeps.law), fitted.group.label
    return Evidence(
        sweep=f"{name} ({label})" if label else name,
        metric=fitted.group.metric.name,
        fit=fitted.fit,
        test_set=fitted.test_set,
        trials=law,
        rates=None if isinstance(rates, str) else rates,
        rate_problem=rates if isinstance(rates, str) else "",
        timings=tuple(trials.timing(end) for end, trials in found if trials.is_timed(end)),
        epoch_tokens=_epoch_tokens(fitted.ends),
        rate_config=stored[0].rate_config,
        warnings=fitted.warnings,
    )


def _select_groups(frames: SweepFrames, label: str | None) -> list[RunGroup]:
    groups = group_end_points(frames)
    named = [group for group in groups if label in (None, group.label)]
    if groups and not named:
        labels = ", ".join(repr(group.label) for group in groups)
        raise UserError(f"--group {label}: {frames.name} has no such runs; must be one of {labels}")
    return named


def _add_runs(
    group: RunGroup, own: StoredTrials, frames: SweepFrames, added: StoredTrials
) -> RunGroup:
    """Return a group with the end points of another sweep.

    Raises:
        UserError: the other sweep has none, or they differ in other settings than size, budget,
            learning rate and seeds, or in the metric.
    """
    others = group_end_points(frames)
    ends = [end for other in others if other.metric == group.metric for end in other.ends]
    allowed = {_comparable(own.build(end.number)) for end in group.ends}  # may depend on the size
    if not ends or not {_comparable(added.build(end.number)) for end in ends} <= allowed:
        raise UserError(
            f"--sweep {frames.name}: its runs must have the metric {group.metric.name} and differ "
            f"from those of {own.name} in size, budget, learning rate and seeds only"
        )
    named = (replace(end, run=replace(end.run, name=added.run_name(end))) for end in ends)
    return replace(group, ends=(*group.ends, *named))


def _comparable(trial: Trial) -> Trial:
    """Return a trial without the settings in which the runs of a law differ."""
    return replace(
        trial,
        encoder=replace(SIZES["nano"], parametrization=trial.encoder.parametrization),
        optim=replace(trial.optim, lr=1.0),
        budget=Budget(kind=trial.budget.kind, amount=1.0),
        seeds=Seeds(),
        evaluations=1,
    )


def _find(end: EndPoint, stored: Sequence[StoredTrials]) -> tuple[EndPoint, StoredTrials]:
    """Return an end point with the trials of its sweep."""
    return end, next((one for one in stored if one.run_name(end) == end.run.name), stored[0])


def _select_fitted(sweep: str, groups: Sequence[FittedGroup | RefusedGroup]) -> FittedGroup:
    """Return the only group with a law.

    Raises:
        UserError: no group has a law, or several have one.
    """
    fitted = [one for one in groups if isinstance(one, FittedGroup)]
    if len(fitted) == 1:
        return fitted[0]
    if fitted:
        labels = ", ".join(repr(one.group.label) for one in fitted)
        raise UserError(f"{sweep}: has several laws; choose one by --group: {labels}")
    reasons = [one.reason for one in groups if isinstance(one, RefusedGroup)]
    reason = reasons[0] if reasons else "it has no runs with a held-out loss and budgets in FLOPs"
    raise UserError(f"{sweep}: no law of size and tokens: {reason}")


def _epoch_tokens(ends: tuple[EndPoint, ...]) -> float | None:
    known = [end.run.tokens / end.run.epochs for end in ends if end.run.epochs]
    return max(known) if known else None
