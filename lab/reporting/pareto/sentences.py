"""Sentences and tables on the Pareto front of score and cost."""

import math

import pandas as pd

from lab.config.costs.second_objective import COSTS, CostName
from lab.reporting.pareto.front import Front, FrontPoint
from lab.reporting.sentences import (
    NONE,
    format_ends,
    format_interval,
    format_quantity,
    format_score,
)
from lab.reporting.tables import Table
from lab.tracking.frames import SweepFrames


def describe_front(frames: SweepFrames, front: Front, cost: CostName) -> str:
    """Return the answer to a question about two objectives.

    Args:
        frames: frames of the sweep.
        front: front of the sweep.
        cost: second objective of the sweep.
    """
    unit, members = COSTS[cost].unit, front.with_status("on the front")
    listed = "; ".join(
        f"{each.label} ({format_score(each.score.mean)} at {format_quantity(each.cost, unit)}"
        f"{f', {each.diverged} diverged' * bool(each.diverged)})"
        for each in members
    )
    groups = {
        "Not significantly better than the next cheaper one of these": [
            each for each in members if not each.is_better
        ],
        "Off the front by their means, but not separable from it": front.with_status(
            "not separable"
        ),
        "Dominated": front.with_status("dominated"),
    }
    parts = [
        f"On the Pareto front of {frames.metric.name} and {COSTS[cost].title}: {listed}.",
        *(
            f"{title}: {'; '.join(each.label for each in points)}."
            for title, points in groups.items()
            if points
        ),
    ]
    cells = {point.cell for point in front.points}
    missing = [cell for cell in frames.trials["cell"].unique() if cell not in cells]
    return " ".join([*parts, *([f"Without a score: {'; '.join(missing)}."] if missing else [])])


def front_table(front: Front, cost: CostName) -> Table:
    """Return the table of all settings, the cheapest first."""
    basis = (
        "Means over repeats with seeds that the search did not use."
        if front.confirmed
        else "Scores of single search trials."
    )
    caption = (
        f"{len(front.points)} settings, the cheapest first. {basis} A setting is dominated if one "
        f"that costs at most as much is significantly better, by simultaneous 95 % intervals of "
        f"all differences; it is not separable if only its mean is worse. A setting on the front "
        f"is compared with the next cheaper one on it, any other one with the best that costs at "
        f"most as much."
    )
    head = ("setting", COSTS[cost].title, "mean ± sd (n)", "95 % interval", "position",
            "compared with", "difference")  # fmt: skip
    rows = [_row(point, COSTS[cost].unit) for point in front.points]
    return Table(caption=caption, head=head, rows=rows, file="front.csv")


def _row(point: FrontPoint, unit: str) -> list[str]:
    return [
        point.label,
        format_quantity(point.cost, unit),
        f"{format_score(point.score.mean)} ± {format_score(point.sd)} "
        f"({point.score.n}{f', {point.diverged} diverged' * bool(point.diverged)})",
        format_ends(point.score),
        point.status,
        point.rival or NONE,
        NONE if point.difference is None else format_interval(point.difference, signed=True),
    ]


def front_frame(front: Front) -> pd.DataFrame:
    """Return the settings as a table of numbers, the cheapest first."""
    return pd.DataFrame(
        [
            {
                "setting": point.label,
                "cell": point.cell,
                "cost": point.cost,
                "mean": point.score.mean,
                "low": point.score.low,
                "high": point.score.high,
                "sd": point.sd,
                "n": point.score.n,
                "diverged": point.diverged,
                "position": point.status,
                "compared_with": point.rival,
                "difference": math.nan if gap is None else gap.mean,
                "difference_low": math.nan if gap is None else gap.low,
                "difference_high": math.nan if gap is None else gap.high,
            }
            for point in front.points
            for gap in (point.difference,)
        ]
    )
