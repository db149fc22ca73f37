"""The generator's ratio in the law, where enough ratios were run at their own rates.

A generator's ratio changes the best learning rate and the plateau, so a ratio at the rate of
another one says little. It is therefore analyzed only from three budgets with five ratios each.
With three sizes of them, the ratio enters the law (`lab.scaling.ratio_term`): the law of N and D at
the best ratio, times the cost of another one.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lab.errors import UserError
from lab.reporting.scaling.analysis import FEWEST
from lab.reporting.scaling.end_points import RATIO, EndPoint, RunGroup
from lab.reporting.scaling.estimates import (
    format_estimate,
    format_flops,
    format_number,
    format_share,
)
from lab.reporting.scaling.parameter_counts import NETWORKS
from lab.reporting.tables import Table
from lab.scaling.hygiene import select_runs
from lab.scaling.profiles import Estimate
from lab.scaling.ratio_term import RatioTerm, at_best_ratio, fit_ratio_term
from lab.scaling.runs import points_of

FEWEST_BUDGETS, FEWEST_RATIOS = 3, 5
LABEL = "L(N, D, r): all generator ratios, at the best one"
_NEEDS = f"it needs {FEWEST_BUDGETS} budgets with {FEWEST_RATIOS} ratios each, each at its own rate"


@dataclass(frozen=True, kw_only=True)
class RatioTrend:
    """The best ratio of generator to encoder width over the budget, and the cost of another one.

    Attributes:
        shapes: width and layers of the encoders.
        budgets: budgets of the runs, increasing.
        ratios: ratios of the runs, increasing.
        term: the fitted parabolas.
        group: the runs with the losses and tokens that they would have at the best ratio, to which
            the law is fitted; None with fewer than three sizes.
    """

    shapes: tuple[str, ...]
    budgets: tuple[float, ...]
    ratios: tuple[float, ...]
    term: RatioTerm
    group: RunGroup | None


def analyze_ratios(groups: Sequence[RunGroup], *, tuned: bool) -> RatioTrend | str | None:
    """Return the trend of the best ratio, or why there is none; None without any generator.

    Args:
        groups: groups of the sweep, which may differ in the ratio.
        tuned: whether each ratio has its own learning rate.
    """
    by_series: dict[tuple[str, str], list[EndPoint]] = {}
    for group in groups:
        key = _describe_others(group)
        for end in group.ends:
            if not math.isnan(end.ratio):
                by_series.setdefault((key, end.shape), []).append(end)
    if not by_series:
        return None
    (key, _), largest = max(by_series.items(), key=lambda item: (_count(item[1]), item[0]))
    budgets, ratios = _count(largest)
    if not _suffices(largest):
        return (
            f"The generator's ratio enters no law: {_NEEDS}. This sweep has {budgets} budgets with "
            f"{ratios} ratios each."
        )
    if not tuned:
        return f"The generator's ratio enters no law: {_NEEDS}. The rates were not tuned."
    series = [ends for (other, _), ends in by_series.items() if other == key and _suffices(ends)]
    try:
        return _fit(groups, [end for ends in series for end in ends])
    except UserError as error:
        return f"The generator's ratio enters no law: {error}."


def _describe_others(group: RunGroup) -> str:
    """Return the settings of a group as text, without the generator's width."""
    settings = dict(group.settings)
    settings.pop(RATIO, None)
    for path, text in settings.items():
        if path in {"objective", "objective.generator"}:
            value = json.loads(str(text))
            value.get("generator", value).pop("width", None)
            settings[path] = json.dumps(value, sort_keys=True)
    return repr(sorted(settings.items()))


def _count(ends: Sequence[EndPoint]) -> tuple[int, int]:
    """Return the number of budgets, and of ratios that all of them have."""
    ratios: dict[float, set[float]] = {}
    for end in ends:
        ratios.setdefault(end.run.budget, set()).add(end.ratio)
    return len(ratios), len(set.intersection(*ratios.values()))


def _suffices(ends: Sequence[EndPoint]) -> bool:
    budgets, ratios = _count(ends)
    return budgets >= FEWEST_BUDGETS and ratios >= FEWEST_RATIOS


def _fit(groups: Sequence[RunGroup], ends: Sequence[EndPoint]) -> RatioTrend:
    """Fit the parabolas to the runs that a law may be fitted to.

    Raises:
        UserError: they have no best ratio (`fit_ratio_term`).
    """
    kept = {run.name for run in select_runs(end.run for end in ends).kept}
    used = [end for end in ends if end.run.name in kept]
    others = [end for end in ends if end.run.name not in kept]
    points, ratios_n = points_of(end.run for end in used), np.array([end.ratio for end in used])
    term = fit_ratio_term(points, ratios_n)
    best = at_best_ratio(term, points, ratios_n)
    moved = [
        replace(
            end,
            run=replace(end.run, loss=float(loss), tokens=float(tokens)),
            sizes={name: size for name, size in end.sizes.items() if name != NETWORKS},
        )
        for end, loss, tokens in zip(used, best.losses_n, best.tokens_n, strict=True)
    ]
    group = RunGroup(
        label=LABEL,
        settings={path: v for path, v in groups[0].settings.items() if path != RATIO},
        metric=groups[0].metric,
        ends=(*moved, *others),
        rated=(),
        varied=frozenset({RATIO}),
    )
    return RatioTrend(
        shapes=tuple(dict.fromkeys(end.shape for end in ends)),
        budgets=tuple(sorted({end.run.budget for end in used})),
        ratios=tuple(sorted({end.ratio for end in used})),
        term=term,
        group=group if len({end.run.parameters for end in used}) >= FEWEST else None,
    )


def describe_ratio(trend: RatioTrend) -> str:
    """Return sentences on the effect of the ratio on the loss and on the best ratio."""
    curvature = trend.term.curvature
    parabolas = (
        "At equal FLOPs, the log loss is a parabola of log r, the ratio of generator to encoder "
        f"width, with the curvature κ = {format_estimate(curvature)} at all sizes and budgets and "
        "a vertex r* that moves with the budget; each size and budget has a level of its own."
    )
    if trend.group is None:
        return (
            f"{parabolas} The ratio enters no L(N, D): {len(trend.shapes)} sizes have enough "
            f"ratios, and a law needs {FEWEST}."
        )
    return (
        f"{parabolas} So L(N, D, r) = (E + A / N^α + B / D^β) exp(κ (log r − log r*)²). Its E, A, "
        f"B, α and β are those of the part “{LABEL}”, whose runs have the losses and tokens that "
        "they would have at r*; their intervals do not contain the error of κ and r*, which "
        "shifts all of these losses nearly alike."
    )


def ratio_table(trend: RatioTrend) -> Table:
    """Return the table of the best ratio of each budget."""
    rows = [[format_flops(each), format_estimate(trend.term.best(each))] for each in trend.budgets]
    twice = [math.expm1(k * math.log(2) ** 2) for k in _values(trend.term.curvature)]
    value, low, high = map(format_share, twice)
    caption = (
        f"Best ratio of generator to encoder width of {', '.join(trend.shapes)}, from the ratios "
        f"{', '.join(map(format_number, trend.ratios))}. Exponent of the budget: "
        f"{format_estimate(trend.term.exponent)}. Half or twice the best ratio costs {value} "
        f"[{low}, {high}] of the loss. Intervals: {trend.term.level:.0%}."
    )
    head = ("budget", "best ratio r*")
    return Table(caption=caption, head=head, rows=rows, file="generator_ratio.csv")


def _values(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high
