"""Designs of a sweep: its end points by size and compared settings, at all budgets."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab.config.metrics import Metric
from lab.config.trial import Path
from lab.reporting.scaling.end_points import RATE, EndPoint, group_end_points
from lab.scaling.forecasting.designs import Design
from lab.scaling.hygiene import select_runs
from lab.scaling.runs import Run
from lab.tracking.frames import SweepFrames

Setting = str | int | float
MODEL = (
    "encoder",
    "objective",
    "init_from",
    "data",
    "windows",
)  # settings of the model and its text
_SECTIONS = (*MODEL, "batch", "optim", "schedule")


@dataclass(frozen=True, kw_only=True)
class DesignEnd:
    """An end point of a design.

    Attributes:
        design: label of the design.
        fingerprint: fingerprint of the trial.
        run: the end point.
        exclusion: why no law is fitted to it; empty if one is.
    """

    design: str
    fingerprint: str
    run: Run
    exclusion: str


@dataclass(frozen=True, kw_only=True)
class SweepDesigns:
    """The designs of a sweep.

    Attributes:
        metric: the loss that is forecast; None if the sweep has none.
        designs: designs with a run that a law may be fitted to.
        settings: settings of each design by dotted path, by label.
        ends: end points of all designs.
    """

    metric: Metric | None
    designs: tuple[Design, ...]
    settings: Mapping[str, Mapping[Path, Setting]]
    ends: tuple[DesignEnd, ...]

    @property
    def fitted(self) -> tuple[DesignEnd, ...]:
        """End points that laws are fitted to."""
        return tuple(end for end in self.ends if not end.exclusion)


def read_designs(frames: SweepFrames) -> SweepDesigns:
    """Return the designs of a sweep; none without a held-out loss or budgets in FLOPs."""
    groups = group_end_points(frames)
    rows = {int(row["number"]): row for row in frames.trials.to_dict("records")}
    designs: list[Design] = []
    settings: dict[str, dict[Path, Setting]] = {}
    ends: list[DesignEnd] = []
    for group in groups:
        for shape in dict.fromkeys(end.shape for end in group.ends):
            name = f"{group.label}, {shape}" if group.label else shape
            members = [end for end in group.ends if end.shape == shape]
            trials = [rows[end.number] for end in members]
            its_ends = list(_ends(name, members, trials))
            ends += its_ends
            settings[name] = _common_settings(trials, frames)
            runs = tuple(end.run for end in its_ends if not end.exclusion)
            if runs:
                per_token = float(np.median([end.flops_per_token for end in members]))
                designs.append(
                    Design(name=name, group=group.label, flops_per_token=per_token, runs=runs)
                )
    return SweepDesigns(
        metric=groups[0].metric if groups else None,
        designs=tuple(designs),
        settings=settings,
        ends=tuple(ends),
    )


def has_settings(
    design: Mapping[Path, Setting], trial: Mapping[Path, Any], sections: Sequence[Path] = _SECTIONS
) -> bool:
    """Return whether a trial agrees with a design in all settings that both have.

    Args:
        design: settings of the design.
        trial: settings of the trial.
        sections: beginnings of the paths that are compared.
    """
    common = [path for path in design if path in trial and _is_within(path, sections)]
    return bool(common) and all(trial[path] == design[path] for path in common)


def _ends(
    name: str, members: Iterable[EndPoint], trials: Iterable[Mapping[Any, Any]]
) -> Iterator[DesignEnd]:
    pairs = list(zip(members, trials, strict=True))
    selection = select_runs(end.run for end, _ in pairs)
    reasons = {each.run.name: each.reason for each in selection.excluded}
    for end, trial in pairs:
        yield DesignEnd(
            design=name,
            fingerprint=str(trial["fingerprint"]),
            run=end.run,
            exclusion=reasons.get(end.run.name, ""),
        )


def _common_settings(
    trials: Iterable[Mapping[Any, Any]], frames: SweepFrames
) -> dict[Path, Setting]:
    """Return the settings that identify a design: those that all of its trials share.

    Settings that depend on the budget, as learning rates do that follow a trend, are none of them;
    nor are settings that are chosen by the scores at a budget.
    """
    first, *others = trials
    chosen = (*frames.tune, *([RATE] if RATE in frames.compare else ()))
    return {
        str(path): value
        for path, value in first.items()
        if isinstance(value, Setting)
        and not _is_missing(value)
        and _is_within(str(path), _SECTIONS)
        and not _is_within(str(path), chosen)
        and all(other.get(path) == value for other in others)
    }


def _is_missing(value: Setting) -> bool:
    """Return whether a value stands for a setting that only other trials have."""
    return isinstance(value, float) and math.isnan(value)


def _is_within(path: Path, sections: Iterable[Path]) -> bool:
    return any(path == each or path.startswith(f"{each}.") for each in sections)
