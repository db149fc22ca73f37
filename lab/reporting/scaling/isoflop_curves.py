"""IsoFLOP profiles as data: the runs, the law and the parabola of each budget over N."""

from dataclasses import dataclass

import numpy as np

from lab.reporting.figures.cell_colors import ordered_colors
from lab.reporting.scaling.analysis import BudgetOptimum, FittedGroup
from lab.reporting.scaling.end_points import EndPoint
from lab.scaling.parabolas import parabola_coefficients
from lab.scaling.runs import Floats

_POINTS = 60
_MARGIN = 1.3  # factor by which curves exceed the sizes that were run


@dataclass(frozen=True, kw_only=True)
class IsoflopCurve:
    """One budget.

    Attributes:
        budget: FLOPs.
        color: color of the budget in all figures.
        optimum: optimal size by the law.
        ends: end points of the budget.
        sizes_S: sizes N of the curves.
        law_S: loss by the law at these sizes.
        parabola_S: loss by the parabola of the budget; None if it has no minimum.
    """

    budget: float
    color: str
    optimum: BudgetOptimum
    ends: tuple[EndPoint, ...]
    sizes_S: Floats
    law_S: Floats
    parabola_S: Floats | None

    @property
    def run_sizes_n(self) -> Floats:
        """Sizes of the runs."""
        return np.array([end.run.parameters for end in self.ends])

    @property
    def losses_n(self) -> Floats:
        """Losses of the runs."""
        return np.array([end.run.loss for end in self.ends])


def isoflop_curves(fitted: FittedGroup) -> tuple[IsoflopCurve, ...]:
    """Return the profiles of the budgets that were run, increasing."""
    run = [optimum for optimum in fitted.optima if not optimum.extrapolated]
    colors = ordered_colors(len(run))
    return tuple(_curve(fitted, *pair) for pair in zip(run, colors, strict=True))


def _curve(fitted: FittedGroup, optimum: BudgetOptimum, color: str) -> IsoflopCurve:
    points = fitted.fit.points
    ends = tuple(end for end in fitted.ends if end.run.budget == optimum.budget)
    sizes = np.geomspace(
        points.parameters_n.min() / _MARGIN, points.parameters_n.max() * _MARGIN, _POINTS
    )
    own = points.take(points.budgets_n == optimum.budget)
    coefficients = parabola_coefficients(own)
    return IsoflopCurve(
        budget=optimum.budget,
        color=color,
        optimum=optimum,
        ends=ends,
        sizes_S=sizes,
        law_S=fitted.fit.law.loss(sizes, optimum.budget / fitted.per_token(sizes)),
        parabola_S=None if coefficients is None else _parabola(coefficients, np.log(sizes)),
    )


def _parabola(coefficients: Floats, logs_S: Floats) -> Floats:
    return np.asarray(np.polyval(coefficients, logs_S), dtype=float)
