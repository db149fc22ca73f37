"""Pareto front of points with several objectives, by Optuna."""

from collections.abc import Sequence

import optuna

from lab.search.in_memory import Direction, create_study


def find_front(
    points: Sequence[Sequence[float]], directions: Sequence[Direction]
) -> tuple[int, ...]:
    """Return the positions of the points that no other point dominates, in ascending order.

    A point dominates another one if it is not worse in any objective and better in one.

    Args:
        points: finite values of the objectives of each point.
        directions: direction of each objective.
    """
    study = create_study(directions)
    study.add_trials([optuna.trial.create_trial(values=list(values)) for values in points])
    return tuple(sorted(trial.number for trial in study.best_trials))
