"""Budget of a trial, and the compute that it has spent.

Training ends when `Budget.fraction` reaches 1, and schedules are functions of that fraction. Trials
are compared at equal budgets, so the target and the spent amount are both recorded.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, assert_never

from annotated_types import Interval

from lab.config.base import StrictConfig


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of one optimizer step, in units that do not depend on the machine.

    Attributes:
        tokens: positions read, padding included.
        flops: FLOPs of the honest count of `lab.config.flops`: a multiply-add counts as 2, the
            backward pass as twice the forward pass.
        paper_flops: FLOPs of the same step as the official `flops_computation.py` counts them.
        six_n: 6 x parameters x tokens, the estimate of scaling-law papers.
    """

    tokens: int
    flops: int
    paper_flops: int
    six_n: int


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Totals that a trial has used so far; `seconds` is training time only, without scoring."""

    steps: int = 0
    tokens: int = 0
    flops: int = 0
    paper_flops: int = 0
    six_n: int = 0
    seconds: float = 0.0

    def plus(self, cost: Cost, seconds: float) -> "Spent":
        """Return the totals after one more step of `cost` that took `seconds`."""
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
    """Compute that a trial may use.

    Attributes:
        kind: unit of the budget; `flops` counts training FLOPs (the honest count), `tokens` the
            positions read, `seconds` the training time.
        amount: size of the budget in that unit.
    """

    kind: Literal["flops", "tokens", "seconds"]
    amount: Annotated[float, Interval(ge=1e-3, le=1e30)]

    def fraction(self, spent: Spent) -> float:
        """Return the spent share of the budget: 0 at the start, 1 or more at the end."""
        return self.spent_amount(spent) / self.amount

    def spent_amount(self, spent: Spent) -> float:
        """Return the spent amount, in the unit of the budget."""
        match self.kind:
            case "flops":
                return spent.flops
            case "tokens":
                return spent.tokens
            case "seconds":
                return spent.seconds
            case _:
                assert_never(self.kind)

    def steps(self, cost: Cost) -> int | None:
        """Return the number of steps of `cost` nearest to the budget; None for seconds."""
        match self.kind:
            case "flops":
                return round(self.amount / cost.flops)
            case "tokens":
                return round(self.amount / cost.tokens)
            case "seconds":
                return None
            case _:
                assert_never(self.kind)
