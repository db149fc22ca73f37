"""Settings that move with progress: a number, or a line from one number to another.

Progress is that of `turns`: the share of the present stage that is done. A setting is a function of
it alone, as the learning rate's schedule is, so a run that goes on after a break finds it again.
"""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

from annotated_types import Gt, Interval
from pydantic import Discriminator, Tag

from lab.config.architecture import Count
from lab.config.base import StrictConfig

TAGS = ("a number", "a ramp")  # which of the two an error speaks of


@dataclass(frozen=True, kw_only=True)
class Ramp(StrictConfig):
    """A positive number that moves linearly with progress.

    Attributes:
        start: at progress 0.
        end: at progress 1.
    """

    start: Annotated[float, Gt(0)]
    end: Annotated[float, Gt(0)]

    def __post_init__(self) -> None:
        if self.start == self.end:
            raise ValueError(f"start and end are both {self.start:g}; write the number alone")


@dataclass(frozen=True, kw_only=True)
class ProbabilityRamp(Ramp):
    """A probability that moves linearly with progress.

    Attributes:
        start: at progress 0.
        end: at progress 1.
    """

    start: Annotated[float, Interval(gt=0, lt=1)]
    end: Annotated[float, Interval(gt=0, lt=1)]


@dataclass(frozen=True, kw_only=True)
class CountRamp(Ramp):
    """A whole number that moves linearly with progress, rounded.

    Attributes:
        start: at progress 0.
        end: at progress 1.
    """

    start: Count
    end: Count


def _tag(raw: object) -> str:
    return TAGS[isinstance(raw, dict)]


# What a search space may write for a setting that can move.
Positive = Annotated[
    Annotated[float, Gt(0), Tag(TAGS[0])] | Annotated[Ramp, Tag(TAGS[1])], Discriminator(_tag)
]
Probability = Annotated[
    Annotated[float, Interval(gt=0, lt=1), Tag(TAGS[0])] | Annotated[ProbabilityRamp, Tag(TAGS[1])],
    Discriminator(_tag),
]
WindowCount = Annotated[
    Annotated[Count, Tag(TAGS[0])] | Annotated[CountRamp, Tag(TAGS[1])], Discriminator(_tag)
]


def value_at(setting: float | Ramp, progress: float) -> float:
    """Return the number that a setting is at `progress`; before 0 and after 1 as there."""
    if not isinstance(setting, Ramp):
        return setting
    return setting.start + (setting.end - setting.start) * min(1.0, max(0.0, progress))


class StepSettings(NamedTuple):
    """The settings of one step, of those that may move with progress.

    Attributes:
        length: positions of a window.
        batch: windows, over all workers.
        mask_prob: share of the tokens that are chosen.
        disc_weight: weight of the discriminator's loss; 1 where the objective has no such setting.
        temperature: of the generator's samples; 1 where nothing is sampled from a generator.
    """

    length: int
    batch: int
    mask_prob: float
    disc_weight: float
    temperature: float
