"""Tables of the section on scaling for CSV files: runs, laws, optimal sizes, learning rates."""

import math
from collections.abc import Iterator

import pandas as pd

from lab.reporting.scaling.analysis import FittedGroup
from lab.reporting.scaling.end_points import EndPoint
from lab.reporting.scaling.isoflop_curves import isoflop_curves
from lab.reporting.scaling.law_tables import optimal_loss, optimal_tokens
from lab.reporting.scaling.parameter_counts import HEADS, NETWORKS, TABLES
from lab.reporting.scaling.section import LawPart, RatePart, ScalingSection
from lab.scaling.rate_trend import RateTrend

END_POINTS, BEST_RATES = "end_points.csv", "best_rates.csv"
LAW, ISOFLOP, OPTIMA = "law.csv", "isoflop.csv", "optima.csv"


def list_frames(section: ScalingSection | None) -> dict[str, pd.DataFrame]:
    """Return the numbers of a section by file name; only those with rows.

    `end_points.csv` has the compared runs. Columns: group, number, shape, parameters, the other
    numbers of parameters, tokens, flops, budget, rate, repeat, epochs, loss, law (loss by the law;
    empty for runs that are not fitted) and excluded (reason). In the group of all generator ratios,
    loss and tokens are those at the best ratio. `best_rates.csv` has the best
    learning rates. Columns: group, parameters, tokens, batch, rate, the trend's rate with its
    limits, and problem (why an optimum is not used). `law.csv` has the parameters of the laws
    with their intervals, `isoflop.csv` the loss by the law and by the parabola of each budget over
    the parameters, `optima.csv` the optimal size of each budget, its tokens and its loss with
    intervals, and the minimum of the parabola.
    """
    if section is None:
        return {}
    tables: dict[str, list[dict[str, object]]] = {
        END_POINTS: [row for law in section.laws for row in _rows(law)],
        BEST_RATES: [row for part in section.rates for row in _rate_rows(part)],
    }
    for law in section.laws:
        if isinstance(law.result, FittedGroup):
            for name, rows in (
                (LAW, _parameter_rows(law.result)),
                (ISOFLOP, _curve_rows(law.result)),
                (OPTIMA, _optimum_rows(law.result)),
            ):
                tables.setdefault(name, []).extend({"group": law.title, **row} for row in rows)
    return {name: pd.DataFrame(rows) for name, rows in tables.items() if rows}


def _parameter_rows(fitted: FittedGroup) -> Iterator[dict[str, object]]:
    for name, each in fitted.intervals.items():
        yield {"parameter": name, "value": each.value, "low": each.low, "high": each.high}


def _curve_rows(fitted: FittedGroup) -> Iterator[dict[str, object]]:
    for curve in isoflop_curves(fitted):
        parabola_S = [None] * len(curve.sizes_S) if curve.parabola_S is None else curve.parabola_S
        for size, law, parabola in zip(curve.sizes_S, curve.law_S, parabola_S, strict=True):
            yield {"budget": curve.budget, "parameters": size, "law": law, "parabola": parabola}


def _optimum_rows(fitted: FittedGroup) -> Iterator[dict[str, object]]:
    minima: dict[float, float] = {}
    if not isinstance(fitted.parabolas, str):
        parabolas = fitted.parabolas.fit.parabolas
        minima = {each.budget: each.parameters for each in parabolas if not each.problem}
    for optimum in fitted.optima:
        row: dict[str, object] = {"budget": optimum.budget, "extrapolated": optimum.extrapolated}
        for name, estimate in (
            ("parameters", optimum.size),
            ("tokens", optimal_tokens(fitted, optimum)),
            ("loss", optimal_loss(optimum)),
        ):
            row |= {
                name: estimate.value,
                f"{name}_low": estimate.low,
                f"{name}_high": estimate.high,
            }
        yield row | {"parabola": minima.get(optimum.budget)}


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
