"""Tables of the section on scaling for CSV files: end points, and best learning rates."""

import math

import pandas as pd

from lab.reporting.scaling.analysis import FittedGroup
from lab.reporting.scaling.end_points import EndPoint
from lab.reporting.scaling.parameter_counts import HEADS, NETWORKS, TABLES
from lab.reporting.scaling.section import LawPart, RatePart, ScalingSection
from lab.scaling.rate_trend import RateTrend

FILES = END_POINTS, BEST_RATES = "end_points.csv", "best_rates.csv"


def list_tables(section: ScalingSection | None) -> dict[str, pd.DataFrame]:
    """Return the tables of a section by file name; only those with rows.

    `end_points.csv` has the compared runs. Columns: group, number, shape, parameters, the other
    numbers of parameters, tokens, flops, budget, rate, repeat, epochs, loss, law (loss by the law;
    empty for runs that are not fitted) and excluded (reason). In the group of all generator ratios,
    loss and tokens are those at the best ratio. `best_rates.csv` has the best
    learning rates. Columns: group, parameters, tokens, batch, rate, the trend's rate with its
    limits, and problem (why an optimum is not used).
    """
    if section is None:
        return {}
    tables = {
        END_POINTS: [row for law in section.laws for row in _rows(law)],
        BEST_RATES: [row for part in section.rates for row in _rate_rows(part)],
    }
    return {name: pd.DataFrame(rows) for name, rows in tables.items() if rows}


def _rate_rows(part: RatePart) -> list[dict[str, object]]:
    trend, rows = part.result, []
    for optimum in part.result.optima:
        row = {"group": part.title, **optimum.predictors, "rate": optimum.rate}
        if isinstance(trend, RateTrend):
            by_trend = trend.rate(**{name: optimum.predictors[name] for name in trend.names})
            row |= {"trend": by_trend.value, "low": by_trend.low, "high": by_trend.high}
        rows.append(row | {"problem": optimum.problem})
    return rows


def _rows(law: LawPart) -> list[dict[str, object]]:
    result = law.result
    excluded = {each.run.name: each.reason for each in result.selection.excluded}
    predicted: dict[int, float] = {}
    if isinstance(result, FittedGroup):
        points = result.fit.points
        losses = result.fit.law.loss(points.parameters_n, points.tokens_n)
        predicted = {end.number: float(v) for end, v in zip(result.ends, losses, strict=True)}
    return [
        {
            "group": law.title, "number": end.number, "shape": end.shape,
            "parameters": end.run.parameters, "parameters_with_head": end.sizes[HEADS],
            "parameters_with_embeddings": end.sizes[TABLES],
            "parameters_of_all_networks": _all_networks(end),
            "tokens": end.run.tokens, "flops": end.flops, "budget": end.run.budget,
            "rate": end.rate, "repeat": end.repeat, "epochs": end.run.epochs,
            "loss": end.run.loss, "law": predicted.get(end.number),
            "excluded": excluded.get(end.run.name, ""),
        }
        for end in result.group.ends
    ]  # fmt: skip


def _all_networks(end: EndPoint) -> float | None:
    """Return the parameters of all networks; None where runs of several ratios are one group."""
    return end.sizes.get(NETWORKS, end.sizes[TABLES] if math.isnan(end.ratio) else None)
