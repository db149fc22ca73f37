"""Distributions and values of tuned parameters in Optuna's form."""

import json
from collections.abc import Mapping

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from lab.config.experiment import Choices, Distribution
from lab.config.trial import Path, Value


def to_optuna_value(value: Value) -> Value:
    """Return the form in which Optuna stores a value: lists and mappings as JSON."""
    return json.dumps(value) if isinstance(value, (list, dict)) else value


def from_optuna_values(
    tune: Mapping[Path, Distribution], stored: Mapping[Path, Value]
) -> dict[Path, Value]:
    """Return the search space's values of the parameters that a study stores.

    Raises:
        StopIteration: a stored value is none of the choices.
    """
    return {path: _from_optuna_value(tune[path], value) for path, value in stored.items()}


def _from_optuna_value(distribution: Distribution, stored: Value) -> Value:
    if isinstance(distribution, Choices):
        return next(choice for choice in distribution.choices if to_optuna_value(choice) == stored)
    return stored


def to_optuna_distribution(distribution: Distribution) -> BaseDistribution:
    """Return the distribution of a nuisance parameter in Optuna's form."""
    if isinstance(distribution, Choices):
        choices = [to_optuna_value(choice) for choice in distribution.choices]
        return CategoricalDistribution(choices)  # type: ignore[arg-type]
    low, high, step = distribution.low, distribution.high, distribution.step
    if step is not None:  # Optuna requires `high` to be on the step's grid
        steps = int((high - low) / step + 1e-9)
        high = float(f"{low + step * steps:.15g}")
    if distribution.integer:
        return IntDistribution(int(low), int(high), log=distribution.log, step=int(step or 1))
    return FloatDistribution(low, high, log=distribution.log, step=step)
