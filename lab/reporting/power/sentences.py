"""Sentences on the power of a sweep: what its design finds, and what would separate its ties."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from lab.config.experiment import Experiment
from lab.formatting import format_duration
from lab.loading.search_space import expand_cells
from lab.reporting.power.design import Design, detectable_difference, seeds_to_find
from lab.reporting.sentences import format_quantity, format_score
from lab.reporting.stats import Answer, Cell
from lab.search.designs import search_points, search_repeats
from lab.search.seed_noise import SeedNoise
from lab.tracking import tags
from lab.tracking.frames import SweepFrames

_SHOWN = 3  # tied cells
_UNEQUAL = 4.0  # ratio of deviations above which their range is printed
_COST_LIMIT = 30  # times the compute of a sweep, up to which more seeds are suggested
_TOO_FEW = "with 1 seed, no difference can be found, because there is no interval"
_SEARCHED = "; the error of selecting nuisance parameters by single trials adds to it"
_CROSSED = "; the choice between nuisance parameters adds to it"


@dataclass(frozen=True, kw_only=True)
class _SeedCost:
    """Cost of one more seed for all settings of a sweep, and of the whole sweep.

    Attributes:
        flops: training FLOPs of one seed.
        seconds: wall-clock seconds of one seed on the sweep's slots; NaN if they are unknown.
        sweep_flops: training FLOPs of all trials of the sweep.
    """

    flops: float
    seconds: float
    sweep_flops: float


def describe_plan(experiment: Experiment, noise: SeedNoise | None) -> str | None:
    """Return the smallest difference that a planned sweep is likely to find, in one sentence.

    Args:
        experiment: planned experiment.
        noise: spread of the metric between seeds; None if it is unknown.

    Returns:
        None for an experiment that compares nothing.
    """
    cells, repeats = len(expand_cells(experiment)), search_repeats(experiment)
    if experiment.answer != "ranking" or cells < 2:
        return None
    settings = cells * search_points(experiment) if repeats != range(1) else cells
    seeds, searched = experiment.search.seeds, bool(experiment.tune) and repeats == range(1)
    if seeds < 2:
        return _TOO_FEW
    note = _SEARCHED if searched else _CROSSED * (settings > cells)
    if noise is None:
        found = detectable_difference(Design(seeds=seeds, settings=settings, deviation=1.0))
        return _sentence(
            seeds,
            f"{found:.2g} times the seed standard deviation",
            f"the seed standard deviation of {experiment.metric.name} is unknown: the storage has "
            f"no repeated trials of this metric and encoder shape{note}",
        )
    design = Design(seeds=seeds, settings=settings, deviation=noise.deviation)
    budget = "this budget" if noise.budget is None else f"a budget of {noise.budget}"
    return _sentence(
        seeds,
        format_score(detectable_difference(design)),
        f"seed standard deviation {format_score(noise.deviation)}, from {noise.trials} trials in "
        f"the storage with this encoder shape and {budget}{note}",
    )


def describe_power(
    frames: SweepFrames, result: Answer | None, runs: pd.DataFrame
) -> list[tuple[str, str]]:
    """Return lines on the power of a sweep: its smallest difference, and what separates its ties.

    Args:
        frames: frames of the sweep.
        result: comparison of the cells; None if no trial has finished.
        runs: trials by which the cells are compared (`stats.scored_trials`).

    Returns:
        Pairs of a key and a text; none for a sweep that compares nothing.
    """
    if frames.answer != "ranking" or result is None or len(result.cells) < 2:
        return []
    seeds = min(cell.score.n for cell in result.cells)
    if seeds < 2:
        return [("power", _TOO_FEW)]
    settings = result.settings or len(result.cells)
    deviation = _deviation(runs, result.cells, settings)
    error = 0.0 if math.isnan(result.test_error) else result.test_error
    design = Design(seeds=seeds, settings=settings, deviation=deviation, test_error=error)
    searched = not result.settings and frames.trials["tuned"].nunique() > 1
    note = f"seed standard deviation {format_score(deviation)}{_range(result)}, from this sweep"
    note += _SEARCHED if searched else _CROSSED * (settings > len(result.cells))
    found = _sentence(seeds, format_score(detectable_difference(design)), note)
    ties = "\n".join(_describe_ties(frames, result, runs, design))
    return [("power", found), *([("to separate ties", ties)] if ties else [])]


def _range(result: Answer) -> str:
    """Return the smallest and the largest deviation of a setting, where they differ much."""
    deviations = [cell.sd for cell in result.cells if not math.isnan(cell.sd)]
    if len(deviations) < 3 or max(deviations) < _UNEQUAL * min(deviations):
        return ""
    ends = " to ".join(map(format_score, (min(deviations), max(deviations))))
    return (
        f", pooled over settings with {ends}; smaller differences are found between those that "
        "vary less"
    )


def _sentence(seeds: int, difference: str, note: str) -> str:
    found = f"a difference of {difference} would be found in 8 of 10 sweeps"
    return f"with {seeds} seeds, {found} ({note})"


def _deviation(runs: pd.DataFrame, cells: Sequence[Cell], settings: int) -> float:
    """Return the standard deviation between seeds that determines differences between cells.

    For two cells, whose interval is that of paired differences, it is the standard deviation of
    these differences divided by the square root of 2.
    """
    if settings > 2:
        squares = [(cell.score.n - 1, cell.sd) for cell in cells if cell.score.n > 1]
        return math.sqrt(sum(n * sd**2 for n, sd in squares) / sum(n for n, _ in squares))
    table = runs.pivot_table(index="repeat", columns="cell", values="score", sort=False)
    first, second = (table[cell.label] for cell in cells)
    return float((first - second).std(ddof=1)) / math.sqrt(2)


def _describe_ties(
    frames: SweepFrames, result: Answer, runs: pd.DataFrame, design: Design
) -> list[str]:
    """Return sentences on the seeds that would separate tied cells from the best one.

    They are about the `_SHOWN` cells that are nearest to the best one.
    """
    best, cost = result.cells[0], _cost_of_seed(frames)
    tied = [
        cell
        for cell in result.cells[1:]
        if cell.tied and cell.difference is not None and not math.isnan(cell.difference.low)
    ]
    sentences = []
    for cell in tied[:_SHOWN]:
        assert cell.difference is not None  # noqa: S101 - see `tied`
        pair = replace(design, deviation=_deviation(runs, (best, cell), design.settings))
        difference = abs(cell.difference.mean)
        most = design.seeds + int((_COST_LIMIT - 1) * cost.sweep_flops / cost.flops)
        needed = seeds_to_find(pair, difference, most)
        sentences.append(
            f"if the true difference between {best.label} and {cell.label} is the observed "
            f"{format_score(difference)}, {_describe_seeds(needed, design.seeds, cost)}"
        )
    if (more := len(tied) - _SHOWN) > 0:
        noun = "setting is" if more == 1 else "settings are"
        sentences.append(f"{more} more {noun} tied, with larger observed differences")
    return sentences


def _describe_seeds(needed: int | None, seeds: int, cost: _SeedCost) -> str:
    if needed is None:
        return f"no number of seeds within {_COST_LIMIT} times this sweep's cost is enough"
    if needed <= seeds:
        return f"{seeds} seeds find it in 8 of 10 sweeps, but did not in this one"
    more = needed - seeds
    duration = "" if math.isnan(cost.seconds) else f", {format_duration(more * cost.seconds)}"
    return (
        f"{needed} seeds of each setting would separate them in 8 of 10 sweeps: {more} more of "
        f"each, together {format_quantity(more * cost.flops, 'FLOP')}{duration}"
    )


def _cost_of_seed(frames: SweepFrames) -> _SeedCost:
    """Return the cost of one more seed, from the finished repeats of the sweep."""
    trials = frames.trials
    repeated = trials[trials["score"].notna() & (trials["repeat"] > 0)]
    count = repeated["repeat"].nunique()
    seconds = repeated.get(tags.SLOT_SECONDS, pd.Series([math.nan]))
    return _SeedCost(
        flops=float(repeated["spent/flops"].sum()) / count,
        seconds=float(seconds.sum(skipna=False)) / count / frames.measures.get("slots", 1.0),
        sweep_flops=float(trials["spent/flops"].sum()),
    )
