"""The optimal learning rate over size, horizon and batch: a power law of the optima.

As in Porian et al. (2024, arXiv 2406.19146) and Step Law (2025, arXiv 2503.04715). The optimum of
each group of runs is the vertex of a parabola of log loss over log rate; the log optima are a
linear function of the logarithms of the predictors. Rates that were tuned at the smallest size only
put exponents of a law off by more than any method of fitting does.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lab.errors import UserError
from lab.scaling.least_squares import LinearFit, fit_linear
from lab.scaling.profiles import Estimate
from lab.scaling.runs import Floats

FEWEST_SIZES = 3
_FEWEST_RATES = 3
_LARGEST_LOG = 700.0  # of a number that a float can hold


@dataclass(frozen=True, kw_only=True)
class RateOptimum:
    """The best learning rate of one combination of predictors.

    Attributes:
        predictors: values such as {"parameters": N, "tokens": D, "batch": b}; positive.
        rate: best learning rate.
        problem: why the optimum is not used: too few rates, no minimum, or a minimum at the edge of
            the range; empty if it is used.
    """

    predictors: Mapping[str, float]
    rate: float
    problem: str


@dataclass(frozen=True, kw_only=True)
class RateTrend:
    """log rate = constant + sum of exponents times log(predictor / its mean).

    Attributes:
        names: names of the predictors.
        centers: geometric means of the predictors.
        fit: coefficients: the constant, then the exponents.
        optima: all optima, those that are not used too.
        level: nominal coverage of the intervals.
    """

    names: tuple[str, ...]
    centers: tuple[float, ...]
    fit: LinearFit
    optima: tuple[RateOptimum, ...]
    level: float

    def exponent(self, name: str) -> Estimate:
        """Return the exponent of a predictor with its interval."""
        index = 1 + self.names.index(name)
        row = np.eye(1 + len(self.names))[index]
        half = self.fit.half_width(row, self.level, new=False)
        value = float(self.fit.coefficients_q[index])
        return Estimate(value=value, low=value - half, high=value + half, level=self.level)

    def rate(self, **predictors: float) -> Estimate:
        """Return the optimal rate at values of all predictors with the interval of an optimum."""
        if set(predictors) != set(self.names):
            raise UserError(f"learning rate: needs {', '.join(self.names)}")
        values = [predictors[name] / c for name, c in zip(self.names, self.centers, strict=True)]
        row = np.array([1.0, *map(math.log, values)])
        log, half = (
            float(row @ self.fit.coefficients_q),
            self.fit.half_width(row, self.level, new=True),
        )
        high = math.exp(log + half) if log + half < _LARGEST_LOG else math.inf
        ends = [math.exp(log - half), high]
        return Estimate(value=math.exp(log), low=ends[0], high=ends[1], level=self.level)


def best_rate(predictors: Mapping[str, float], rates_n: Floats, losses_n: Floats) -> RateOptimum:
    """Return the vertex of a parabola of log loss over log rate.

    The parabola is that of the best rate and its neighbours, at least five rates where there are
    so many: further from the optimum, losses rise more steeply than a parabola.

    Args:
        predictors: values of the predictors of these runs.
        rates_n: learning rates; several runs may have the same.
        losses_n: losses; infinite or NaN for diverged runs, which are left out.
    """
    finite = np.isfinite(losses_n)
    rates, groups = np.unique(rates_n[finite], return_inverse=True)
    if len(rates) < _FEWEST_RATES:
        problem = f"{len(rates)} rates, fewer than {_FEWEST_RATES}"
        return RateOptimum(predictors=dict(predictors), rate=math.nan, problem=problem)
    logs = np.log(losses_n[finite])
    means = np.bincount(groups, logs) / np.bincount(groups)
    best = int(means.argmin())
    near = np.abs(groups - np.clip(best, 2, max(len(rates) - 3, 2))) <= 2
    x = np.log(rates[groups])
    center = x[near].mean()
    curvature, slope, _ = np.polyfit(x[near] - center, logs[near], 2)
    vertex = center - slope / (2 * curvature) if curvature > 0 else math.nan
    problem = _vertex_problem(vertex, np.log(rates))
    rate = math.exp(vertex) if curvature > 0 and not problem else float(rates[best])
    return RateOptimum(predictors=dict(predictors), rate=rate, problem=problem)


def _vertex_problem(vertex: float, log_rates: Floats) -> str:
    if math.isnan(vertex):
        return "no minimum over the rates"
    if not log_rates[0] <= vertex <= log_rates[-1]:
        return "minimum at the edge of the rates"
    return ""


def fit_rate_trend(
    optima: Sequence[RateOptimum], names: Sequence[str], level: float = 0.9
) -> RateTrend:
    """Fit the trend of the optimal rate.

    Args:
        optima: optima, of which those with a problem are not used.
        names: predictors, "parameters" among them.
        level: nominal coverage of the intervals.

    Raises:
        UserError: the optima have fewer than three sizes, or do not determine the exponents.
    """
    used = [optimum for optimum in optima if not optimum.problem]
    sizes = len({optimum.predictors["parameters"] for optimum in used})
    if sizes < FEWEST_SIZES:
        raise UserError(
            f"learning rate: its trend needs optima at {FEWEST_SIZES} sizes or more, got {sizes}"
        )
    logs = np.log([[optimum.predictors[name] for name in names] for optimum in used])
    centers = logs.mean(axis=0)
    columns = np.concatenate([np.ones((len(used), 1)), logs - centers], axis=1)
    rates = np.log([optimum.rate for optimum in used])
    return RateTrend(
        names=tuple(names),
        centers=tuple(map(float, np.exp(centers))),
        fit=fit_linear(columns, rates, "trend of the learning rate"),
        optima=tuple(optima),
        level=level,
    )
