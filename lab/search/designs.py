"""Points of a search that are functions of their number: grid, random and quasi-random.

They can be asked for in any order, by any number of workers, again after a crash, and re-analysed
afterwards as if the search had been another one (methodology: quasi-random first).
"""

import itertools
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from lab.config.experiment import Choices, Distribution, Experiment, Range
from lab.config.trial import Path, Value


def search_points(experiment: Experiment) -> int:
    """Return how many settings each cell's search tries."""
    if not experiment.tune:
        return 0
    if experiment.search.sampler == "grid":
        return len(grid_points(experiment.tune, experiment.search.trials))
    return experiment.search.trials


def grid_points(tune: Mapping[Path, Distribution], trials: int) -> list[dict[Path, Value]]:
    """Return a full grid of at most `trials` points: all choices, ranges cut equally fine."""
    ranges = sum(isinstance(distribution, Range) for distribution in tune.values())
    fixed = int(np.prod([len(d.choices) for d in tune.values() if isinstance(d, Choices)]))
    levels = max(1, int((trials / fixed) ** (1 / ranges) + 1e-9)) if ranges else 1
    axes: list[list[Value]] = []
    for distribution in tune.values():
        if isinstance(distribution, Choices):
            axes.append(list(distribution.choices))
            continue
        places = np.arange(levels) / (levels - 1) if levels > 1 else np.array([0.5])
        places = np.minimum(places, np.nextafter(1.0, 0.0))
        axes.append(list(dict.fromkeys(value_at_quantile(distribution, float(u)) for u in places)))
    return [dict(zip(tune, values, strict=True)) for values in itertools.product(*axes)][:trials]


def random_points(tune: Mapping[Path, Distribution], seed: int, number: int) -> dict[Path, Value]:
    """Return the `number`-th independent uniform point."""
    return _point(tune, np.random.default_rng([seed, number]).random(len(tune)))


def halton_points(tune: Mapping[Path, Distribution], seed: int, number: int) -> dict[Path, Value]:
    """Return the `number`-th point of a scrambled Halton sequence."""
    from scipy.stats import qmc  # here, because it takes a second to import

    sequence = qmc.Halton(len(tune), scramble=True, rng=np.random.default_rng(seed))
    return _point(tune, sequence.fast_forward(number).random(1)[0])


def value_at_quantile(distribution: Distribution, place: float) -> Value:
    """Return the value at `place` in [0, 1) of a distribution."""
    match distribution:
        case Choices(choices=choices):
            return choices[int(place * len(choices))]
        case Range(low=low, high=high, log=True):
            value = float(low * (high / low) ** place)
        case Range(low=low, high=high, step=float() | int() as step):
            value = low + step * int(place * (int((high - low) / step + 1e-9) + 1))
        case Range(low=low, high=high, integer=True):
            value = low + int(place * (high - low + 1))
        case Range(low=low, high=high):
            value = low + place * (high - low)
    if distribution.integer:
        return round(value)
    digits = 6 if distribution.step is None else 15  # rounding must not leave the step's grid
    return min(max(float(f"{value:.{digits}g}"), low), high)


def _point(tune: Mapping[Path, Distribution], places: npt.NDArray[np.float64]) -> dict[Path, Value]:
    return {
        path: value_at_quantile(distribution, float(place))
        for (path, distribution), place in zip(tune.items(), places, strict=True)
    }
