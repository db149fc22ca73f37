"""Simulate the selection of a nuisance parameter: `python -m benchmarks.selection`.

Its output of 1,000 draws is reports/simulations/selection.txt.

Each of three cells has a few candidate values of a nuisance parameter. A scenario states their true
scores in units of the standard deviation between seeds. A simulated sweep draws the scores
of its trials, selects a candidate for each cell and compares the cells by the intervals of
`lab.reporting.intervals`. The table shows, for each design of the search:

- trials: number of trials of a sweep;
- false: share of sweeps that tell apart two cells although their best candidates are equally good,
  or in the wrong direction;
- coverage: share of sweeps in which all intervals of differences from the best cell contain the
  difference between the best candidates;
- power: share of sweeps that call a cell worse if its best candidate is 2.5 deviations worse.
"""

import argparse
from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lab.reporting.intervals import difference_interval

Floats = NDArray[np.float64]
Sweep = tuple[pd.DataFrame, int | None]  # scores by seed and cell; number of selected settings

_NAMES = ("a", "b", "c")
_EFFECT = -2.5


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
    unequal = np.ones((3, 3))
    unequal[:, 1] = 2
    ones = np.ones((3, 3))
    return {
        "all equal": (np.zeros((3, 3)), ones),
        "rounded optimum": (rounded, ones),
        "sharp optimum": (sharp, ones),
        "one cell flat": (one_flat, ones),
        "one cell flat, 8 candidates": (many, np.ones((3, 8))),
        "unequal noise": (rounded, unequal),
    }


def _designs(candidates: int) -> dict[str, tuple[int, Callable[..., Sweep]]]:
    """Return the number of trials and the simulation of each design, by its name."""
    designs: dict[str, tuple[int, Callable[..., Sweep]]] = {}
    for tried, seeds in ((1, 4), (1, 8), (2, 4)):
        name = f"best_setting: selected by {tried}, repeated by {seeds} seeds"
        designs[name] = (3 * (candidates * tried + seeds), _repeat_best(tried, seeds))
    designs["whole search repeated 4 times"] = (3 * (candidates + 1) * 4, _repeat_searches(4))
    for seeds in (3, 4, 6):
        designs[f"every_setting: {seeds} seeds"] = (3 * candidates * seeds, _repeat_every(seeds))
    return designs


def _draw(rng: np.random.Generator, centers: Floats, deviations: Floats, seeds: int) -> Floats:
    """Return scores of shape (cells, candidates, seeds)."""
    noise = rng.standard_normal((*centers.shape, seeds))
    return centers[..., None] + deviations[..., None] * noise


def _table(scores: Floats) -> pd.DataFrame:
    return pd.DataFrame(scores.T, columns=list(_NAMES))


def _repeat_best(tried: int, seeds: int) -> Callable[..., Sweep]:
    def sample(rng: np.random.Generator, centers: Floats, deviations: Floats) -> Sweep:
        best = _draw(rng, centers, deviations, tried).mean(axis=2).argmax(axis=1)
        return _table(_draw(rng, centers, deviations, seeds)[np.arange(3), best]), None

    return sample


def _repeat_searches(searches: int) -> Callable[..., Sweep]:
    def sample(rng: np.random.Generator, centers: Floats, deviations: Floats) -> Sweep:
        best = _draw(rng, centers, deviations, searches).argmax(axis=1)  # cells, searches
        fresh = _draw(rng, centers, deviations, searches)
        return _table(np.take_along_axis(fresh, best[:, None, :], axis=1)[:, 0]), None

    return sample


def _repeat_every(seeds: int) -> Callable[..., Sweep]:
    def sample(rng: np.random.Generator, centers: Floats, deviations: Floats) -> Sweep:
        scores = _draw(rng, centers, deviations, seeds)
        best = scores.mean(axis=2).argmax(axis=1)
        return _table(scores[np.arange(3), best]), centers.size

    return sample


def _measure(
    centers: Floats, deviations: Floats, sample: Callable[..., Sweep], draws: int
) -> dict[str, float]:
    rng = np.random.default_rng(0)
    truth = dict(zip(_NAMES, centers.max(axis=1), strict=True))
    false = covered = found = 0
    for _ in range(draws):
        table, settings = sample(rng, centers, deviations)
        top = str(table.mean().idxmax())
        gaps = {c: difference_interval(table, c, top, settings) for c in _NAMES if c != top}
        false += any(gap.high < 0 and truth[c] >= truth[top] for c, gap in gaps.items())
        covered += all(gap.low <= truth[c] - truth[top] <= gap.high for c, gap in gaps.items())
        shifted = centers + np.array([[0.0], [0.0], [_EFFECT]])
        table, settings = sample(rng, shifted, deviations)
        top = str(table.drop(columns="c").mean().idxmax())
        found += difference_interval(table, "c", top, settings).high < 0
    return {"false": false / draws, "coverage": covered / draws, "power": found / draws}


if __name__ == "__main__":
    main()
