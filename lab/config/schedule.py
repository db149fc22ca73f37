"""Learning rate as a function of progress.

A schedule maps progress in [0, 1] to a multiplier of the peak rate. It knows no steps and no
budget, so the same schedule serves every trial of an equal-compute comparison; warm-up is a
fraction of the run, never a number of steps (trap 9: a fixed warm-up kills short runs).
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal, assert_never

from annotated_types import Ge, Interval, Le

from lab.config.base import StrictConfig


@dataclass(frozen=True, kw_only=True)
class Schedule(StrictConfig):
    """Warm-up, then `kind`.

    Attributes:
        kind: `linear` to zero (ELECTRA), `cosine` to zero, `stable` (warm-up-stable-decay:
            constant, then 1 - sqrt over the last `decay`), or `constant`.
        warmup: share of the run spent rising linearly from zero.
        decay: share of the run spent falling; read by `stable` alone.
    """

    kind: Literal["linear", "cosine", "stable", "constant"] = "stable"
    warmup: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    decay: Annotated[float, Ge(0), Le(1)] = 0.2

    def __call__(self, progress: float) -> float:
        """Return the multiplier in [0, 1] at `progress` in [0, 1]."""
        rising = min(1.0, progress / self.warmup) if self.warmup else 1.0
        return rising * self._falling(min(progress, 1.0))

    @property
    def flat(self) -> bool:
        """Whether it does not depend on progress."""
        return self.kind == "constant" and not self.warmup

    def _falling(self, progress: float) -> float:
        match self.kind:
            case "linear":
                # optimization.py of the official code: polynomial decay of power 1 over the
                # whole run, times the warm-up, so the peak is a little below the named rate.
                return 1.0 - progress
            case "cosine":
                return 0.5 * (1.0 + math.cos(math.pi * progress))
            case "stable":
                start = 1.0 - self.decay
                if progress <= start:
                    return 1.0
                # Rounding of `start` may put the quotient above 1 at the end of a short decay.
                return 1.0 - math.sqrt(min(1.0, (progress - start) / self.decay))
            case "constant":
                return 1.0
            case _:
                assert_never(self.kind)
