"""Figures of the section on scaling, with their captions."""

import numpy as np

from lab.reporting.figures import scaling_plots, svg
from lab.reporting.figures.figure import Figure
from lab.reporting.scaling import law_sentences
from lab.reporting.scaling.analysis import FittedGroup
from lab.reporting.scaling.section import ScalingSection
from lab.scaling.rate_trend import RateTrend


def scaling_figures(section: ScalingSection | None) -> dict[str, list[Figure]]:
    """Return the figures of each part: `law-1`, ... and `rates-1`, ..."""
    found: dict[str, list[Figure]] = {}
    if section is None:
        return found
    for number, law in enumerate(section.laws, 1):
        result = law.result
        found[f"law-{number}"] = (
            _law_figures(result, number) if isinstance(result, FittedGroup) else []
        )
    for number, rates in enumerate(section.rates, 1):
        trend = rates.result
        found[f"rates-{number}"] = (
            [_rate_figure(trend, number)] if isinstance(trend, RateTrend) else []
        )
    return found


def _law_figures(fitted: FittedGroup, number: int) -> list[Figure]:
    largest = float(100 * np.abs(fitted.fit.residuals_n).max())
    return [
        Figure(
            name=f"isoflop-{number}",
            title="IsoFLOP profiles",
            caption=law_sentences.describe_profiles(fitted),
            files=("end_points.csv", "isoflop.csv", "optima.csv"),
            svg=svg.render_svg(scaling_plots.plot_isoflop(fitted)),
        ),
        Figure(
            name=f"residuals-{number}",
            title="Residuals of the law",
            caption=f"The largest residual is {largest:.2g} % of a loss. A curve over N or D would "
            "show that the law does not describe the runs.",
            files=("end_points.csv",),
            svg=svg.render_svg(scaling_plots.plot_residuals(fitted)),
        ),
    ]


def _rate_figure(trend: RateTrend, number: int) -> Figure:
    used = sum(not optimum.problem for optimum in trend.optima)
    return Figure(
        name=f"rates-{number}",
        title="Best learning rate",
        caption=f"{used} of {len(trend.optima)} best rates lie inside of the rates that were run "
        "and determine the trend, drawn at the mean horizon and batch.",
        files=("best_rates.csv",),
        svg=svg.render_svg(scaling_plots.plot_rates(trend)),
    )
