"""Best learning rate over the width of the encoder, for each parametrization.

With the maximal update parametrization (Yang et al. 2022, arXiv 2203.03466) the best rate should be
the same at all widths; with the standard one it falls as the width grows.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lab.config.trial import Path
from lab.reporting import sentences
from lab.reporting.scaling.end_points import RATE
from lab.reporting.tables import Table
from lab.scaling.rate_trend import best_rate
from lab.tracking import tags
from lab.tracking.frames import SweepFrames

_KIND: Path = "encoder.parametrization.kind"
_WIDTH: Path = "encoder.hidden"
_STANDARD = "standard"
_DRAWS = 500
_LEVEL = 0.9
_MOST_LOST = 0.05  # share of resamples without a minimum, above which an interval has no limit


@dataclass(frozen=True, kw_only=True)
class _Optimum:
    """Best rate of one width.

    Attributes:
        rate: the best rate; NaN without a minimum inside of the rates that were run.
        draws_S: best rate of each resample of the runs; NaN without a minimum.
        problem: why there is no minimum; empty if there is one.
    """

    rate: float
    draws_S: "np.ndarray[tuple[int], np.dtype[np.float64]]"
    problem: str


def drift_table(frames: SweepFrames) -> Table | None:
    """Return the table of best rates by width and parametrization.

    None without a loss as the ranking metric, two widths, or three rates at a width. If budgets
    are compared, the trials are those of the largest one.

    Args:
        frames: frames of the sweep; all finished trials count, those of the search included.
    """
    runs = frames.trials[frames.trials["score"].notna()]
    needed = (RATE, _WIDTH, tags.BUDGET_AMOUNT)
    if frames.metric.direction != "minimize" or any(name not in runs for name in needed):
        return None
    largest = runs[runs[tags.BUDGET_AMOUNT] == runs[tags.BUDGET_AMOUNT].max()]
    kinds = largest[_KIND].fillna(_STANDARD) if _KIND in largest else _STANDARD
    groups = largest.assign(kind=kinds).groupby(["kind", _WIDTH], sort=True)
    optima = {
        (str(kind), float(width)): _find_optimum(group)
        for (kind, width), group in groups
        if group[RATE].nunique() > 2
    }
    widths = sorted({width for _, width in optima})
    if len(widths) < 2:
        return None
    rows = [
        [
            kind,
            *(_describe(optima.get((kind, width))) for width in widths),
            _describe_ratio(optima.get((kind, widths[0])), optima.get((kind, widths[-1]))),
        ]
        for kind in sorted({kind for kind, _ in optima}, reverse=True)
    ]
    caption = (
        f"Best learning rate over the width of the encoder: the minimum of a parabola of log "
        f"{frames.metric.name} over the log rate, with {_LEVEL:.0%} intervals of {_DRAWS} "
        f"resamples of the runs of each rate. The last column is the best rate at width "
        f"{widths[-1]:g} divided by that at width {widths[0]:g}."
    )
    head = ("parametrization", *(f"width {width:g}" for width in widths), "ratio")
    return Table(caption=caption, head=head, rows=rows, file="rate_drift.csv")


def _find_optimum(runs: pd.DataFrame) -> _Optimum:
    rates, losses = runs[RATE].to_numpy(dtype=float), runs["score"].to_numpy(dtype=float)
    found = best_rate({}, rates, losses)
    generator = np.random.default_rng(0)
    draws = np.full(_DRAWS, np.nan)
    by_rate = [np.flatnonzero(rates == rate) for rate in np.unique(rates)]
    for number in range(_DRAWS):
        chosen = np.concatenate([generator.choice(each, len(each)) for each in by_rate])
        drawn = best_rate({}, rates[chosen], losses[chosen])
        draws[number] = math.nan if drawn.problem else drawn.rate
    rate = math.nan if found.problem else found.rate
    return _Optimum(rate=rate, draws_S=draws, problem=found.problem)


def _describe(optimum: _Optimum | None) -> str:
    if optimum is None:
        return sentences.NONE
    if optimum.problem:
        return optimum.problem
    return f"{optimum.rate:.3g} {_format_ends(optimum.draws_S)}"


def _describe_ratio(first: _Optimum | None, last: _Optimum | None) -> str:
    if first is None or last is None or first.problem or last.problem:
        return sentences.NONE
    return f"{last.rate / first.rate:.2f} {_format_ends(last.draws_S / first.draws_S)}"


def _format_ends(draws_S: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> str:
    known = draws_S[np.isfinite(draws_S)]
    if len(known) < (1 - _MOST_LOST) * len(draws_S):
        return "(no limits)"
    low, high = np.quantile(known, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return f"[{low:.3g}, {high:.3g}]"
