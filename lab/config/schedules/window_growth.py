"""Configuration of the window length during a run: constant, or short windows first."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval

from lab.config.base import StrictConfig


@dataclass(frozen=True, kw_only=True)
class FullWindows(StrictConfig):
    """Windows of `data.length` positions in every step."""

    kind: Literal["full"] = "full"


@dataclass(frozen=True, kw_only=True)
class GrowingWindows(StrictConfig):
    """Short windows first, then windows of `data.length` positions.

    A step of short windows has proportionally more windows, so the number of tokens is the same.
    In half of these steps all windows are placed at a random offset of the position embeddings, so
    that every position embedding is trained.

    Attributes:
        start: number of positions of a short window, [CLS] and [SEP] included; must be less than
            `data.length`.
        until: progress of the run, between 0 and 1, at which full windows begin.
    """

    kind: Literal["growing"]
    start: Annotated[int, Interval(ge=8, le=4_096)] = 16
    until: Annotated[float, Interval(gt=0, lt=1)] = 0.85


WindowSchedule = FullWindows | GrowingWindows


def length_at(growth: WindowSchedule, length: int, progress: float) -> int:
    """Return the number of positions of a window at `progress`; a full window has `length`."""
    match growth:
        case GrowingWindows(start=start, until=until) if progress < until:
            return start
        case _:
            return length
