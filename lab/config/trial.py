"""The lab's vocabulary: frozen nouns, in the order a search space shows them.

Nothing here imports torch, ray, optuna or mlflow. Everything is built and checked at one door
(`lab.config.search_space`); past it nothing is optional or mutable. A default here holds for an encoder without a
named size; those of the sizes are in `lab.config.size_defaults`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Literal

from annotated_types import Gt, Interval, MinLen
from pydantic import Field

from lab import __version__
from lab.config.architecture import SIZES, Count, Encoder, Generator
from lab.config.base import Noun
from lab.config.budget import Budget
from lab.config.data import (
    Data,
    Embedded,
    Files,
    Hub,
    Mixture,
    Part,
    Pretrained,
    Saved,
    Source,
    Tokenization,
    Trained,
    WordPieces,
)
from lab.config.init_from import Earlier, MlmRun, Released, Scratch, Start
from lab.config.metrics import Metric
from lab.config.objective import (
    Adversarial,
    AllTokensMlm,
    Alternation,
    Electra,
    Electra15,
    FrozenGenerator,
    Joint,
    Masked,
    Mlm,
    Objective,
    Random,
    Reinforce,
    ReplaceMlm,
    Sampling,
    TwoStage,
    disc_weight_at,
    temperature_at,
)
from lab.config.optimizer import AdamConfig, MuonConfig, Optim
from lab.config.ramps import CountRamp, ProbabilityRamp, Ramp, StepSettings, WindowCount, value_at
from lab.config.schedule import Schedule
from lab.config.window_growth import FullWindows, GrowingWindows, WindowGrowth, length_at

__all__ = [
    "SIZES",
    "AdamConfig",
    "Adversarial",
    "AllTokensMlm",
    "Alternation",
    "Answer",
    "Choices",
    "CountRamp",
    "Data",
    "Distribution",
    "Earlier",
    "Electra",
    "Electra15",
    "Embedded",
    "Encoder",
    "Experiment",
    "Files",
    "Finetuning",
    "FrozenGenerator",
    "FullWindows",
    "Generator",
    "GrowingWindows",
    "Halving",
    "Hub",
    "Job",
    "Joint",
    "Masked",
    "Mixture",
    "Mlm",
    "MlmRun",
    "MuonConfig",
    "Objective",
    "Optim",
    "Outcome",
    "Part",
    "Path",
    "Pretrained",
    "ProbabilityRamp",
    "Ramp",
    "Random",
    "Range",
    "Reinforce",
    "Released",
    "ReplaceMlm",
    "Resources",
    "Row",
    "Sampling",
    "Saved",
    "Scratch",
    "Search",
    "Seeds",
    "Source",
    "Start",
    "State",
    "StepSettings",
    "Tokenization",
    "Trained",
    "Trial",
    "TwoStage",
    "Value",
    "WordPieces",
    "content_hash",
]

Path = str  # a dotted path into a trial, for example objective.generator.width
Value = object  # what YAML can hold at a path: a number, a string, a list or a mapping
Answer = Literal["ranking", "path", "noise"]


@dataclass(frozen=True, kw_only=True)
class Seeds(Noun):
    """Separate sources of chance, so that one can vary while the others stay.

    Attributes:
        init: initial weights.
        order: order of the windows.
        mask: masked positions, sampled tokens and dropout.
    """

    init: Annotated[int, Interval(ge=0, lt=2**31)] = 0
    order: Annotated[int, Interval(ge=0, lt=2**31)] = 0
    mask: Annotated[int, Interval(ge=0, lt=2**31)] = 0

    def repeat(self, number: int) -> "Seeds":
        """Return the seeds of the `number`-th repeat; repeat 0 is this one."""
        return Seeds(init=self.init + number, order=self.order + number, mask=self.mask + number)


@dataclass(frozen=True, kw_only=True)
class Trial(Noun):
    """Everything that decides what one training run computes.

    Attributes:
        init_from: what its networks start from; the schedule and the budget are its own.
        windows: whether windows are of full length throughout, or short ones first.
        batch: windows of one optimizer step, over all workers; a number or a ramp. Where windows
            grow it counts full ones, and short ones are as many more as makes up for their length.
        curve: how many times the run is scored on its way, its end included.
    """

    encoder: Encoder
    objective: Annotated[Objective, Field(discriminator="kind")]
    init_from: Annotated[Start, Field(discriminator="kind")] = field(default_factory=Scratch)
    data: Data = field(default_factory=Data)
    windows: Annotated[WindowGrowth, Field(discriminator="kind")] = field(
        default_factory=FullWindows
    )
    batch: WindowCount = 128
    optim: Annotated[Optim, Field(discriminator="kind")] = field(default_factory=AdamConfig)
    schedule: Schedule = field(default_factory=Schedule)
    budget: Budget
    seeds: Seeds = field(default_factory=Seeds)
    curve: Annotated[int, Interval(ge=1, le=1_000)] = 8

    def fingerprint(self, data: str) -> str:
        """Return the trial's identity: a hash of configuration, data and code version.

        Args:
            data: fingerprint of the prepared text (`lab.data.batches`).
        """
        settings = asdict(self)
        for place in ("source", "tokenizer", "decontaminate"):  # `data` names what they hold
            del settings["data"][place]
        return content_hash({"trial": settings, "data": data, "version": __version__})

    def lineage(self, data: str) -> str:
        """Return what it has in common with trials of another length: all but the amount."""
        alike = replace(self, budget=replace(self.budget, amount=1.0))
        return content_hash([alike.fingerprint(data)])

    @property
    def texts(self) -> tuple[Data, ...]:
        """What it reads: the text in full windows, then that in the short ones it begins with."""
        match self.windows:
            case GrowingWindows(start=start):
                return self.data, replace(self.data, length=start)
            case _:
                return (self.data,)

    @property
    def knots(self) -> tuple[float, ...]:
        """Progress at which settings begin, jump and end; they are lines in between."""
        match self.windows:
            case GrowingWindows(until=until):
                return 0.0, until, 1.0
            case _:
                return 0.0, 1.0

    def at(self, progress: float) -> StepSettings:
        """Return the settings of a step at `progress`, each a plain number."""
        objective, length = self.objective, length_at(self.windows, self.data.length, progress)
        batch = round(value_at(self.batch, progress))
        return StepSettings(
            length=length,
            batch=batch * self.data.length // length,
            mask_prob=value_at(objective.mask_prob, progress),
            disc_weight=disc_weight_at(objective, progress),
            temperature=temperature_at(objective, progress),
        )

    @property
    def moves(self) -> frozenset[str]:
        """Names of the step settings that are not the same throughout."""
        values = zip(*map(self.at, self.knots), strict=True)
        return frozenset(
            name
            for name, seen in zip(StepSettings._fields, values, strict=True)
            if len(set(seen)) > 1
        )

    @property
    def extendable(self) -> bool:
        """Whether a run that is longer begins as this one: nothing in it depends on its end."""
        staged = isinstance(self.objective, TwoStage)
        return self.schedule.flat and not staged and not self.moves


def content_hash(value: object) -> str:
    """Return twelve hexadecimal digits that name `value` by its canonical JSON."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class Range(Noun):
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
class Choices(Noun):
    """A nuisance parameter's values: a list without order."""

    choices: tuple[Value, ...]


