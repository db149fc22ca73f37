"""What a trial has spent, and how much it may.

A budget answers one question, `fraction(spent)`, and knows no steps, rates or clocks: the
loop ends at 1 and schedules are functions of it (methodology: a budget is a hard equality,
recorded as target and achieved).
"""

from dataclasses import dataclass
from typing import Annotated, Literal, assert_never

from annotated_types import Interval

from lab.config.base import StrictConfig


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one optimizer step of a trial costs, in units that no machine changes.

    Attributes:
        tokens: positions read, padding included.
        flops: honest count, a multiply-add as 2, backward as 2x forward.
        paper_flops: the same step by the official `flops_computation.py`.
        six_n: 6 x parameters x tokens, for comparison with scaling-law papers.
    """

    tokens: int
    flops: int
    paper_flops: int
    six_n: int


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Everything a trial has used so far; `seconds` is training time on its own clock."""

    steps: int = 0
    tokens: int = 0
    flops: int = 0
    paper_flops: int = 0
    six_n: int = 0
    seconds: float = 0.0

    def plus(self, cost: Cost, seconds: float) -> "Spent":
        """Return what is spent after one more step of `cost` that took `seconds`."""
        return Spent(
            steps=self.steps + 1,
            tokens=self.tokens + cost.tokens,
            flops=self.flops + cost.flops,
            paper_flops=self.paper_flops + cost.paper_flops,
            six_n=self.six_n + cost.six_n,
            seconds=self.seconds + seconds,
        )


@dataclass(frozen=True, kw_only=True)
class Budget(StrictConfig):
    """A limit in one unit: honest training FLOPs, tokens read, or training seconds."""

    kind: Literal["flops", "tokens", "seconds"]
    amount: Annotated[float, Interval(gt=0, le=1e30)]

    def fraction(self, spent: Spent) -> float:
        """Return the share of the budget that is spent, 0 at the start, 1 or more at the end."""
        match self.kind:
            case "flops":
                return spent.flops / self.amount
            case "tokens":
                return spent.tokens / self.amount
            case "seconds":
                return spent.seconds / self.amount
            case _:
                assert_never(self.kind)

    def steps(self, cost: Cost) -> int | None:
        """Return how many steps of `cost` come nearest to it; None where only a clock knows."""
        match self.kind:
            case "flops":
                return round(self.amount / cost.flops)
            case "tokens":
                return round(self.amount / cost.tokens)
            case "seconds":
                return None
            case _:
                assert_never(self.kind)
