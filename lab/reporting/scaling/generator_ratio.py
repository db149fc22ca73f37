"""The best generator width over the budget, where enough ratios were run at their own rates.

A generator's ratio changes the best learning rate and the plateau, so a ratio at the rate of
another one says little. It is therefore analyzed only from three budgets with five ratios each.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lab.reporting.scaling.end_points import RATIO, EndPoint, RunGroup
from lab.reporting.scaling.estimates import format_estimate, format_flops, format_number
from lab.reporting.tables import Table
from lab.scaling.least_squares import LineFit, fit_line
from lab.scaling.profiles import Estimate
from lab.scaling.rate_trend import RateOptimum, best_rate

FEWEST_BUDGETS, FEWEST_RATIOS = 3, 5
LEVEL = 0.9
_NEEDS = f"it needs {FEWEST_BUDGETS} budgets with {FEWEST_RATIOS} ratios each, each at its own rate"


@dataclass(frozen=True, kw_only=True)
class RatioTrend:
    """The best ratio of generator to encoder width over the budget.

    Attributes:
        shape: width and layers of the encoder.
        optima: best ratio of each budget; `predictors` has the budget.
        line: log ratio over log budget.
    """

    shape: str
    optima: tuple[RateOptimum, ...]
    line: LineFit

    @property
    def exponent(self) -> Estimate:
        """Exponent of the budget with its interval."""
        half = self.line.fit.half_width(np.array([0.0, 1.0]), LEVEL, new=False)
        slope = self.line.slope
        return Estimate(value=slope, low=slope - half, high=slope + half, level=LEVEL)


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
    (_, shape), largest = max(by_series.items(), key=lambda item: (_count(item[1]), item[0]))
    budgets, ratios = _count(largest)
    if budgets < FEWEST_BUDGETS or ratios < FEWEST_RATIOS:
        return (
            f"The generator's ratio enters no law: {_NEEDS}. This sweep has {budgets} budgets with "
            f"{ratios} ratios each."
        )
    if not tuned:
        return f"The generator's ratio enters no law: {_NEEDS}. The rates were not tuned."
    optima = tuple(_optimum(budget, largest) for budget in sorted({e.run.budget for e in largest}))
    used = [optimum for optimum in optima if not optimum.problem]
    if len(used) < FEWEST_BUDGETS:
        return (
            f"The generator's ratio enters no law: only {len(used)} budgets have a best ratio "
            f"inside of the ratios that were run."
        )
    logs = np.log([[optimum.predictors["budget"], optimum.rate] for optimum in used])
    return RatioTrend(shape=shape, optima=optima, line=fit_line(logs[:, 0], logs[:, 1]))


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


def _optimum(budget: float, ends: Sequence[EndPoint]) -> RateOptimum:
    """Return the vertex of a parabola of log loss over log ratio."""
    own = [end for end in ends if end.run.budget == budget and not end.run.diverged]
    ratios, losses = (np.array(v) for v in ([e.ratio for e in own], [e.run.loss for e in own]))
    return best_rate({"budget": budget}, ratios, losses)


def ratio_table(trend: RatioTrend) -> Table:
    """Return the table of the best ratio of each budget."""
    rows = []
    for optimum in trend.optima:
        at = float(np.log(optimum.predictors["budget"]))
        half = trend.line.fit.half_width(np.array([1.0, at - trend.line.center]), LEVEL, new=True)
        log = float(trend.line.at(np.array([at]))[0])
        by_trend = Estimate(
            value=math.exp(log), low=math.exp(log - half), high=math.exp(log + half), level=LEVEL
        )
        best = "–" if optimum.problem else format_number(optimum.rate)
        rows.append([format_flops(optimum.predictors["budget"]), best,
                     format_estimate(by_trend), optimum.problem or "used"])  # fmt: skip
    caption = (
        f"Best ratio of generator to encoder width of {trend.shape}: minimum of a parabola of log "
        f"loss over log ratio. Exponent of the budget: {format_estimate(trend.exponent)}."
    )
    return Table(caption=caption, head=("budget", "best ratio", "by the trend", "use"), rows=rows)
