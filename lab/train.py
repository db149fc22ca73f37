"""The training loop: a generator of steps that knows neither ray nor mlflow.

It does not score, save or report. Whoever iterates decides when to do so, and time spent there
is not training time: the clock runs inside the step alone.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lab.budget import Budget, Spent
from lab.data import Batches
from lab.flops import step_cost
from lab.objectives import Objective
from lab.optim import Adam, clip, set_rate
from lab.spec import Trial


class Step(NamedTuple):
    """One optimizer step, done.

    Attributes:
        spent: everything used so far, this step included.
        progress: share of the budget spent, this step included; at most 1.
        parts: the step's losses and health, detached scalars by name.
        last: whether the budget is used.
    """

    spent: Spent
    progress: float
    parts: dict[str, Tensor]
    last: bool


def train(
    objective: Objective,
    batches: Batches,
    optimizer: Adam,
    *,
    trial: Trial,
    clock: Callable[[], float],
    spent: Spent = Spent(),  # noqa: B008 - frozen
) -> Iterator[Step]:
    """Yield a step after another until the budget is used.

    Args:
        objective: what to minimise; moved to its device by the caller.
        batches: text by step.
        optimizer: of the objective's parameters.
        trial: budget, schedule and clip.
        clock: seconds, monotone.
        spent: what an earlier part of the same run used; the loop goes on from there.
    """
    cost = step_cost(trial)
    budget, device = trial.budget, next(objective.parameters()).device
    objective.train()
    while not _used(budget, spent):
        began = clock()
        # Dropout is the only chance left in torch's own generator; tie it to the step too.
        torch.manual_seed(trial.seeds.mask * 1_000_003 + spent.steps)
        set_rate(optimizer, trial.schedule(budget.fraction(spent)))
        loss = objective(batches[spent.steps].to(device), spent.steps)
        optimizer.zero_grad()
        loss.total.backward()
        norms = clip(objective, trial.optim.clip)
        optimizer.step()
        spent = spent.plus(cost, clock() - began)
        progress = min(1.0, budget.fraction(spent))
        yield Step(spent, progress, loss.parts | norms, _used(budget, spent))


def _used(budget: Budget, spent: Spent) -> bool:
    """Return whether another step would end further from the budget than this one."""
    half_a_step = budget.fraction(spent) / (2 * max(1, spent.steps))
    return budget.fraction(spent) + half_a_step >= 1
