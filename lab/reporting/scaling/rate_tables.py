"""Tables of the optimal learning rates and of their trend, and the trend as a setting."""

from lab.reporting.scaling.estimates import format_estimate, format_number
from lab.reporting.scaling.rates import RateRefusal
from lab.reporting.tables import Table
from lab.scaling.rate_trend import RateTrend

_NAMES = {"parameters": "N", "tokens": "tokens of the run", "batch": "tokens of a step"}
_USABLE = "used"


def optimum_table(rates: RateTrend | RateRefusal) -> Table:
    """Return the table of the best rate of each size, horizon and batch."""
    trend = rates if isinstance(rates, RateTrend) else None
    rows = []
    for optimum in rates.optima:
        at = optimum.predictors
        by_trend = "–"
        if trend is not None:
            by_trend = format_estimate(trend.rate(**{name: at[name] for name in trend.names}))
        best = "–" if optimum.problem else format_number(optimum.rate)
        rows.append(
            [*(format_number(at[name]) for name in _NAMES), best, by_trend,
             optimum.problem or _USABLE]
        )  # fmt: skip
    caption = (
        "Best learning rates: minimum of a parabola of log loss over log rate at each size, "
        "horizon and batch. The interval of the trend is that of one such minimum."
    )
    head = (*_NAMES.values(), "best rate", "by the trend", "use")
    return Table(caption=caption, head=head, rows=rows, file="best_rates.csv")


def exponent_table(trend: RateTrend) -> Table:
    """Return the table of the trend's exponents, with the trend as a value of `base.optim.lr`."""
    names = [_NAMES[name] for name in trend.names]
    rows = [
        [label, format_estimate(trend.exponent(name))]
        for label, name in zip(names, trend.names, strict=True)
    ]
    missing = [label for name, label in _NAMES.items() if name not in trend.names]
    unknown = f" The optima do not determine the exponents of: {', '.join(missing)}." * bool(
        missing
    )
    caption = (
        f"Exponents of the best learning rate with {trend.level:.0%} intervals.{unknown} As a "
        f"setting of other sweeps: base.optim.lr: {write_setting(trend)}"
    )
    head = ("exponent of", "value")
    return Table(caption=caption, head=head, rows=rows, file="rate_trend.csv")


def write_setting(trend: RateTrend) -> str:
    """Return the trend as a value of `base.optim.lr` in a search space."""
    centers = dict(zip(trend.names, trend.centers, strict=True))
    parts = [f"rate: {trend.rate(**centers).value:.3g}"]
    parts += [
        f"{name}: {{at: {center:.4g}, exponent: {trend.exponent(name).value:.3f}}}"
        for name, center in centers.items()
    ]
    return f"{{{', '.join(parts)}}}"
