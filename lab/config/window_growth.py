"""How long the windows are that a trial reads: of full length throughout, or short ones first."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval

from lab.config.base import StrictConfig


@dataclass(frozen=True, kw_only=True)
class FullWindows(StrictConfig):
    """Windows of `data.length` from the first step to the last."""

    kind: Literal["full"] = "full"


@dataclass(frozen=True, kw_only=True)
class GrowingWindows(StrictConfig):
    """Windows of `start` positions first, then of `data.length`.

    A step of short windows reads as many more of them as makes up for their length. In half of
    these steps all windows stand at a random offset of the position table, so that each of its
    rows is trained.

    Attributes:
        start: positions of a short window, [CLS] and [SEP] included; below `data.length`.
        until: progress at which the windows become full.
    """

    kind: Literal["growing"]
    start: Annotated[int, Interval(ge=8, le=4_096)] = 16
    until: Annotated[float, Interval(gt=0, lt=1)] = 0.85


WindowSchedule = FullWindows | GrowingWindows


def length_at(growth: WindowSchedule, length: int, progress: float) -> int:
    """Return the positions of a window at `progress`, where a full one has `length`."""
    match growth:
        case GrowingWindows(start=start, until=until) if progress < until:
            return start
        case _:
            return length
