"""Importance of tuned parameters: PED-ANOVA of Optuna over the finished search trials.

Source: Watanabe, Bansal and Hutter, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance
in Arbitrary Subspaces", IJCAI 2023.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    IntDistribution,
)
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from lab.config.experiment import Choices, Range
from lab.config.trial import Path
from lab.search.distributions import to_optuna_distribution, to_optuna_value
from lab.search.in_memory import create_study

_TOP = 0.25  # share of the trials that count as good ones; Optuna's 0.1 leaves 2 of 20 trials


def rank_parameters(
    tune: Mapping[Path, Mapping[str, Any]],
    points: Sequence[Mapping[Path, Any]],
    scores: Sequence[float],
    *,
    maximize: bool,
) -> dict[Path, float]:
    """Return the importance of each tuned parameter, the largest first; the sum is 1.

    A trial with a value outside of its distribution is left out. Empty where no trial is left.

    Args:
        tune: distributions by dotted path, as mappings of their fields (`SweepFrames.tune`).
        points: values of the parameters of each trial.
        scores: finite score of each trial.
        maximize: whether larger scores are better.
    """
    distributions = {path: _read_distribution(fields) for path, fields in tune.items()}
    study = create_study(["maximize" if maximize else "minimize"])
    for point, score in zip(points, scores, strict=True):
        params = {path: _read_value(distributions[path], point[path]) for path in tune}
        with suppress(ValueError):
            study.add_trial(
                optuna.trial.create_trial(params=params, distributions=distributions, value=score)
            )
    if not study.trials:
        return {}
    evaluator = PedAnovaImportanceEvaluator(target_quantile=_TOP)
    found = get_param_importances(study, evaluator=evaluator)
    return {path: float(value) for path, value in found.items()}


def _read_distribution(fields: Mapping[str, Any]) -> BaseDistribution:
    if "choices" in fields:
        return to_optuna_distribution(Choices(choices=tuple(fields["choices"])))
    return to_optuna_distribution(Range(**fields))


def _read_value(distribution: BaseDistribution, value: Any) -> Any:
    """Return a value as Optuna has it; pandas makes whole numbers floats."""
    if isinstance(distribution, CategoricalDistribution):
        return to_optuna_value(value)
    return int(value) if isinstance(distribution, IntDistribution) else float(value)
