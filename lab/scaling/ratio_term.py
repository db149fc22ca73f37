"""The generator's ratio r in a law: L(N, D, r) = (E + A / N^alpha + B / D^beta) exp(k (x - x*)^2).

At one size and budget C the log loss is a parabola of x = log r. Its curvature k is the same at all
sizes and budgets, and its vertex x* is a linear function of log C, so the best ratio is a power law
of the budget. Each size and budget has a level of its own in the fit of the parabolas, so that they
do not depend on the law of N and D:

    log L = level(N, C) + k x^2 + (b + s log C) x,    x*(C) = -(b + s log C) / (2 k).

The model is linear; intervals of the vertex and of its slope are those of ratios of normal
variables (Fieller 1954). The law of N and D is that of the losses at the best ratio: those of all
ratios divided by exp(k (x - x*)^2), at the tokens that the budget buys at the best ratio.
"""

import math
from dataclasses import dataclass

import numpy as np

from lab.errors import UserError
from lab.scaling.least_squares import LinearFit, fit_linear
from lab.scaling.profiles import Estimate
from lab.scaling.runs import Floats, Points
from lab.scaling.solver.huber import quantile


@dataclass(frozen=True, kw_only=True)
class RatioTerm:
    """The parabola of the log loss over the log ratio.

    Attributes:
        center_x: mean of the log ratios, from which x is counted in `fit`.
        center_c: mean of the log budgets.
        fit: coefficients (k, b, s), with b at the centers.
        level: nominal coverage of the intervals.
    """

    center_x: float
    center_c: float
    fit: LinearFit
    level: float

    @property
    def curvature(self) -> Estimate:
        """The curvature k."""
        half = self.fit.half_width(np.array([1.0, 0.0, 0.0]), self.level, new=False)
        value = float(self.fit.coefficients_q[0])
        return Estimate(value=value, low=value - half, high=value + half, level=self.level)

    @property
    def exponent(self) -> Estimate:
        """Exponent of the budget in the best ratio."""
        return self._quotient(np.array([0.0, 0.0, -1.0]))

    def best(self, flops: float) -> Estimate:
        """Return the best ratio at a budget."""
        found = self._quotient(np.array([0.0, -1.0, -(math.log(flops) - self.center_c)]))
        value, low, high = (
            math.exp(self.center_x + v) for v in (found.value, found.low, found.high)
        )
        return Estimate(value=value, low=low, high=high, level=self.level)

    def log_cost(self, ratios_n: Floats, budgets_n: Floats) -> Floats:
        """Return by how much the log loss at each ratio is above that at the best ratio."""
        k, b, s = self.fit.coefficients_q
        vertices_n = -(b + s * (np.log(budgets_n) - self.center_c)) / (2 * k)
        return np.asarray(k * (np.log(ratios_n) - self.center_x - vertices_n) ** 2)

    def _quotient(self, row_q: Floats) -> Estimate:
        """Return a linear function of the coefficients divided by 2 k."""
        twice_q = np.array([2.0, 0.0, 0.0])
        theta, covariance = self.fit.coefficients_q, self.fit.covariance_qq
        square = quantile(self.level, self.fit.freedom) ** 2
        top, bottom = float(row_q @ theta), float(twice_q @ theta)
        a = bottom**2 - square * float(twice_q @ covariance @ twice_q)
        middle = top * bottom - square * float(row_q @ covariance @ twice_q)
        c = top**2 - square * float(row_q @ covariance @ row_q)
        root = math.sqrt(max(middle**2 - a * c, 0.0))
        return Estimate(
            value=top / bottom, low=(middle - root) / a, high=(middle + root) / a, level=self.level
        )


def fit_ratio_term(points: Points, ratios_n: Floats, level: float = 0.9) -> RatioTerm:
    """Fit the parabolas.

    Args:
        points: the runs, after `hygiene.select_runs`.
        ratios_n: their ratios.
        level: nominal coverage of the intervals.

    Raises:
        UserError: the runs do not determine the parabolas, their curvature is not positive by its
            interval, or a vertex is outside of the ratios that were run.
    """
    x_n, c_n = np.log(ratios_n), np.log(points.budgets_n)
    center_x, center_c = float(x_n.mean()), float(c_n.mean())
    x_n, c_n = x_n - center_x, c_n - center_c
    corners_n = corner_numbers(points)
    columns = np.concatenate(
        [np.eye(corners_n.max() + 1)[corners_n], np.stack([x_n**2, x_n, c_n * x_n], axis=1)], axis=1
    )
    full = fit_linear(columns, np.log(points.losses_n), "parabolas over the ratio")
    if not full.freedom:
        raise UserError("parabolas over the ratio: there are as many coefficients as runs")
    fit = LinearFit(
        coefficients_q=full.coefficients_q[-3:],
        covariance_qq=full.covariance_qq[-3:, -3:],
        deviation=full.deviation,
        freedom=full.freedom,
    )
    term = RatioTerm(center_x=center_x, center_c=center_c, fit=fit, level=level)
    if term.curvature.low <= 0:
        raise UserError("the losses show no best ratio: the curvature of their parabolas may be 0")
    for budget in np.unique(points.budgets_n).tolist():
        if not ratios_n.min() <= term.best(budget).value <= ratios_n.max():
            raise UserError(
                f"the best ratio at {budget:.3g} FLOPs is outside of the ratios that were run"
            )
    return term


def at_best_ratio(term: RatioTerm, points: Points, ratios_n: Floats) -> Points:
    """Return the losses and the tokens that the runs would have at the best ratios."""
    tokens_n = np.empty_like(points.tokens_n)
    corners_n = corner_numbers(points)
    for corner in range(corners_n.max() + 1):
        own = corners_n == corner
        ratios, first = np.unique(ratios_n[own], return_index=True)
        best = term.best(float(points.budgets_n[own][0])).value
        logs = np.log(points.tokens_n[own][first])
        tokens_n[own] = np.exp(np.interp(np.log(best), np.log(ratios), logs))
    return Points(
        parameters_n=points.parameters_n,
        tokens_n=tokens_n,
        losses_n=points.losses_n * np.exp(-term.log_cost(ratios_n, points.budgets_n)),
        budgets_n=points.budgets_n,
        groups_n=points.groups_n,
    )


def corner_numbers(points: Points) -> "np.ndarray[tuple[int], np.dtype[np.intp]]":
    """Return a number for each run, equal for the runs of one size and budget."""
    pairs = np.stack([points.parameters_n, points.budgets_n], axis=1)
    return np.asarray(np.unique(pairs, axis=0, return_inverse=True)[1]).reshape(-1)