Distribution = Range | Choices


@dataclass(frozen=True, kw_only=True)
class Halving(Noun):
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
class Search(Noun):
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
    stopping: Halving | None = None


@dataclass(frozen=True, kw_only=True)
class Resources(Noun):
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
class Finetuning(Noun):
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
    search: Search
    resources: Resources
    finetune: Finetuning = field(default_factory=Finetuning)
    answer: Answer = "ranking"


State = Literal["queued", "running", "finished", "stopped", "diverged", "failed", "interrupted"]


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


Row = dict[str, float]  # one scored point of a curve: `spent/*` and metrics, by name


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a job ended.

    Attributes:
        state: `finished` has a score, the others a reason.
        reason: one line; of a finished trial, which shorter run it went on from, if it did.
        rows: the curve, from the untrained encoder (step 0) to the end.
        began: Unix time at which the trial took its slot.
        seconds: it held the slot, set-up included.
        busy: seconds of these that went into training or scoring.
        device: what it was computed on.
        shared: whether other trials used the device too, so that its seconds say little.
        tries: how often it has been tried, this and earlier ones that failed.
    """

    state: State
    reason: str
    rows: tuple[Row, ...]
    began: float
    seconds: float
    busy: float
    device: str = ""
    shared: bool = False
    tries: int = 1
