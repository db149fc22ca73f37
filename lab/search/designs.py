"""Search designs: grid, random and quasi-random points, each a function of its number.

A point does not depend on the scores of other points. Points can therefore be computed in any
order and again after a crash, and part of a search can be analysed as a search of its own.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lab.config.experiment import Choices, Distribution, Experiment, Range, Role
from lab.config.schedules.trunks import branch_points
from lab.config.trial import Path, Value
from lab.loading import search_space
from lab.search.halving import count_continuing


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


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Trials of a cell with one budget that are planned together.

    Attributes:
        name: short name; empty if the cell has no other stage.
        share: share of the full budget.
        before: share for which the stage before has trained the same settings; 0 without one.
        trials: number of trials by repeat (`Job.repeat`).
        rung: whether the trials end at a rung.
        infeasible: number of search settings that are left out because they violate a constraint.
    """

    name: str
    share: float
    before: float
    trials: Mapping[int, int]
    rung: bool = False
    infeasible: int = 0

    @property
    def count(self) -> int:
        """Number of all trials of the stage."""
        return sum(self.trials.values())


def list_stages(experiment: Experiment, infeasible: int = 0) -> tuple[Stage, ...]:
    """Return the stages of a cell in order: one, or with halving each rung, the rest, repeats.

    Args:
        experiment: experiment to run.
        infeasible: number of the cell's search settings that are not trained.
    """
    points, halving = search_points(experiment), experiment.search.stopping
    repeats = dict.fromkeys(best_repeats(experiment), 1)
    if halving is None or not points:
        searched = dict.fromkeys(search_repeats(experiment), points - infeasible)
        trials = searched | repeats
        return (Stage(name="", share=1.0, before=0.0, trials=trials, infeasible=infeasible),)
    stages: list[Stage] = []
    before, trained = 0.0, points
    for share in (*halving.shares, 1.0):
        stages.append(
            Stage(
                name=f"rung at {share:.3g} of the budget" if share < 1 else "after the last rung",
                share=share,
                before=before,
                trials={0: min(trained, points - infeasible)},
                rung=share < 1,
                infeasible=0 if stages else infeasible,
            )
        )
        before, trained = share, count_continuing(trained, halving.factor)
    return (*stages, Stage(name="repeats", share=1.0, before=0.0, trials=repeats))


def find_branch_points(experiment: Experiment) -> dict[Role, tuple[float, ...]]:
    """Return the budgets at which trials leave their trunks, by role of the job with the trial.

    Trials at rungs are search trials only, so the trunks of repeats are not divided for them.
    """
    cells = search_space.expand_cells(experiment)
    trials = [search_space.build_trial(experiment.base, cell) for cell in cells]
    halving = experiment.search.stopping
    at_rungs = [] if halving is None else [rung for t in trials for rung in halving.rungs(t)]
    return {
        "search": branch_points([*trials, *at_rungs]),
        "repeat": branch_points(trials),
    }


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
