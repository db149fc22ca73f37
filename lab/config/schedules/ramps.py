"""Settings that may vary during a run: a constant, or a linear ramp between two values.

A ramp is a function of progress, the completed share of the current stage
(`lab.config.schedules.phases`). Like the learning rate schedule it has no other state, so a resumed
run continues with the same values.
"""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

from pydantic import Discriminator, Tag

from lab.config import bounds
from lab.config.architecture import Count
from lab.config.base import StrictConfig
from lab.config.bounds import Factor

TAGS = ("a number", "a ramp")  # pydantic's names of the two alternatives, in error locations


@dataclass(frozen=True, kw_only=True)
class Ramp(StrictConfig):
    """A positive number that varies linearly with progress.

    Attributes:
        start: value at the start of the run, or of each stage in two-stage training.
        end: value at the end of the run, or of each stage in two-stage training.
    """

    start: Factor
    end: Factor

    def __post_init__(self) -> None:
        if self.start == self.end:
            raise ValueError(f"start and end are both {self.start:g}; write a single number")


@dataclass(frozen=True, kw_only=True)
class ProbabilityRamp(Ramp):
    """A probability that varies linearly with progress.

    Attributes:
        start: value at the start of the run, or of each stage in two-stage training.
        end: value at the end of the run, or of each stage in two-stage training.
    """

    start: bounds.Probability
    end: bounds.Probability


@dataclass(frozen=True, kw_only=True)
class CountRamp(Ramp):
    """A whole number that varies linearly with progress, rounded to the nearest integer.

    Attributes:
        start: value at the start of the run, or of each stage in two-stage training.
        end: value at the end of the run, or of each stage in two-stage training.
    """

    start: Count
    end: Count


def _tag(raw: object) -> str:
    return TAGS[isinstance(raw, dict)]


# Types of settings that may vary: a number or a ramp.
Positive = Annotated[
    Annotated[Factor, Tag(TAGS[0])] | Annotated[Ramp, Tag(TAGS[1])], Discriminator(_tag)
]
Probability = Annotated[
    Annotated[bounds.Probability, Tag(TAGS[0])] | Annotated[ProbabilityRamp, Tag(TAGS[1])],
    Discriminator(_tag),
]
WindowCount = Annotated[
    Annotated[Count, Tag(TAGS[0])] | Annotated[CountRamp, Tag(TAGS[1])], Discriminator(_tag)
]


def value_at(setting: float | Ramp, progress: float) -> float:
    """Return the value of a setting at `progress`, which is clipped to [0, 1]."""
    if not isinstance(setting, Ramp):
        return setting
    return setting.start + (setting.end - setting.start) * min(1.0, max(0.0, progress))


class StepSettings(NamedTuple):
    """Values of the varying settings in one step.

    Attributes:
        length: positions of a window.
        batch: windows of the step, over all workers.
        mask_prob: share of the tokens that are masked or replaced.
        disc_weight: weight of the discriminator's loss; 1 if the objective has no such setting.
        temperature: sampling temperature of the generator; 1 if the objective does not sample.
    """

    length: int
    batch: int
    mask_prob: float
    disc_weight: float
    temperature: float
