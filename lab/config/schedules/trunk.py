"""Schedule of trials that share a trunk: warm-up, constant rate, then a cooldown for each budget.

The warm-up is an amount of compute, and the learning rate does not depend on the budget before the
cooldown. Trials that differ only in the size of their budget therefore begin with the same run, the
trunk, and end with cooldowns of their own, the branches (Hägele et al. 2024, arXiv 2405.18392).
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval

from lab.config.base import StrictConfig
from lab.config.schedules.learning_rate import Schedule, one_minus_sqrt


@dataclass(frozen=True, kw_only=True)
class TrunkSchedule(StrictConfig):
    """Warm-up, constant learning rate and cooldown, with a trunk that trials share.

    Trials that differ only in `budget.amount` train the part before their cooldowns once. Each
    trial is a branch of this trunk and has the same result as if it had been trained alone.

    Attributes:
        warmup: amount of the budget, in the unit of the budget, over which the learning rate rises
            linearly from zero; it is not a share, because the budgets of one trunk differ.
        decay: share of the trial's own budget, at its end, in which the learning rate decays to
            zero as 1 - sqrt.
    """

    kind: Literal["trunk"]
    warmup: Annotated[float, Interval(ge=0, le=1e30)]
    decay: Annotated[float, Interval(ge=0, lt=1)] = 0.2  # 0 for the trunk itself

    def __call__(self, progress: float, amount: float) -> float:
        """Return the multiplier in [0, 1] of the peak learning rate.

        Args:
            progress: spent share of the budget, in [0, 1].
            amount: spent amount, in the unit of the budget.
        """
        warmup = min(1.0, amount / self.warmup) if self.warmup else 1.0
        return warmup * one_minus_sqrt(min(progress, 1.0), self.decay)

    @property
    def flat(self) -> bool:
        """Whether the learning rate does not depend on the budget: the schedule of a trunk."""
        return not self.decay


AnySchedule = Schedule | TrunkSchedule
