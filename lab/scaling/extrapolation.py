"""The largest budget that the runs may say anything about."""

from lab.errors import UserError
from lab.scaling.runs import Floats

LARGEST_FACTOR = 30.0  # times the largest budget that was run


def check_extrapolation(flops: float, budgets_n: Floats, name: str) -> float:
    """Return how many times larger a budget is than the largest one that was run.

    Args:
        flops: the budget.
        budgets_n: budgets of the runs.
        name: the option or key that gave the budget, for the message.

    Raises:
        UserError: the budget is not positive, or is more than 30 times the largest one; the
            message says which budget would have to be run.
    """
    largest = float(budgets_n.max())
    limit = LARGEST_FACTOR * largest
    if not 0 < flops <= limit * (1 + 1e-9):
        needed = f"; run one of {flops / LARGEST_FACTOR:.3g} FLOPs or more first"
        raise UserError(
            f"{name}: {flops:g} FLOPs; allowed are budgets up to {limit:g}, which is "
            f"{LARGEST_FACTOR:g} times the largest budget that was run ({largest:g})"
            f"{needed if flops > limit else ''}"
        )
    return flops / largest
