"""IsoFLOP parabolas (Hoffmann et al. 2022, approach 2), as a cross-check of the law.

A parabola of loss over log N is fitted to the runs of each budget, and a line to its minima over
log FLOPs. Where alpha and beta differ, or the sizes are not centered on the optimum, the minima are
biased even without noise (Czech et al. 2026, arXiv 2603.22339); `parabola_bias` computes the bias
for the sizes at hand under a fitted law.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lab.errors import UserError
from lab.scaling.flops import Floats, FlopsPerToken
from lab.scaling.law import Law
from lab.scaling.least_squares import LineFit, fit_line
from lab.scaling.optimum import optimal_allocation
from lab.scaling.runs import Points

_FEWEST_SIZES = 3


@dataclass(frozen=True, kw_only=True)
class Parabola:
    """The runs of one budget.

    Attributes:
        budget: FLOPs.
        parameters: size at the vertex; NaN if the parabola has no minimum.
        loss: loss at the vertex; NaN if the parabola has no minimum.
        problem: why the vertex is not used: too few sizes, no minimum, or a minimum outside of the
            sizes that were run; empty if it is used.
    """

    budget: float
    parameters: float
    loss: float
    problem: str


@dataclass(frozen=True, kw_only=True)
class IsoflopFit:
    """Parabolas and the power law of their minima.

    Attributes:
        parabolas: one per budget, increasing.
        line: log optimal N over log FLOPs; its slope is the exponent a of N ~ C^a.
    """

    parabolas: tuple[Parabola, ...]
    line: LineFit

    def size_at(self, flops: float) -> float:
        """Return the optimal number of parameters by the line."""
        return float(np.exp(self.line.at(np.log([flops]))[0]))


@dataclass(frozen=True, kw_only=True)
class ParabolaBias:
    """Error of parabolas without noise, for the sizes at hand and a given law.

    Attributes:
        exponent: exponent a of the parabolas minus that of the law between the same budgets.
        sizes: by budget, size at the vertex divided by the optimal size of the law.
        extrapolated: the same ratio at the target budget.
    """

    exponent: float
    sizes: dict[float, float]
    extrapolated: float


def fit_parabolas(points: Points) -> IsoflopFit:
    """Fit a parabola to each budget and a line to the minima.

    Raises:
        UserError: fewer than two budgets have a minimum inside of their sizes.
    """
    parabolas = tuple(
        _parabola(points.take(points.budgets_n == budget)) for budget in np.unique(points.budgets_n)
    )
    used = [parabola for parabola in parabolas if not parabola.problem]
    if len(used) < 2:
        raise UserError(f"parabolas: two budgets with a minimum are needed, got {len(used)}")
    return IsoflopFit(parabolas=parabolas, line=_line(used))


def _line(parabolas: Sequence[Parabola]) -> LineFit:
    budgets = np.log([parabola.budget for parabola in parabolas])
    return fit_line(budgets, np.log([parabola.parameters for parabola in parabolas]))


def _parabola(points: Points) -> Parabola:
    budget, logs = float(points.budgets_n[0]), np.log(points.parameters_n)
    sizes = len(np.unique(points.parameters_n))
    coefficients = parabola_coefficients(points)
    if coefficients is None:
        few = f"{sizes} sizes, fewer than {_FEWEST_SIZES}"
        problem = few if sizes < _FEWEST_SIZES else "no minimum"
        return Parabola(budget=budget, parameters=np.nan, loss=np.nan, problem=problem)
    curvature, slope, _ = coefficients
    vertex = -slope / (2 * curvature)
    inside = logs.min() <= vertex <= logs.max()
    return Parabola(
        budget=budget,
        parameters=float(np.exp(vertex)),
        loss=float(np.polyval(coefficients, vertex)),
        problem="" if inside else "minimum outside of the sizes that were run",
    )


def parabola_coefficients(points: Points) -> Floats | None:
    """Return the parabola of loss over log N of one budget, highest power first.

    None if there are fewer than three sizes, or if it has no minimum.
    """
    if len(np.unique(points.parameters_n)) < _FEWEST_SIZES:
        return None
    logs = np.log(points.parameters_n)
    center = logs.mean()
    curvature, slope, level = np.polyfit(logs - center, points.losses_n, 2)
    if curvature <= 0:
        return None
    shifted = slope - 2 * curvature * center
    return np.array([curvature, shifted, level - slope * center + curvature * center**2])


def parabola_bias(points: Points, law: Law, per_token: FlopsPerToken, flops: float) -> ParabolaBias:
    """Return the error that parabolas at these sizes and budgets have if `law` is right.

    Args:
        points: the runs, of which losses are replaced by those of the law.
        law: the law.
        per_token: FLOPs per token of a size.
        flops: target budget.

    Raises:
        UserError: fewer than two budgets have a minimum inside of their sizes.
    """
    exact = replace(points, losses_n=law.loss(points.parameters_n, points.tokens_n))
    fit = fit_parabolas(exact)
    used = [parabola for parabola in fit.parabolas if not parabola.problem]
    truth = {p.budget: optimal_allocation(law, p.budget, per_token).parameters for p in used}
    budgets = np.log(np.array(list(truth)))
    line = fit_line(budgets, np.log(np.array(list(truth.values()))))
    target: Floats = np.array([optimal_allocation(law, flops, per_token).parameters])
    return ParabolaBias(
        exponent=fit.line.slope - line.slope,
        sizes={p.budget: p.parameters / truth[p.budget] for p in used},
        extrapolated=fit.size_at(flops) / float(target[0]),
    )
