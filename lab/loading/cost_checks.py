"""Checks of the constraints and of the second objective against the trials of an experiment."""

from collections.abc import Callable, Mapping, Sequence

from lab.config.costs.constraints import Measured, measure_trial
from lab.config.costs.second_objective import COSTS, compute_cost
from lab.config.experiment import Experiment
from lab.config.labels import label
from lab.config.trial import Path, Trial, Value
from lab.loading.error_messages import SpaceError

Settings = Mapping[Path, Value]


def check_constraints(
    experiment: Experiment,
    corners: Sequence[Sequence[Settings]],
    build: Callable[[Settings], Trial],
) -> None:
    """Reject cells that violate a constraint with all values of their tuned settings.

    All constrained quantities grow with each setting that they depend on, or do not depend on it.
    A cell is therefore rejected if it violates a constraint where each tuned setting has that of
    its ends at which the quantities are smallest.

    Args:
        experiment: the experiment.
        corners: settings of each cell that vary one tuned setting at a time, those with the first
            value of all of them first.
        build: function that returns the trial of some settings.

    Raises:
        SpaceError: a cell violates a constraint.
    """
    violations: list[tuple[str, Measured]] = []
    for settings in corners:
        smallest = _smallest(experiment, settings, build)
        violated = [m for m in _measure(experiment, smallest, build) if m.excess > 0]
        if violated:
            cell = {path: smallest[path] for path in experiment.compare}
            violations.append((label(cell, experiment.compare) or "every trial", violated[0]))
    if violations:
        name, first = violations[0]
        more = len(violations) - 1
        tuned = " with all values under tune" if experiment.tune else ""
        others = f"; {more} more cell{'s' * (more > 1)} violate{'s' * (more == 1)} constraints"
        raise SpaceError(
            f"constraints.{first.name}: {name} has {first.value:,.7g}{tuned}, above the limit of "
            f"{first.limit:,.7g}{others * bool(more)}; remove the setting, or raise the limit"
        )


def check_cost(experiment: Experiment, trials: Sequence[Trial]) -> None:
    """Check the second objective.

    Args:
        experiment: the experiment.
        trials: trials with each compared value and each end or choice of the tuned settings.

    Raises:
        SpaceError: the report draws no front, the cost is unknown, or it is that of all trials.
    """
    name = experiment.cost
    if name is None:
        return
    if experiment.answer != "ranking":
        raise SpaceError(f"cost: needs answer: ranking, not {experiment.answer}")
    if experiment.search.stopping is not None:
        raise SpaceError(
            "cost: cannot be combined with search.stopping, because Optuna takes no scores from "
            "the middle of trials with two objectives"
        )
    if name == "tokens" and any(trial.budget.kind == "seconds" for trial in trials):
        raise SpaceError(
            "cost: tokens of a budget in seconds are not known before the training; choose "
            "parameters or inference_flops, or a budget in flops"
        )
    costs = {compute_cost(name, trial) for trial in trials}
    if len(costs) == 1:
        raise SpaceError(
            f"cost: all trials have the same {COSTS[name].title}, {costs.pop():,.6g}; compare or "
            f"tune a setting that changes it, or remove cost"
        )


def _smallest(
    experiment: Experiment, corners: Sequence[Settings], build: Callable[[Settings], Trial]
) -> Settings:
    """Return the settings of a cell in which each tuned one has its least expensive value."""
    first = corners[0]
    if not experiment.tune:
        return first
    excess = [max(m.excess for m in _measure(experiment, each, build)) for each in corners]
    chosen = dict(first)
    for path in experiment.tune:
        own = [i for i, each in enumerate(corners) if i == 0 or each[path] != first[path]]
        chosen[path] = corners[min(own, key=excess.__getitem__)][path]
    return chosen


def _measure(
    experiment: Experiment, settings: Settings, build: Callable[[Settings], Trial]
) -> tuple[Measured, ...]:
    """Return the values of the constrained quantities; none for settings that are no valid trial.

    A combination of tuned values can be invalid although each of them is valid by itself.
    """
    try:
        trial = build(settings)
    except SpaceError:
        return ()
    return tuple(measure_trial(experiment.constraints, trial).values())
