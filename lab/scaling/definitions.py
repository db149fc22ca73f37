"""How the exponents change with the definition of the number of parameters N.

Laws with N that counts embeddings, or that does not, have different exponents for the same runs
(Pearce and Song 2024, arXiv 2406.12907; Porian et al. 2024, arXiv 2406.19146).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from lab.scaling.flops import Floats, interpolated
from lab.scaling.law import FitError, LawFit, fit_law
from lab.scaling.optimum import optimal_allocation
from lab.scaling.profiles import Estimate, law_intervals
from lab.scaling.runs import Points

_STEP = 1.05  # ratio of the two budgets of a slope


@dataclass(frozen=True, kw_only=True)
class Definition:
    """The law under one definition of N.

    Attributes:
        name: name of the definition.
        fit: the law; None if none could be fitted.
        problem: why there is none; empty otherwise.
        intervals: those of `law_intervals`, by name; empty without a law.
        optimal_exponent: slope of log optimal N over log FLOPs at the budget; NaN without a law.
    """

    name: str
    fit: LawFit | None
    problem: str
    intervals: dict[str, Estimate]
    optimal_exponent: float


def fit_by_definition(
    points: Points, sizes: Mapping[str, Floats], flops_per_token_n: Floats, flops: float
) -> tuple[Definition, ...]:
    """Fit the law under each definition of N.

    Args:
        points: the runs; their numbers of parameters are not used.
        sizes: numbers of parameters of the runs, by the name of the definition.
        flops_per_token_n: FLOPs per token of the runs, which do not depend on the definition.
        flops: budget at which the slope of the optimal size is taken.
    """
    return tuple(
        _fit(name, replace(points, parameters_n=values), flops_per_token_n, flops)
        for name, values in sizes.items()
    )


def _fit(name: str, points: Points, flops_per_token_n: Floats, flops: float) -> Definition:
    try:
        fit = fit_law(points)
    except FitError as error:
        return Definition(
            name=name, fit=None, problem=str(error), intervals={}, optimal_exponent=np.nan
        )
    sizes, first = np.unique(points.parameters_n, return_index=True)
    per_token = interpolated(sizes, flops_per_token_n[first])
    ends = [optimal_allocation(fit.law, c, per_token) for c in (flops / _STEP, flops * _STEP)]
    slope = np.log(ends[1].parameters / ends[0].parameters) / (2 * np.log(_STEP))
    return Definition(
        name=name,
        fit=fit,
        problem="",
        intervals=law_intervals(fit),
        optimal_exponent=float(slope),
    )
