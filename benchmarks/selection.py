"""Simulate the selection of a nuisance parameter: `python -m benchmarks.selection`.

The table of reports/simulations/selection.txt has 400 draws (`--draws 400`).
`benchmarks.whole_search` simulates the designs that the lab has together with its search and its
report.

Each of three cells has a few candidate values of a nuisance parameter. A scenario states their true
scores in units of the standard deviation between seeds. A simulated sweep draws the scores
of its trials, selects a candidate for each cell and compares the cells by the intervals of
`lab.reporting.intervals`. The designs of the search are:

- best_setting: each candidate is trained on one seed (or on several), and the best one is repeated
  on other seeds; the intervals are those of the repeats;
- best_setting, error of the search: the same, with intervals that contain the error of the
  selection (`add_search_error`), as in the lab's reports;
- whole search repeated: a candidate is selected anew for each seed;
- every_setting: each candidate is trained on all seeds, and a cell is represented by the candidate
  with the best mean; the intervals hold for all candidates of all cells at once;
- fitted response: the same trials; a cell is represented by the maximum of a quadratic function of
  the candidate's position, fitted to all its scores, with the interval of the fit.

The table shows for each scenario and design:

- trials: number of trials of a sweep;
- false: share of sweeps that tell apart two cells although their best candidates are equally good,
  or in the wrong direction;
- coverage: share of sweeps in which all intervals of differences from the best cell contain the
  difference between the best candidates;
- power: share of sweeps that call a cell worse if its best candidate is 2.5 deviations worse.
"""

import argparse
import math
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from lab.reporting.intervals import (
    LEVEL,
    Interval,
    add_search_error,
    difference_interval,
    difference_over_settings,
)

Floats = NDArray[np.float64]

_NAMES = ("a", "b", "c")
_EFFECT = -2.5


class Sweep(NamedTuple):
    """Result of a simulated sweep.

    Attributes:
        means: scores by which the cells are ordered.
        difference: function that returns the interval of the difference between two cells.
    """

    means: "pd.Series[float]"
    difference: Callable[[str, str], Interval]


Sample = Callable[[np.random.Generator, Floats, Floats], Sweep]


