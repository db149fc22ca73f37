"""Search designs: grid, random and quasi-random points, each a function of its number.

A point does not depend on the scores of other points. Points can therefore be computed in any
order and again after a crash, and part of a search can be analysed as a search of its own.
"""

import itertools
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from lab.config.experiment import Choices, Distribution, Experiment, Range
from lab.config.trial import Path, Value


def search_points(experiment: Experiment) -> int:
    """Return the number of search trials of each cell."""
    if not experiment.tune:
        return 0
    if experiment.search.sampler == "grid":
        return len(grid_points(experiment.tune, experiment.search.trials))
    return experiment.search.trials


def search_repeats(experiment: Experiment) -> range:
    """Return the repeats in which every setting of the search is trained; 0 is the search's own."""
    every = experiment.tune and experiment.search.repeated == "every_setting"
    return range(1, experiment.search.seeds + 1) if every else range(1)


def best_repeats(experiment: Experiment) -> range:
    """Return the repeats in which only the best setting of a cell is trained."""
    trained_before = search_repeats(experiment) != range(1)
    return range(0) if trained_before else range(1, experiment.search.seeds + 1)


def trials_of_cell(experiment: Experiment) -> int:
    """Return the number of trials of each cell: search trials and repeats of the best setting."""
    searched = search_points(experiment) * len(search_repeats(experiment))
    return searched + len(best_repeats(experiment))


def startup_points(experiment: Experiment) -> int:
    """Return the number of quasi-random points before an adaptive sampler's first own point."""
    return max(4, 2 * len(experiment.tune))


def designed_point(experiment: Experiment, number: int) -> dict[Path, Value] | None:
    """Return point `number` of a cell's search; None where an adaptive sampler chooses it."""
    tune, search = experiment.tune, experiment.search
    match search.sampler:
        case "grid":
            return grid_points(tune, search.trials)[number]
        case "random":
            return random_points(tune, search.seed, number)
        case "tpe" | "gp" if number >= startup_points(experiment):
            return None
        case _:
            return halton_points(tune, search.seed, number)


def grid_points(tune: Mapping[Path, Distribution], trials: int) -> list[dict[Path, Value]]:
    """Return a full grid of at most `trials` points.

    The grid has all choices, and the same number of equally spaced values of each range.
    """
    ranges = sum(isinstance(distribution, Range) for distribution in tune.values())
    fixed = int(np.prod([len(d.choices) for d in tune.values() if isinstance(d, Choices)]))
    levels = max(1, int((trials / fixed) ** (1 / ranges) + 1e-9)) if ranges else 1
    axes: list[list[Value]] = []
    for distribution in tune.values():
        if isinstance(distribution, Choices):
            axes.append(list(distribution.choices))
            continue
        quantiles = np.arange(levels) / (levels - 1) if levels > 1 else np.array([0.5])
        quantiles = np.minimum(quantiles, np.nextafter(1.0, 0.0))  # `value_at_quantile` excludes 1
        values = (value_at_quantile(distribution, float(quantile)) for quantile in quantiles)
        axes.append(list(dict.fromkeys(values)))  # integers and steps may repeat
    return [dict(zip(tune, values, strict=True)) for values in itertools.product(*axes)][:trials]


def random_points(tune: Mapping[Path, Distribution], seed: int, number: int) -> dict[Path, Value]:
    """Return point `number` of independent uniform random points."""
    return _point(tune, np.random.default_rng([seed, number]).random(len(tune)))


def halton_points(tune: Mapping[Path, Distribution], seed: int, number: int) -> dict[Path, Value]:
    """Return point `number` of a scrambled Halton sequence."""
    from scipy.stats import qmc  # imported here because the import takes a second

    sequence = qmc.Halton(len(tune), scramble=True, rng=np.random.default_rng(seed))
    return _point(tune, sequence.fast_forward(number).random(1)[0])


def value_at_quantile(distribution: Distribution, quantile: float) -> Value:
    """Return the value of a distribution at a quantile in [0, 1)."""
    match distribution:
        case Choices(choices=choices):
            return choices[int(quantile * len(choices))]
        case Range(low=low, high=high, log=True):
            value = float(low * (high / low) ** quantile)
        case Range(low=low, high=high, step=float() | int() as step):
            value = low + step * int(quantile * (int((high - low) / step + 1e-9) + 1))
        case Range(low=low, high=high, integer=True):
            value = low + int(quantile * (high - low + 1))
        case Range(low=low, high=high):
            value = low + quantile * (high - low)
    if distribution.integer:
        return round(value)
    digits = 6 if distribution.step is None else 15  # a rounded value must stay on the step's grid
    return min(max(float(f"{value:.{digits}g}"), low), high)


def _point(
    tune: Mapping[Path, Distribution], quantiles: npt.NDArray[np.float64]
) -> dict[Path, Value]:
    return {
        path: value_at_quantile(distribution, float(quantile))
        for (path, distribution), quantile in zip(tune.items(), quantiles, strict=True)
    }
