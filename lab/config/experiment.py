"""Configuration of an experiment: a question, the compared settings, the search and its resources."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Gt, Interval, MinLen

from lab.config.architecture import Count
from lab.config.base import StrictConfig
from lab.config.metrics import Metric
from lab.config.trial import Path, Trial, Value

Answer = Literal["ranking", "path", "noise"]


@dataclass(frozen=True, kw_only=True)
class Range(StrictConfig):
    """A nuisance parameter's values: an interval, evenly or logarithmically spaced.

    Attributes:
        low: smallest value.
        high: largest value.
        log: spaced by ratio.
        step: distance of neighbouring values; continuous without it.
        integer: whole numbers only.
    """

    low: float
    high: float
    log: bool = False
    step: Annotated[float, Gt(0)] | None = None
    integer: bool = False


@dataclass(frozen=True, kw_only=True)
class Choices(StrictConfig):
    """A nuisance parameter's values: a list without order."""

    choices: tuple[Value, ...]


Distribution = Range | Choices


@dataclass(frozen=True, kw_only=True)
class HalvingConfig(StrictConfig):
    """Asynchronous successive halving among a cell's searching runs, at scored points.

    A run goes on past point 1, f, f^2, ... if its score is among the best 1/f that have come
    there. Fair only where a run's beginning is a run of that length itself, so it asks for a
    constant rate without warm-up.

    Attributes:
        factor: f.
    """

    kind: Literal["halving"]
    factor: Annotated[int, Interval(ge=2, le=100)] = 2


@dataclass(frozen=True, kw_only=True)
class SearchConfig(StrictConfig):
    """How nuisances are searched in each cell, and how often its winner is repeated.

    Attributes:
        sampler: `grid`, `random` and `qmc` (scrambled Halton) are functions of a trial's number
            and can be re-analysed; `tpe` and `gp` learn from what has ended.
        trials: settings tried in each cell; 1 where nothing is tuned.
        seeds: fresh repeats of each cell's best setting, on seeds the search never saw. Only
            these enter the comparison, so no cell wins by the luck that picked its setting. An
            interval needs two; three are the fewest that leave it narrow enough to use.
        seed: of the sampler's own chance.
        stopping: which searching runs end early; none do without it.
    """

    sampler: Literal["grid", "random", "qmc", "tpe", "gp"] = "qmc"
    trials: Count = 1
    seeds: Count = 3
    seed: Annotated[int, Interval(ge=0, lt=2**31)] = 0
    stopping: HalvingConfig | None = None


@dataclass(frozen=True, kw_only=True)
class Resources(StrictConfig):
    """What one trial uses, and how many run side by side.

    Attributes:
        workers: processes that train one trial together, each on its part of every batch.
        cpus_per_worker: CPU cores of each, also its threads.
        gpus_per_worker: 1, or 0 for none; a fraction lets several trials share a GPU, whose
            seconds are then compared with none.
        slots: trials at once, at most; 0 takes as many as the machine or cluster serves.
    """

    workers: Annotated[int, Interval(ge=1, le=10_000)] = 1
    cpus_per_worker: Annotated[int, Interval(ge=1, le=10_000)] = 1
    gpus_per_worker: Annotated[float, Interval(ge=0, le=1)] = 0.0
    slots: Annotated[int, Interval(ge=0, le=1_000)] = 0


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(StrictConfig):
    """What every finished trial is fine-tuned on, beside its pre-training and its budget.

    Attributes:
        tasks: of the lab's table (`task_table`), or YAML files; each gives `finetune/<task>`.
        seeds: runs of each, whose median counts.
    """

    tasks: tuple[Annotated[str, MinLen(1)], ...] = ()
    seeds: Annotated[int, Interval(ge=1, le=1_000)] = 3


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A question, and the trials that answer it.

    Attributes:
        name: of the report's folder and the MLflow run; the search space's file name.
        question: stated before the run; heads the report.
        metric: what ranks trials.
        base: the trial that every other one differs from.
        compare: scientific parameters, full grid: path to values.
        tune: nuisance parameters, searched anew in each cell.
        search: how.
        resources: on what.
        finetune: what comes after.
        answer: what the report's card concludes. `ranking`: which setting to take; `path`: whether
            every trial finished; `noise`: how far seeds alone spread the score.
    """

    name: str
    question: str
    metric: Metric
    base: dict[str, Value]
    compare: dict[Path, tuple[Value, ...]]
    tune: dict[Path, Distribution]
    search: SearchConfig
    resources: Resources
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    answer: Answer = "ranking"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run that a search asks for.

    Attributes:
        number: place in the order of asking, from 0.
        role: `search` looks for a cell's best nuisances; `repeat` runs them again on fresh seeds
            and is what cells are compared by.
        cell: the compared values, by path.
        tuned: the nuisance values, by path.
        repeat: which seeds; search runs share 0, repeats count from 1.
        trial: what to run.
        compared: all values that a path of `cell` takes in the sweep; they shorten its label.
    """

    number: int
    role: Literal["search", "repeat"]
    cell: dict[Path, Value]
    tuned: dict[Path, Value]
    repeat: int
    trial: Trial
    compared: Mapping[Path, Sequence[Value]] = field(default_factory=dict)
