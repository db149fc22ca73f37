"""Sentences about a fitted law, computed from it: its runs, the decision, warnings."""

import math

import numpy as np

from lab.reporting.scaling.analysis import LEVEL, FittedGroup
from lab.reporting.scaling.estimates import (
    UNLIMITED,
    format_estimate,
    format_flops,
    format_share,
)

_QUANTILES = 1.645 + 0.842  # normal quantiles of a two-sided 90 % test and of a power of 80 %
_MOST_SEEDS = 1_000


def describe_fit(fitted: FittedGroup) -> str:
    """Return the numbers of runs and the agreement of the law with them."""
    sizes = len({end.run.parameters for end in fitted.ends})
    budgets = len({end.run.budget for end in fitted.ends})
    fit = fitted.fit
    return (
        f"The law is fitted to {len(fitted.ends)} runs of {sizes} sizes at {budgets} budgets, on "
        f"{fitted.group.metric.name}. The robust standard deviation of the residuals is "
        f"{format_share(fit.deviation)} of the loss; it contains the noise between seeds and the "
        f"error of the law. {fit.agreeing} of {fit.starts} starts of the search ended at this law."
    )


def describe_decision(fitted: FittedGroup) -> str:
    """Return the decision at the largest budget that was run."""
    optimum = next(each for each in reversed(fitted.optima) if not each.extrapolated)
    size = format_estimate(optimum.size)
    known = "the runs do not limit the optimal size" if size == UNLIMITED else f"optimal N: {size}"
    shapes = {end.run.parameters: end.shape for end in fitted.ends}
    best, *others = optimum.decided
    verdict = (
        f"by the law, {shapes[best.parameters]} is the best of the sizes that were run in "
        f"{best.share:.0%} of the resamples"
    )
    if others:
        names = " and ".join(shapes[each.parameters] for each in others)
        verdict += (
            f", and {names} cannot be ruled out at {LEVEL:.0%}"
            f"{_describe_seeds(fitted, optimum.budget, best.parameters, others[0].parameters)}"
        )
    return f"At {format_flops(optimum.budget)}, {known}; {verdict}."


def describe_profiles(fitted: FittedGroup) -> str:
    """Return the caption of the IsoFLOP profiles: how the optimal size moves over the budgets."""
    run = [optimum for optimum in fitted.optima if not optimum.extrapolated]
    first, last = run[0], run[-1]
    ends = " and ".join(
        f"{format_estimate(each.size)} at {format_flops(each.budget)}" for each in (first, last)
    )
    return (
        f"Loss over size at equal FLOPs. The optimal N by the law is {ends} ({LEVEL:.0%} "
        f"intervals). Lines are the law, dashed lines are parabolas, diamonds are the optima of "
        f"the law."
    )


def _describe_seeds(fitted: FittedGroup, budget: float, one: float, other: float) -> str:
    """Return how many seeds would separate two sizes whose losses differ as the law says."""
    sizes = np.array([one, other])
    losses = fitted.fit.law.loss(sizes, budget / fitted.per_token(sizes))
    gap = abs(float(np.log(losses[0] / losses[1])))
    seeds = 2 * (_QUANTILES * fitted.fit.deviation / gap) ** 2 if gap else math.inf
    if seeds > _MOST_SEEDS:
        return (
            f"; by the law, the first two differ by {format_share(gap)} of the loss, for which "
            f"more than {_MOST_SEEDS:,} seeds of each would be needed"
        )
    count = max(2, math.ceil(seeds))
    cost = format_flops(2 * count * budget)
    return (
        f"; by the law, the first two differ by {format_share(gap)} of the loss, for which "
        f"{count} seeds of each, {cost}, would be needed"
    )