def main() -> None:
    """Print a table of all designs and scenarios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.selection", description=__doc__)
    parser.add_argument("--draws", type=int, default=1_000, help="sweeps a row (default: 1,000)")
    draws = parser.parse_args().draws
    rows = [
        {"scenario": scenario, "design": design, "trials": trials}
        | _measure(centers, deviations, sample, draws)
        for scenario, (centers, deviations) in _scenarios().items()
        for design, (trials, sample) in _designs(centers.shape[1]).items()
    ]
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3f}".format))


def _scenarios() -> dict[str, tuple[Floats, Floats]]:
    """Return true scores and deviations between seeds, (3 cells, candidates), by scenario."""
    rounded = np.array([[0.0, -1, -3], [-1, 0, -3], [-3, 0, -1]])
    sharp = np.array([[0.0, -2, -4], [-2, 0, -2], [-4, -2, 0]])
    one_flat = np.full((3, 3), -4.0)
    one_flat[0] = one_flat[1, 0] = one_flat[2, 1] = 0.0
    many = np.full((3, 8), -4.0)
    many[0] = many[1, 0] = many[2, 1] = 0.0
    position = np.linspace(-1, 1, 5)
    smooth = np.stack([-4 * (position - best) ** 2 for best in (-0.5, 0, 0.5)])
    unequal = np.ones((3, 3))
    unequal[:, 1] = 2
    ones = np.ones((3, 3))
    return {
        "all equal": (np.zeros((3, 3)), ones),
        "rounded optimum": (rounded, ones),
        "sharp optimum": (sharp, ones),
        "smooth optimum, 5 candidates": (smooth, np.ones((3, 5))),
        "one cell flat": (one_flat, ones),
        "one cell flat, 8 candidates": (many, np.ones((3, 8))),
        "unequal noise": (rounded, unequal),
    }


def _designs(candidates: int) -> dict[str, tuple[int, Sample]]:
    """Return the number of trials and the simulation of each design, by its name."""
    designs: dict[str, tuple[int, Sample]] = {}
    for error in (False, True):
        for tried, seeds in ((1, 4), (1, 8), (2, 4)):
            name = f"best_setting{', error of the search' * error}: by {tried}, {seeds} seeds"
            trials = 3 * (candidates * tried + seeds)
            designs[name] = (trials, _repeat_best(tried, seeds, error=error))
    designs["whole search repeated 4 times"] = (3 * (candidates + 1) * 4, _repeat_searches(4))
    for seeds in (3, 4, 6):
        designs[f"every_setting: {seeds} seeds"] = (3 * candidates * seeds, _repeat_every(seeds))
    for seeds in (3, 4, 6):
        designs[f"fitted response: {seeds} seeds"] = (3 * candidates * seeds, _fit_response(seeds))
    return designs


def _draw(rng: np.random.Generator, centers: Floats, deviations: Floats, seeds: int) -> Floats:
    """Return scores of shape (cells, candidates, seeds)."""
    noise = rng.standard_normal((*centers.shape, seeds))
    return centers[..., None] + deviations[..., None] * noise


def _repeat_best(tried: int, seeds: int, *, error: bool) -> Sample:
    def sample(rng: np.random.Generator, centers: Floats, deviations: Floats) -> Sweep:
        searched = _draw(rng, centers, deviations, tried).mean(axis=2)
        best = searched.argmax(axis=1)
        table = pd.DataFrame(
            _draw(rng, centers, deviations, seeds)[np.arange(3), best].T, columns=list(_NAMES)
        )
        runners_up = dict(zip(_NAMES, np.sort(searched, axis=1)[:, -2], strict=True))

        def difference(c: str, other: str) -> Interval:
            gap = difference_interval(table, c, other)
            known = runners_up if error else {}
            return add_search_error(gap, table, (c, other), known, maximize=True)

        return Sweep(table.mean(), difference)

    return sample


def _repeat_searches(searches: int) -> Sample:
    def sample(rng: np.random.Generator, centers: Floats, deviations: Floats) -> Sweep:
        best = _draw(rng, centers, deviations, searches).argmax(axis=1)  # cells, searches
        fresh = _draw(rng, centers, deviations, searches)
        scores = np.take_along_axis(fresh, best[:, None, :], axis=1)[:, 0]
        table = pd.DataFrame(scores.T, columns=list(_NAMES))
        return Sweep(table.mean(), lambda c, other: difference_interval(table, c, other))

    return sample


def _repeat_every(seeds: int) -> Sample:
    def sample(rng: np.random.Generator, centers: Floats, deviations: Floats) -> Sweep:
        scores = _draw(rng, centers, deviations, seeds)
        candidates = range(centers.shape[1])
        names = {cell: [f"{cell}{each}" for each in candidates] for cell in _NAMES}
        table = pd.DataFrame(
            scores.reshape(-1, seeds).T, columns=[n for each in names.values() for n in each]
        )
        means = scores.mean(axis=2)
        best = {c: names[c][int(i)] for c, i in zip(_NAMES, means.argmax(axis=1), strict=True)}

        def difference(c: str, other: str) -> Interval:
            between = partial(difference_interval, table, settings=centers.size)
            pair = (best[c], best[other])
            return difference_over_settings(between, pair, (names[c], names[other]), maximize=True)

        return Sweep(pd.Series(means.max(axis=1), index=list(_NAMES)), difference)

    return sample


def _fit_response(seeds: int) -> Sample:
    def sample(rng: np.random.Generator, centers: Floats, deviations: Floats) -> Sweep:
        scores = _draw(rng, centers, deviations, seeds)
        position = np.repeat(np.linspace(-1, 1, centers.shape[1]), seeds)
        design = np.stack([np.ones_like(position), position, position**2], axis=1)
        freedom = len(design) - 3
        grid = np.linspace(-1, 1, 201)
        rows = np.stack([np.ones_like(grid), grid, grid**2], axis=1)
        inverse = np.linalg.inv(design.T @ design)
        best, squares = {}, {}  # fitted maximum and its squared standard error, by cell
        for name, cell in zip(_NAMES, scores.reshape(3, -1), strict=True):
            fit = inverse @ design.T @ cell
            residual = float(((cell - design @ fit) ** 2).sum()) / freedom
            top = rows[int((rows @ fit).argmax())]
            best[name] = float(top @ fit)
            squares[name] = residual * float(top @ inverse @ top)

        def difference(c: str, other: str) -> Interval:
            error = squares[c] + squares[other]
            welch = freedom * error**2 / (squares[c] ** 2 + squares[other] ** 2)
            tenths = math.floor(10 * welch) / 10
            half = float(_range_quantile(tenths)) / math.sqrt(2) * math.sqrt(error)
            mean = best[c] - best[other]
            return Interval(mean=mean, low=mean - half, high=mean + half, n=seeds)

        return Sweep(pd.Series(best), difference)

    return sample


@cache
def _range_quantile(freedom: float) -> float:
    return float(stats.studentized_range.ppf(LEVEL, len(_NAMES), freedom))


def _measure(centers: Floats, deviations: Floats, sample: Sample, draws: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    truth = dict(zip(_NAMES, centers.max(axis=1), strict=True))
    false = covered = found = 0
    for _ in range(draws):
        means, difference = sample(rng, centers, deviations)
        top = str(means.idxmax())
        gaps = {c: difference(c, top) for c in _NAMES if c != top}
        false += any(gap.high < 0 and truth[c] >= truth[top] for c, gap in gaps.items())
        covered += all(gap.low <= truth[c] - truth[top] <= gap.high for c, gap in gaps.items())
        shifted = centers + np.array([[0.0], [0.0], [_EFFECT]])
        means, difference = sample(rng, shifted, deviations)
        found += difference("c", str(means.drop("c").idxmax())).high < 0
    return {"false": false / draws, "coverage": covered / draws, "power": found / draws}


if __name__ == "__main__":
    main()
