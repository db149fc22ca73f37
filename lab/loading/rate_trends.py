"""Replace a trend of the learning rate by the learning rate of a trial."""

from dataclasses import replace
from typing import Any

from lab.config.flops import encoder_weights, mean_cost
from lab.config.schedules.rate_trend import RateTrendConfig
from lab.config.trial import Trial
from lab.loading import schema
from lab.loading.error_messages import SpaceError

_PATH = "base.optim.lr"


def take_trend(raw: dict[str, Any]) -> RateTrendConfig | None:
    """Remove and return the trend under `optim.lr`; None if there is a number or nothing.

    Args:
        raw: settings of a trial, as plain YAML data.

    Raises:
        SpaceError: the trend is invalid; the message has its dotted path.
    """
    optim = raw.get("optim")
    if not isinstance(optim, dict) or not isinstance(optim.get("lr"), dict):
        return None
    return schema.validate_rate_trend(optim.pop("lr"), _PATH)


def apply_trend(trial: Trial, trend: RateTrendConfig) -> Trial:
    """Return the trial with the learning rate of the trend.

    Raises:
        SpaceError: the tokens of the run are unknown, or no such learning rate is allowed.
    """
    cost = mean_cost(trial)
    steps = trial.budget.steps(cost)
    if steps is None and trend.tokens is not None:
        raise SpaceError(
            f"{_PATH}.tokens: must be omitted with a budget in seconds, which determines no number "
            "of tokens"
        )
    rate = trend.rate_at(
        parameters=encoder_weights(trial.encoder),
        tokens=max(steps or 1, 1) * cost.tokens,
        batch=cost.tokens,
    )
    schema.validate_learning_rate(rate, _PATH)
    return replace(trial, optim=replace(trial.optim, lr=rate))
