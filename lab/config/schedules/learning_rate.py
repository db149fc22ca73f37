"""Learning rate as a function of progress.

A schedule maps progress in [0, 1] to a multiplier of the peak learning rate. It is independent of
the number of steps, so all trials of an equal-compute comparison use the same schedule. Warm-up is
a share of the run rather than a number of steps, which could exceed the length of a short run.
Trials that share a trunk have another schedule (`lab.config.schedules.trunk`).
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal, assert_never

from annotated_types import Ge, Interval, Le

from lab.config.base import StrictConfig


@dataclass(frozen=True, kw_only=True)
class Schedule(StrictConfig):
    """Learning rate schedule: linear warm-up, then a decay.

    Attributes:
        kind: shape of the learning rate after warm-up; `linear` decays to zero (as in ELECTRA),
            `cosine` decays to zero, `stable` is constant and decays as 1 - sqrt in the last part
            of the run (warm-up-stable-decay), `constant` does not decay.
        warmup: share of the run in which the learning rate rises linearly from zero.
        decay: share of the run, at its end, in which the learning rate decays to zero; used by
            kind `stable` only.
    """

    kind: Literal["linear", "cosine", "stable", "constant"] = "stable"
    warmup: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    decay: Annotated[float, Ge(0), Le(1)] = 0.2

    def __call__(self, progress: float) -> float:
        """Return the multiplier in [0, 1] at `progress` in [0, 1]."""
        warmup = min(1.0, progress / self.warmup) if self.warmup else 1.0
        return warmup * self._decay(min(progress, 1.0))

    @property
    def flat(self) -> bool:
        """Whether the learning rate is constant, so that it does not depend on the budget."""
        return self.kind == "constant" and not self.warmup

    def _decay(self, progress: float) -> float:
        match self.kind:
            case "linear":
                # As in the official optimization.py: polynomial decay of power 1 over the whole
                # run, multiplied by the warm-up, so the maximum is slightly below the peak rate.
                return 1.0 - progress
            case "cosine":
                return 0.5 * (1.0 + math.cos(math.pi * progress))
            case "stable":
                return one_minus_sqrt(progress, self.decay)
            case "constant":
                return 1.0
            case _:
                assert_never(self.kind)


def one_minus_sqrt(progress: float, decay: float) -> float:
    """Return 1 before the last share `decay` of a run, and 1 - sqrt of the progress within it."""
    start = 1.0 - decay
    if progress <= start:
        return 1.0
    # Rounding of `start` may make the quotient exceed 1 at the end of a short decay.
    return 1.0 - math.sqrt(min(1.0, (progress - start) / decay))
