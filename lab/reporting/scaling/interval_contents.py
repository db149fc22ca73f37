"""Sentences on the errors of a law: noise of runs, finite test set, tuning and divergence.

Each sentence says whether the intervals contain the error, and how large it is.
"""

import numpy as np
from scipy import stats

from lab.reporting.scaling.analysis import FittedGroup
from lab.reporting.scaling.end_points import OTHER_RATE, RATE, EndPoint
from lab.reporting.scaling.estimates import format_flops, format_share
from lab.tracking.frames import SweepFrames

_GRID = np.linspace(-8.0, 12.0, 4_001)  # normal deviates for integrals


def describe_errors(frames: SweepFrames, fitted: FittedGroup) -> str:
    """Return the sentences about a fitted law."""
    parts = (
        _describe_test_set(fitted),
        _describe_tuning(frames, fitted),
        _describe_divergence(fitted),
    )
    return " ".join(part for part in parts if part)


def _describe_test_set(fitted: FittedGroup) -> str:
    common = (
        "A shift that is common to all losses changes neither exponents nor optimal sizes nor the "
        "order of designs"
    )
    errors = fitted.test_set
    if errors is None:
        return (
            "Intervals contain the noise between runs, but not the sampling error of the test set, "
            f"whose blocks are not known for all runs. {common}."
        )
    optimum = next(each for each in reversed(fitted.optima) if not each.extrapolated)
    size = errors.size_growth(optimum.budget, fitted.per_token)
    growth = {**errors.growth(), "size": size}
    shares = {name: format_share(float(each[0]) - 1) for name, each in growth.items()}
    return (
        "Intervals contain the noise between runs and, except those of predicted losses, the "
        f"sampling error of the test set, from its {errors.blocks} blocks: it widens them by "
        f"{shares['alpha']} for α, {shares['beta']} for β and {shares['size']} for the optimal N "
        f"at {format_flops(optimum.budget)}. {common}; here its standard error is "
        f"{format_share(float(errors.common_K[0]))} of the loss. Predicted losses and forecasts "
        "are those on this test set, on which new runs are scored too, so their intervals do not "
        "contain its error."
    )


def _describe_tuning(frames: SweepFrames, fitted: FittedGroup) -> str:
    if RATE not in frames.tune and RATE not in frames.compare:
        return ""
    tried = _count_tried(frames, fitted)
    if tried < 2:
        return ""
    runs = np.unique([_corner(end) for end in fitted.ends], axis=0, return_counts=True)[1]
    luck = expected_largest(tried) * fitted.fit.deviation
    others = any(name != RATE for name in frames.tune)
    if any(left.reason.startswith(OTHER_RATE) for left in fitted.group.left_out):
        largest = format_share(luck / float(np.sqrt(np.median(runs))))
        return (
            f"The learning rate of each size and budget is the best of {tried} by the runs that "
            "are fitted, so their losses are too small (winner's curse), on average by at most "
            f"{largest}; the intervals do not contain this. New seeds at these rates have no such "
            "error."
        )
    subject = (
        "The tuned settings of each size and budget are"
        if others
        else ("The learning rate of each size and budget is")
    )
    return (
        f"{subject} the best of {tried} by one run each. The law is fitted to repeats on other "
        "seeds, which do not contain the luck of the chosen run (winner's curse); choosing by one "
        f"run costs at most {format_share(luck)} of the loss on average. Runs of one size and "
        "budget share this error, and the intervals do not contain it."
    )


def _describe_divergence(fitted: FittedGroup) -> str:
    ends = fitted.group.ends
    lost = sum(end.run.diverged for end in ends)
    others = sum(left.reason.startswith("diverged") for left in fitted.group.left_out)
    also = f"; {others} runs at other settings diverged too" if others else ""
    if not lost:
        return f"None of the {len(ends)} runs at these settings diverged{also}."
    return (
        f"{lost} of the {len(ends)} runs at these settings diverged and are not fitted{also}: the "
        "law is that of runs that do not diverge."
    )


def _count_tried(frames: SweepFrames, fitted: FittedGroup) -> int:
    """Return among how many settings that of a size and budget was chosen; the median."""
    rates: dict[tuple[float, float], set[float]] = {}
    for end in fitted.group.rated:
        rates.setdefault(_corner(end), set()).add(end.rate)
    if rates:
        return int(np.median([len(each) for each in rates.values()]))
    searched = frames.trials[frames.trials["role"] == "search"]  # several settings were tuned
    return int(searched.groupby("cell").size().median()) if len(searched) else 0


def _corner(end: EndPoint) -> tuple[float, float]:
    return end.run.parameters, end.run.budget


def expected_largest(count: int) -> float:
    """Return the expected largest of independent standard normal values."""
    density = count * stats.norm.pdf(_GRID) * stats.norm.cdf(_GRID) ** (count - 1)
    return float(np.trapezoid(_GRID * density, _GRID))
