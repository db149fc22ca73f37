"""Limits that a sweep sets to its trials, and the amounts by which a trial exceeds them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval

from lab.config.base import StrictConfig
from lab.config.costs.encoder import encoder_parameters
from lab.config.costs.memory import estimate_memory
from lab.config.trial import Trial

Limit = Annotated[float, Interval(gt=0, le=1e30)]


@dataclass(frozen=True, kw_only=True)
class Constraints(StrictConfig):
    """Limits that trials must keep; null sets no limit.

    A compared setting that exceeds a limit is refused when the search space is loaded. A tuned one
    is not trained: it is one of `search.trials` settings, in the state `infeasible`, and the
    sampler is told by how much it exceeds the limit.

    Attributes:
        parameters: largest number of parameters of the exported encoder, with its embedding tables
            and without a head.
        memory_gib: largest memory of a trial in GiB, as `--dry-run` estimates it: weights,
            optimizer state and the activations of one step, without the libraries.
        seconds: longest training time of a search trial in seconds, without its evaluations. It is
            measured, so it depends on the machine and is known only after the training: a trial
            that took longer is infeasible, has no score, and its setting is not repeated.
    """

    parameters: Limit | None = None
    memory_gib: Limit | None = None
    seconds: Limit | None = None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Value of a constrained quantity.

    Attributes:
        name: name of the constraint.
        value: value of a trial.
        limit: largest value that is allowed.
    """

    name: str
    value: float
    limit: float

    @property
    def excess(self) -> float:
        """Excess over the limit as a share of it; positive where the constraint is violated."""
        return self.value / self.limit - 1

    def __str__(self) -> str:
        return f"{self.name}: {self.value:,.7g} exceeds {self.limit:,.7g}"


def has_design_constraints(constraints: Constraints) -> bool:
    """Return whether there is a limit that can be checked before the training."""
    return constraints.parameters is not None or constraints.memory_gib is not None


def measure_trial(
    constraints: Constraints, trial: Trial, seconds: float | None = None
) -> dict[str, Measured]:
    """Return the values of the constrained quantities that are known, by name of the constraint.

    Args:
        constraints: limits.
        trial: configuration of the trial.
        seconds: training time of the trial; None before it was trained.
    """
    return {each.name: each for each in _measure(constraints, trial, seconds)}


def _measure(constraints: Constraints, trial: Trial, seconds: float | None) -> Iterator[Measured]:
    if (limit := constraints.parameters) is not None:
        yield Measured(name="parameters", value=encoder_parameters(trial), limit=limit)
    if (limit := constraints.memory_gib) is not None:
        yield Measured(name="memory_gib", value=estimate_memory(trial) / 2**30, limit=limit)
    if (limit := constraints.seconds) is not None and seconds is not None:
        yield Measured(name="seconds", value=seconds, limit=limit)


def describe_violations(measured: dict[str, Measured]) -> str:
    """Return the violated constraints in one line; empty if there is none."""
    violated = [f"constraints.{each}" for each in measured.values() if each.excess > 0]
    return "; ".join(violated)
