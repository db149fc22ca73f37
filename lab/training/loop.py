"""The training loop: a generator of steps that knows neither ray nor mlflow.

It does not score, save or report. Whoever iterates decides when to do so, and time spent there
is not training time: the clock runs inside the step alone.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch import Tensor

from lab.config.budget import Budget, Cost, Spent
from lab.config.flops import step_cost
from lab.config.ramps import StepSettings
from lab.config.trial import Trial
from lab.training.allocator import keep_freed_memory
from lab.training.gradients import Gradients
from lab.training.optimizer import Adam, clip_gradients, set_rate


class CompletedStep(NamedTuple):
    """One optimizer step, done.

    Attributes:
        spent: everything used so far, this step included.
        progress: share of the budget spent, this step included; at most 1.
        parts: the step's losses and health, detached scalars by name.
        settings: those of the step.
        last: whether the budget is used.
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
    """Yield a step after another until the budget is used.

    Args:
        gradients: of what is minimised, on its text.
        optimizer: of the objective's parameters.
        trial: budget, schedules and clip.
        clock: seconds, monotone; among several workers the first one's counts.
        spent: what an earlier part of the same run used; the loop goes on from there.
    """
    keep_freed_memory()
    budget, objective = trial.budget, gradients.objective
    objective.train()
    learns, progress = trial.objective.phase_at(spent.steps, budget.fraction(spent))
    cost = step_cost(trial, learns, progress)
    while not _used(budget, spent, cost):
        began = clock()
        settings = trial.at(progress)
        set_rate(optimizer, trial.schedule(progress))
        objective.begin(learns, settings)
        parts = gradients.take(spent, learns, settings)
        norms = clip_gradients(objective, trial.optim)
        optimizer.step()
        spent = spent.plus(cost, gradients.workers.first(clock() - began))
        done = budget.fraction(spent)
        learns, progress = trial.objective.phase_at(spent.steps, done)
        cost = step_cost(trial, learns, progress)
        last = _used(budget, spent, cost)
        yield CompletedStep(spent, min(1.0, done), parts | norms, settings, last)


def _used(budget: Budget, spent: Spent, cost: Cost) -> bool:
    """Return whether a step of `cost` would end further from the budget than the run is now."""
    ahead = spent.plus(cost, spent.seconds / max(1, spent.steps))
    return budget.fraction(spent) + budget.fraction(ahead) >= 2
