"""Compute-optimal size and tokens for a budget of FLOPs."""

from dataclasses import dataclass

import numpy as np

from lab.errors import UserError
from lab.scaling.flops import Floats, FlopsPerToken, size_elasticity
from lab.scaling.law import Law

_WIDEST = (1.0, 1e15)  # numbers of parameters that are searched
_HALVINGS = 70


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """The best use of a budget.

    Attributes:
        flops: the budget.
        parameters: optimal number of parameters.
        tokens: tokens that the budget then pays for.
        loss: loss by the law.
    """

    flops: float
    parameters: float
    tokens: float
    loss: float


def optimal_allocation(law: Law, flops: float, per_token: FlopsPerToken) -> Allocation:
    """Return the size and tokens of the smallest loss at `flops` FLOPs.

    Raises:
        UserError: the optimum is at no size between 1 and 1e15 parameters.
    """
    one = {name: np.array([value]) for name, value in vars(law).items()}
    size = optimal_sizes(one, flops, per_token)
    if not np.isfinite(size).all():
        raise UserError(f"{flops:g} FLOPs: the law has no optimal size between 1 and 1e15")
    tokens = flops / per_token(size)
    return Allocation(
        flops=flops,
        parameters=float(size[0]),
        tokens=float(tokens[0]),
        loss=float(law.loss(size, tokens)[0]),
    )


def optimal_sizes(
    laws: dict[str, Floats], flops: float | Floats, per_token: FlopsPerToken
) -> Floats:
    """Return the optimal numbers of parameters of K laws; NaN where there is none.

    The terms of size and data then fall equally fast per unit of log FLOPs (Lagrange condition).

    Args:
        laws: E, A, B, alpha and beta of K laws.
        flops: the budget, or K budgets.
        per_token: FLOPs per token of a size.
    """
    low, high = (np.full_like(laws["A"], np.log(end)) for end in _WIDEST)
    edges = (low.copy(), high.copy())
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        too_small = _excess_of_size_term(laws, middle, flops, per_token) > 0
        low, high = np.where(too_small, middle, low), np.where(too_small, high, middle)
    found = (low + high) / 2
    inside = (found > edges[0] + 1e-6) & (found < edges[1] - 1e-6)
    return np.where(inside, np.exp(found), np.nan)


def _excess_of_size_term(
    laws: dict[str, Floats], logs: Floats, flops: float | Floats, per_token: FlopsPerToken
) -> Floats:
    """Return the log ratio of the two terms' derivatives; positive for too small a size."""
    sizes = np.exp(logs)
    tokens = flops / per_token(sizes)
    with np.errstate(divide="ignore"):
        size = np.log(laws["alpha"] * laws["A"]) - laws["alpha"] * logs
        data = np.log(laws["beta"] * laws["B"]) - laws["beta"] * np.log(tokens)
    return np.asarray(size - data - np.log(size_elasticity(per_token, sizes)))


def losses_of_sizes(
    laws: dict[str, Floats], sizes_S: Floats, flops: float, per_token: FlopsPerToken
) -> Floats:
    """Return the losses of K laws at the given sizes, of shape (K, S), all at `flops` FLOPs."""
    tokens_S = flops / per_token(sizes_S)
    columns = {name: values[:, None] for name, values in laws.items()}
    return np.asarray(
        columns["E"]
        + columns["A"] * sizes_S ** -columns["alpha"]
        + columns["B"] * tokens_S ** -columns["beta"]
    )
