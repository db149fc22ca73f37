"""Learning rates that follow from size, horizon and batch by a fitted power law.

As in Porian et al. (2024, arXiv 2406.19146) and Step Law (2025, arXiv 2503.04715): a rate that was
tuned at some sizes is not the best one at others, which biases a scaling law.
"""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval

from lab.config.base import StrictConfig
from lab.config.bounds import LearningRate

Positive = Annotated[float, Interval(ge=1, le=1e30)]
Exponent = Annotated[float, Interval(ge=-3, le=3)]
_DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class RateDependence(StrictConfig):
    """Power of one quantity in a trend of the learning rate.

    Attributes:
        at: value at which the learning rate is `rate`.
        exponent: exponent of the quantity, relative to `at`.
    """

    at: Positive
    exponent: Exponent


@dataclass(frozen=True, kw_only=True)
class RateTrendConfig(StrictConfig):
    """Peak learning rate as a power law, as the report of a sweep that tunes `optim.lr` prints it.

    Each trial has the learning rate that the law gives for it. A quantity without an entry has no
    influence.

    Attributes:
        rate: learning rate at the values `at` of all quantities.
        parameters: dependence on the weights of the encoder's blocks, without embeddings and heads.
        tokens: dependence on the tokens of the run.
        batch: dependence on the tokens of an optimizer step.
    """

    rate: LearningRate
    parameters: RateDependence | None = None
    tokens: RateDependence | None = None
    batch: RateDependence | None = None

    def rate_at(self, *, parameters: float, tokens: float, batch: float) -> float:
        """Return the learning rate, rounded to six digits."""
        rate = self.rate
        for dependence, value in (
            (self.parameters, parameters),
            (self.tokens, tokens),
            (self.batch, batch),
        ):
            if dependence is not None:
                rate *= (value / dependence.at) ** dependence.exponent
        return float(f"{rate:.{_DIGITS}g}")
