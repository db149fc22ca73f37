"""Costs that can be a second objective beside the score: analytic, so equal on every machine."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, assert_never

from lab.config.costs.encoder import encoder_parameters, inference_flops
from lab.config.flops import mean_cost
from lab.config.preparatory_runs import preparatory_cost, training_budget
from lab.config.trial import Trial

CostName = Literal["parameters", "inference_flops", "tokens"]


@dataclass(frozen=True, kw_only=True)
class CostText:
    """Title and unit of a cost.

    Attributes:
        title: title of an axis.
        unit: unit of the values.
    """

    title: str
    unit: str


COSTS: Mapping[CostName, CostText] = {
    "parameters": CostText(title="parameters of the exported encoder", unit=""),
    "inference_flops": CostText(title="inference compute of the encoder per token", unit="FLOP"),
    "tokens": CostText(title="tokens read in training", unit="tokens"),
}


def compute_cost(name: CostName, trial: Trial) -> float:
    """Return a cost of a trial.

    Args:
        name: name of the cost. `tokens` includes those of preparatory runs.
        trial: configuration of the trial.

    Raises:
        ValueError: the tokens of a budget in seconds are not known before training.
    """
    match name:
        case "parameters":
            return float(encoder_parameters(trial))
        case "inference_flops":
            return inference_flops(trial)
        case "tokens":
            cost = mean_cost(trial)
            steps = training_budget(trial).steps(cost)
            if steps is None:
                raise ValueError("the tokens of a budget in seconds are not known before training")
            return float(steps * cost.tokens + preparatory_cost(trial).tokens)
        case _:
            assert_never(name)
