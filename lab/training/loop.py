"""The training loop, as a generator of optimizer steps.

It does not score, save or report; its caller does so between steps. Training time includes only
the time inside a step, not the time that the caller takes between two steps.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch import Tensor

from lab.config.budget import Budget, Cost, Spent
from lab.config.flops import step_cost
from lab.config.schedules.ramps import StepSettings
from lab.config.trial import Trial
from lab.training.allocator import keep_freed_memory
from lab.training.gradients import Gradients
from lab.training.optimizer import Adam, clip_gradients, set_rate


class CompletedStep(NamedTuple):
    """Result of one optimizer step.

    Attributes:
        spent: steps, tokens, FLOPs and seconds used so far, including this step.
        progress: fraction of the budget used so far, including this step; at most 1.
        parts: losses and health metrics of the step, detached scalars by name.
        settings: settings of the step, such as window length and batch size.
        last: whether the budget is used up and no step follows.
    """

    spent: Spent
    progress: float
    parts: dict[str, Tensor]
    settings: StepSettings
    last: bool


def train_steps(
    gradients: Gradients,
    optimizer: Adam,
    *,
    trial: Trial,
    clock: Callable[[], float],
    spent: Spent = Spent(),  # noqa: B008 - frozen
) -> Iterator[CompletedStep]:
    """Train until the budget is used up, and yield the result of each step.

    Args:
        gradients: computes the gradients of the objective on the training text.
        optimizer: optimizer of the objective's parameters.
        trial: budget, schedules and gradient clipping.
        clock: monotonic time in seconds. With several workers the time of worker 0 is used.
        spent: resources used by an earlier part of the same run; training resumes from there.
    """
    keep_freed_memory()
    budget, objective = trial.budget, gradients.objective
    objective.train()
    updates, progress = trial.objective.phase_at(
        spent.steps, budget.fraction(spent), gradients.epoch(spent)
    )
    cost = step_cost(trial, updates, progress)
    while not _is_used_up(budget, spent, cost):
        started = clock()
        settings = trial.settings_at(progress)
        set_rate(optimizer, trial.rate_multiplier(progress, spent))
        objective.begin(updates, settings)
        parts = gradients.compute(spent, updates, settings)
        norms = clip_gradients(objective, trial.optim, updates)
        optimizer.step()
        spent = spent.plus(cost, gradients.workers.broadcast(clock() - started))
        fraction = budget.fraction(spent)
        updates, progress = trial.objective.phase_at(spent.steps, fraction, gradients.epoch(spent))
        cost = step_cost(trial, updates, progress)
        last = _is_used_up(budget, spent, cost)
        yield CompletedStep(spent, min(1.0, fraction), parts | norms, settings, last)


def _is_used_up(budget: Budget, spent: Spent, cost: Cost) -> bool:
    """Return whether one more step of `cost` would end at least as far from the budget as now."""
    ahead = spent.plus(cost, spent.seconds / max(1, spent.steps))
    return budget.fraction(spent) + budget.fraction(ahead) >= 2
