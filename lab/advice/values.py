"""Advised values with their sources."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lab.config.trial import Path, Trial
from lab.scaling.next_runs import NextRuns

Kind = Literal["own runs", "fitted trend", "prior", "computed"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a value comes from.

    Attributes:
        kind: own runs, which had this value; a trend that was fitted to own runs; a prior, which is
            a published or shipped setting without own runs; or a number computed from the others.
        text: the sweep with its trials and budgets, or the paper, or the computation.
        factor: advised budget divided by the largest one of the own runs; None without own runs.
    """

    kind: Kind
    text: str
    factor: float | None = None

    def __str__(self) -> str:
        beyond = "" if self.factor is None else f"; {self.factor:.3g} times their largest budget"
        return f"{self.kind}: {self.text}{beyond}"


@dataclass(frozen=True, kw_only=True)
class AdvisedValue:
    """One advised value.

    Attributes:
        name: name of the setting or quantity, with its unit.
        text: the value.
        interval: interval of a fitted value, or of one that is computed from the size; the values
            that are not separable from a compared one; `not compared`; or `no interval` and the
            reason. Empty for values that are computed otherwise, and for priors.
        source: source of the value.
        path: dotted path of the setting in a search space; empty if it is no setting.
    """

    name: str
    text: str
    source: Source
    interval: str = ""
    path: Path = ""


@dataclass(frozen=True, kw_only=True)
class NextTrial:
    """The runs that would make the advised size surer.

    Attributes:
        trial: their settings.
        runs: their number, and the standard error of the log optimal size before and after them.
    """

    trial: Trial
    runs: NextRuns


@dataclass(frozen=True, kw_only=True)
class Advice:
    """The advised run.

    Attributes:
        question: question of its search space.
        metric: name of the ranking metric.
        heading: the budget and its basis, in one line.
        trial: all settings.
        values: the settings and the expected results, with sources.
        warnings: reasons for doubt about the advice, one sentence each.
        resources: resources of the trial, as in a search space; empty for the defaults.
        next_trial: the most informative next trial; None without a fitted law.
    """

    question: str
    metric: str
    heading: str
    trial: Trial
    values: tuple[AdvisedValue, ...]
    warnings: tuple[str, ...] = ()
    resources: Mapping[str, float] = field(default_factory=dict)
    next_trial: NextTrial | None = None


def short(value: float) -> str:
    """Return a number with three significant digits: 310,000, 1.2e+14 or 0.00123."""
    if 1 <= abs(value) < 1e9:
        digits = float(f"{value:.3g}")
        return f"{digits:,.0f}" if digits >= 100 else f"{digits:g}"
    return f"{value:.3g}"


def interval(low: float, high: float, level: float) -> str:
    """Return an interval as text; an end that the runs do not limit is called open."""
    ends = (f"{short(low)}" if low > 0 else "open", f"{short(high)}" if high < 1e300 else "open")
    return f"{ends[0]} to {ends[1]} ({level:.0%})"
