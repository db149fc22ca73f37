"""New points of the adaptive samplers, which read a copy of a cell's study."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from lab.config.experiment import SearchConfig
from lab.search.in_memory import create_study

_EXCESS = "excess"  # name of the only constraint in the copy


def build_sampler(search: SearchConfig) -> BaseSampler:
    """Return the adaptive sampler of a search; TPE for searches that do not use it."""
    match search.sampler:
        case "gp":
            return GPSampler(seed=search.seed, n_startup_trials=0, deterministic_objective=False)
        case _:
            return TPESampler(
                seed=search.seed, n_startup_trials=0, multivariate=True, constant_liar=True
            )


def sample_point(
    study: optuna.Study,
    sampler: BaseSampler,
    distributions: Mapping[str, BaseDistribution],
    costs_of: Callable[[FrozenTrial], Sequence[float]],
) -> dict[str, Any]:
    """Return the parameters of a new point of a sampler.

    The sampler reads a copy of the study, in which a trial that ended without a score has the
    worst score of all and its own costs. Optuna's Gaussian process reads complete trials only, and
    would ask for diverging or infeasible points again and again. Of several constraints the copy
    has the largest excess alone, because the Gaussian process needs equally many of all trials and
    a trial that was not trained has no seconds.

    Args:
        study: study of the cell; its first objective is the score.
        sampler: sampler of the cell.
        distributions: distributions of the parameters.
        costs_of: function that returns the values of a trial's other objectives.
    """
    trials = study.get_trials(deepcopy=False)
    scores = [trial.values[0] for trial in trials if trial.state == TrialState.COMPLETE]
    order = max if study.directions[0] == StudyDirection.MINIMIZE else min
    worst = order(scores, default=0.0)
    constrained = any(trial.constraints for trial in trials)
    copy = create_study(study.directions, sampler)
    for trial in trials:
        if trial.state == TrialState.FAIL:
            continue
        running = trial.state == TrialState.RUNNING
        score = trial.values[0] if trial.state == TrialState.COMPLETE else worst
        excess = max(trial.constraints.values(), default=0.0)
        copy.add_trial(
            optuna.trial.create_trial(
                state=TrialState.RUNNING if running else TrialState.COMPLETE,
                values=None if running else [score, *costs_of(trial)],
                params=trial.params,
                distributions=trial.distributions,
                constraints={_EXCESS: excess} if constrained and not running else None,
            )
        )
    return copy.ask(dict(distributions)).params
