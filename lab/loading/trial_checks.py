"""Consistency checks of the settings of one trial."""

import math

from lab.config.budget import Cost
from lab.config.flops import mean_cost
from lab.config.init_from import FromCheckpoint, FromScratch
from lab.config.preparatory_runs import GENERATOR, preparatory_runs, training_budget
from lab.config.schedules.trunk import TrunkSchedule
from lab.config.schedules.window_growth import GrowingWindows
from lab.config.trial import Trial
from lab.loading.error_messages import SpaceError

_LEAST_COOLDOWN = 2  # steps


def check_trial(trial: Trial) -> None:
    """Check the settings of a trial against each other.

    Raises:
        SpaceError: a check fails; the message has the dotted path below `base`.
    """
    try:
        trial.objective.generator_shape(trial.encoder)
    except ValueError as error:
        raise SpaceError(f"base.objective.generator: {error}") from None
    _check_init_from(trial)
    _check_windows(trial)
    try:
        cost = mean_cost(trial)
        _check_preparatory_runs(trial)
        steps = training_budget(trial).steps(cost)
    except OverflowError:
        raise SpaceError("base: the compute of one step is too large a number") from None
    if steps is not None:
        _check_steps(trial, cost, steps)
    if isinstance(trial.schedule, TrunkSchedule):
        _check_trunk(trial, trial.schedule, cost)


def _check_steps(trial: Trial, cost: Cost, steps: int) -> None:
    """Reject a budget with too few steps for one step, the objective or growing windows.

    Args:
        trial: the trial.
        cost: mean cost of a step.
        steps: number of steps that the trial's own budget pays for.
    """
    if steps < 1:
        unit = cost.flops if trial.budget.kind == "flops" else cost.tokens
        spent = trial.budget.amount - training_budget(trial).amount
        less = f", less the {spent:.4g} of its preparatory mlm runs," if spent else ""
        raise SpaceError(
            f"base.budget.amount: {trial.budget.amount:g} {trial.budget.kind}{less} are less "
            f"than one step, which costs {unit:.3g}"
        )
    budget = f"base.budget.amount: {trial.budget.amount:g} {trial.budget.kind} are {steps} steps"
    required = trial.objective.minimum_steps()
    if steps < required:
        raise SpaceError(
            f"{budget}; objective {trial.objective.kind} needs at least {required} to update each "
            f"network"
        )
    if isinstance(trial.windows, GrowingWindows):
        until = trial.windows.until
        required *= math.ceil(2 / min(until, 1 - until))
        if steps < required:
            raise SpaceError(
                f"{budget}; windows that grow at progress {until:g} need at least {required}, "
                "base.windows {kind: full} needs fewer"
            )


def _check_windows(trial: Trial) -> None:
    """Reject short windows that are not shorter than full ones."""
    windows, length = trial.windows, trial.data.length
    if isinstance(windows, GrowingWindows) and windows.start >= length:
        raise SpaceError(
            f"base.windows.start: must be below base.data.length, {length}, not {windows.start}"
        )


def _check_init_from(trial: Trial) -> None:
    """Reject initial weights that the objective does not use."""
    start, objective = trial.init_from, trial.objective
    if isinstance(start, FromScratch):
        return
    if reason := objective.starts_from_scratch:
        raise SpaceError(f"base.init_from: must be {{kind: scratch}} for {reason}")
    has_generator = objective.generator_shape(trial.encoder) is not None
    if isinstance(start, FromCheckpoint) and start.generator and not has_generator:
        raise SpaceError(f"base.init_from.generator: objective {objective.kind} has no generator")
    if isinstance(start, FromCheckpoint) and start.generator and objective.frozen_generator:
        raise SpaceError(
            "base.init_from.generator: must be omitted, because the frozen generator is that of "
            "base.objective.generator.init_from"
        )


def _check_preparatory_runs(trial: Trial) -> None:
    """Reject mlm runs without a step, in a budget of seconds, or with unshareable embeddings."""
    runs, objective = preparatory_runs(trial), trial.objective
    if runs and trial.budget.kind == "seconds":
        raise SpaceError(
            "base.budget.kind: must be flops or tokens, not seconds, for a trial that starts from "
            "mlm runs, because the budget includes these runs"
        )
    for network, run in runs.items():
        if not run.budget.steps(mean_cost(run)):
            frozen = network == GENERATOR and objective.frozen_generator
            path = "objective.generator.init_from" if frozen else "init_from"
            raise SpaceError(
                f"base.{path}.budget.amount: {run.budget.amount:g} {run.budget.kind} are less "
                f"than one step of the {network}'s mlm run"
            )
    if objective.shares_table and len(set(runs.values())) > 1:
        raise SpaceError(
            "base.init_from: encoder and generator of different shapes start from separate mlm "
            "runs with different embeddings, but base.objective.sharing: tokens requires equal "
            "ones; use sharing none or gdes, or a generator of width 1 and depth 1"
        )


def _check_trunk(trial: Trial, schedule: TrunkSchedule, cost: Cost) -> None:
    """Reject a trial whose beginning depends on its budget, and a trunk or cooldown without a step.

    Args:
        trial: the trial.
        schedule: schedule of the trial.
        cost: cost of a step.
    """
    if reason := _reason_against_trunk(trial):
        raise SpaceError(f"base.schedule.kind: trunk cannot be used with {reason}")
    trunk = trial.trunk
    if trunk is None:
        raise SpaceError("base.schedule.decay: must be above 0, not 0: the cooldown of a branch")
    unit = cost.flops if trial.budget.kind == "flops" else cost.tokens
    amount, end = trial.budget.amount, trunk.budget.amount
    if 0 < schedule.warmup < unit or schedule.warmup >= end:
        raise SpaceError(
            f"base.schedule.warmup: must be 0, or at least one step ({unit:.3g} "
            f"{trial.budget.kind}) and below the start of the cooldown ({end:.4g}), not "
            f"{schedule.warmup:g}; it is an amount in the unit of the budget, not a share"
        )
    steps, trunk_steps = (each.budget.steps(cost) or 0 for each in (trial, trunk))
    if not trunk_steps or steps - trunk_steps < _LEAST_COOLDOWN:
        raise SpaceError(
            f"base.budget.amount: {amount:g} {trial.budget.kind} are {trunk_steps} steps of a "
            f"trunk and {steps - trunk_steps} of a cooldown; needs at least 1 and "
            f"{_LEAST_COOLDOWN}"
        )


def _reason_against_trunk(trial: Trial) -> str:
    """Return why trials of several budgets cannot begin alike; empty if they can."""
    objective, varying = trial.objective, sorted(trial.varying_settings)
    if trial.budget.kind == "seconds":
        return "a budget in seconds (base.budget.kind); use flops or tokens"
    if objective.staged:
        return f"objective {objective.kind}, whose stages are shares of the budget"
    if isinstance(trial.windows, GrowingWindows):
        return "windows that grow with progress (base.windows); use {kind: full}"
    if varying:
        return f"settings that vary with progress ({', '.join(varying)}); use constants"
    if not isinstance(trial.init_from, FromScratch) or objective.frozen_generator:
        return "initial weights of other runs (init_from); use {kind: scratch}"
    return ""
