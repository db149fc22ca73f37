"""Constraints of a sweep on the settings of its searches."""

from collections.abc import Mapping
from dataclasses import replace

from lab.config.costs.constraints import (
    Constraints,
    Measured,
    describe_violations,
    has_design_constraints,
    measure_trial,
)
from lab.config.experiment import Experiment
from lab.config.results import Outcome
from lab.config.trial import Path, Trial, Value
from lab.loading.search_space import build_trial
from lab.search.designs import designed_point, search_points


def describe_infeasible(constraints: Constraints, trial: Trial) -> str:
    """Return the constraints that a trial violates before it is trained; empty without any."""
    return describe_violations(measure_trial(constraints, trial))


def measure_outcome(
    constraints: Constraints, trial: Trial, outcome: Outcome
) -> dict[str, Measured]:
    """Return the values of the constrained quantities of a trial that has ended, by constraint."""
    seconds = outcome.rows[-1].get("spent/seconds") if outcome.rows else None
    return measure_trial(constraints, trial, seconds)


def judge_outcome(constraints: Constraints, trial: Trial, outcome: Outcome) -> Outcome:
    """Return the outcome of a search trial in a sweep with these constraints.

    A trial that has finished and violates a constraint is `infeasible`.
    """
    reason = describe_violations(measure_outcome(constraints, trial, outcome))
    if not reason or outcome.state != "finished":
        return outcome
    return replace(outcome, state="infeasible", reason=reason)


def count_infeasible(experiment: Experiment, cell: Mapping[Path, Value]) -> int:
    """Return the number of a cell's search settings that are known to be infeasible.

    Settings that an adaptive sampler chooses by scores are not known in advance.
    """
    if not has_design_constraints(experiment.constraints):
        return 0
    points = (designed_point(experiment, n) for n in range(search_points(experiment)))
    trials = (build_trial(experiment.base, {**cell, **p}) for p in points if p is not None)
    return sum(bool(describe_infeasible(experiment.constraints, trial)) for trial in trials)
