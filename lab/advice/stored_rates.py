"""The trend of the best learning rate of a stored sweep."""

from collections.abc import Hashable, Mapping

from lab.advice.evidence import RateEvidence
from lab.advice.stored_trials import StoredTrials
from lab.config.trial import Path
from lab.reporting.scaling.end_points import group_end_points
from lab.reporting.scaling.rates import PARAMETERS, TOKENS, analyze_rates
from lab.scaling.rate_trend import RateTrend
from lab.tracking.frames import SweepFrames


def read_rates(
    frames: SweepFrames, settings: Mapping[Path, Hashable], objective: str
) -> RateEvidence | str:
    """Return the trend of the best learning rate of a sweep.

    Args:
        frames: frames of the sweep.
        settings: compared settings that the runs must have, besides the batch.
        objective: kind of the objective that they must have.

    Returns:
        The trend, or the reason why there is none, in words.
    """
    shared = _without_batch(settings)
    groups = [g for g in group_end_points(frames) if _without_batch(g.settings) == shared]
    rated = [end for group in groups for end in group.rated]
    trials = StoredTrials(frames)
    kinds = {trials.build(end.number).objective.kind for end in rated}
    if kinds - {objective}:
        return f"its objective is {', '.join(sorted(kinds))}, and that of the law is {objective}"
    found = analyze_rates(groups)
    if not isinstance(found, RateTrend):
        return "the learning rate was not varied" if found is None else found.reason
    used = {(o.predictors[PARAMETERS], o.predictors[TOKENS]) for o in found.optima if not o.problem}
    budgets = [e.run.budget for e in rated if (e.run.parameters, e.run.tokens) in used]
    return RateEvidence(sweep=frames.name, trend=found, largest_budget=max(budgets))


def _without_batch(settings: Mapping[Path, Hashable]) -> dict[Path, Hashable]:
    return {path: value for path, value in settings.items() if path != "batch"}
