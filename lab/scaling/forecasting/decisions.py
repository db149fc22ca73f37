"""Decision accuracy: how often the order of two settings is foreseen.

Magnusson et al. (2025, DataDecide, arXiv 2504.11393). Only pairs that are separable at the target
count: on others, every forecast is right half of the time. Losses: smaller is better.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from lab.scaling.runs import Floats

Scores = Mapping[str, Floats]  # losses of the seeds of each setting

_SEPARABLE = 0.95


@dataclass(frozen=True, kw_only=True)
class DecisionAccuracy:
    """Share of separable pairs whose order was foreseen.

    Attributes:
        right: number of pairs with the right order.
        pairs: number of separable pairs.
        low: lower end of the interval; 0 without pairs.
        high: upper end of the interval; 1 without pairs.
        level: nominal coverage.
    """

    right: int
    pairs: int
    low: float
    high: float
    level: float

    @property
    def share(self) -> float:
        """Share of right pairs; NaN without pairs."""
        return self.right / self.pairs if self.pairs else math.nan


def separable_pairs(scores: Scores) -> tuple[tuple[str, str], ...]:
    """Return the pairs (better, worse) whose means differ in a Welch test at the 5 % level.

    Settings with fewer than two seeds are in no pair.
    """
    found = []
    for one, other in itertools.combinations(scores, 2):
        if min(len(scores[one]), len(scores[other])) < 2:
            continue
        gap = float(np.mean(scores[one]) - np.mean(scores[other]))
        if _p_value(scores[one], scores[other]) < 1 - _SEPARABLE:
            found.append((one, other) if gap < 0 else (other, one))
    return tuple(found)


def _p_value(one: Floats, other: Floats) -> float:
    if np.ptp(one) == np.ptp(other) == 0:
        return float(one[0] == other[0])
    return float(stats.ttest_ind(one, other, equal_var=False).pvalue)


def decision_accuracy(
    predicted: Mapping[str, float], observed: Scores, level: float = 0.9
) -> DecisionAccuracy:
    """Return how many separable pairs of the target have the predicted order.

    Pairs that share a setting are not independent: of s settings, at most s - 1 comparisons are.
    The interval is that of Wilson (1927) with this number of trials, if it is smaller than that of
    pairs.

    Args:
        predicted: predicted losses of the settings; equal ones count as wrong.
        observed: losses of the seeds at the target; settings without a prediction are left out.
        level: nominal coverage.
    """
    pairs = separable_pairs({name: observed[name] for name in observed if name in predicted})
    right = sum(predicted[better] < predicted[worse] for better, worse in pairs)
    if not pairs:
        return DecisionAccuracy(right=0, pairs=0, low=0.0, high=1.0, level=level)
    settings = len(set(itertools.chain.from_iterable(pairs)))
    low, high = wilson_interval(right / len(pairs), min(len(pairs), settings - 1), level)
    return DecisionAccuracy(right=right, pairs=len(pairs), low=low, high=high, level=level)


def wilson_interval(share: float, trials: float, level: float) -> tuple[float, float]:
    """Return the score interval of Wilson (1927) for a share of independent trials."""
    z = float(stats.norm.ppf((1 + level) / 2))
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    spread = math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    half = z * spread / (1 + z**2 / trials)
    return max(0.0, middle - half), min(1.0, middle + half)


def regret(predicted: Mapping[str, float], observed: Scores) -> float:
    """Return the loss of the setting that is predicted to be best minus the smallest loss.

    NaN if no setting was both predicted and observed.
    """
    means = {name: float(np.mean(losses)) for name, losses in observed.items()}
    names = [name for name in predicted if name in means]
    if not names:
        return math.nan
    return means[min(names, key=lambda name: predicted[name])] - min(means.values())
