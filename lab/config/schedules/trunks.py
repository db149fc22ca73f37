"""Trunks: runs at a constant learning rate that trials of several budgets share.

A trial with a `TrunkSchedule` is a branch: it continues from the state that its trunk has at the
start of the trial's cooldown. The trunk of a comparison is trained in parts, from one branch point
to the next. Each part is a preparatory run with its own record, which extends the part before it
(`lab.trials.extend`), so nothing is trained twice.

The budget of a trial counts stand-alone compute: trunk and cooldown. Its marginal compute is that
of the cooldown and of the parts of the trunk for which no other trial is charged.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace

from lab.config.trial import Trial, content_hash


def branch_points(trials: Iterable[Trial]) -> tuple[float, ...]:
    """Return the budgets of the trunks of trials in ascending order, each once."""
    trunks = (trial.trunk for trial in trials)
    return tuple(sorted({trunk.budget.amount for trunk in trunks if trunk is not None}))


def trunk_parts(trial: Trial, points: Sequence[float]) -> tuple[Trial, ...]:
    """Return the parts of a trial's trunk, shortest first; empty for a trial without a trunk.

    Args:
        trial: a trial of a comparison.
        points: branch points of the comparison (`branch_points`).

    Returns:
        Runs of which each extends the one before; the last is the trial's trunk.
    """
    trunk = trial.trunk
    if trunk is None:
        return ()
    budget = trunk.budget
    shorter = (point for point in points if point < budget.amount)
    parts = (replace(trunk, budget=replace(budget, amount=point)) for point in shorter)
    return (*parts, trunk)


def name_trunk(trial: Trial) -> str | None:
    """Return a name that the trials of a sweep that branch from one trunk share.

    Scores of these trials are not independent. None for a trial without a trunk.
    """
    trunk = trial.trunk
    if trunk is None:
        return None
    return content_hash(asdict(replace(trunk, budget=replace(trunk.budget, amount=1.0))))
