"""The trend of the optimal learning rate over size, horizon and batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lab.errors import UserError
from lab.reporting.scaling.end_points import EndPoint, RunGroup
from lab.scaling.rate_trend import RateOptimum, RateTrend, best_rate, fit_rate_trend

PARAMETERS, TOKENS, BATCH = "parameters", "tokens", "batch"


@dataclass(frozen=True, kw_only=True)
class RateRefusal:
    """Optimal learning rates without a trend.

    Attributes:
        optima: the optimum of each size, horizon and batch at which several rates were run.
        reason: why there is no trend, in words.
    """

    optima: tuple[RateOptimum, ...]
    reason: str


def analyze_rates(groups: Sequence[RunGroup], level: float = 0.9) -> RateTrend | RateRefusal | None:
    """Fit the trend of the optimal rates of groups; None if no learning rate was varied.

    The predictors are N, and, where the optima determine their exponents, the tokens of the run
    and the tokens of a step.

    Args:
        groups: groups that differ in the batch only.
        level: nominal coverage of the intervals.
    """
    optima = tuple(optimum for group in groups for optimum in _find_optima(group.rated))
    if not optima:
        return None
    names = _determined([optimum for optimum in optima if not optimum.problem])
    try:
        return fit_rate_trend(optima, names, level)
    except UserError as error:
        return RateRefusal(optima=optima, reason=str(error))


def _find_optima(rated: Sequence[EndPoint]) -> list[RateOptimum]:
    """Return the optimum of each size, budget and batch with more than one learning rate."""
    by_corner: dict[tuple[float, float, float], list[EndPoint]] = {}
    for end in rated:
        corner = end.run.parameters, end.run.budget, end.step_tokens
        by_corner.setdefault(corner, []).append(end)
    found = []
    for (parameters, _, batch), ends in by_corner.items():
        rates = np.array([end.rate for end in ends])
        if len(np.unique(rates)) < 2:
            continue
        losses = np.array([np.nan if end.run.diverged else end.run.loss for end in ends])
        tokens = float(np.nanmax([end.run.tokens for end in ends]))  # a diverged run ends early
        predictors = {PARAMETERS: parameters, TOKENS: tokens, BATCH: batch}
        found.append(best_rate(predictors, rates, losses))
    return found


def _determined(optima: Sequence[RateOptimum]) -> list[str]:
    """Return the predictors whose exponents the optima determine, N first, with one to spare."""
    names = [PARAMETERS]
    for name in (TOKENS, BATCH):
        tried = [*names, name]
        logs = np.log([[optimum.predictors[each] for each in tried] for optimum in optima])
        if len(logs) < len(tried) + 2:
            continue
        centered = logs - logs.mean(axis=0)
        if np.linalg.matrix_rank(centered, tol=0.1) == len(tried):
            names = tried
    return names
