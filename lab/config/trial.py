"""Configuration of one trial: everything that decides what a training run computes.

A default given here applies to an encoder without a named size; the defaults of named sizes are in
`lab.loading.size_defaults`.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated

from annotated_types import Interval
from pydantic import Field

from lab import __version__
from lab.config.architecture import EncoderConfig
from lab.config.base import StrictConfig
from lab.config.budget import Budget
from lab.config.code_digest import TRIAL, code_digest
from lab.config.data import DataConfig
from lab.config.init_from import FromScratch, InitFrom
from lab.config.objectives import AnyObjectiveConfig
from lab.config.optimizer import AdamConfig, AnyOptimizerConfig
from lab.config.ramps import StepSettings, WindowCount, value_at
from lab.config.schedule import Schedule
from lab.config.window_growth import FullWindows, GrowingWindows, WindowSchedule, length_at

Path = str  # a dotted path into a trial, for example objective.generator.width
Value = object  # what YAML can hold at a path: a number, a string, a list or a mapping


@dataclass(frozen=True, kw_only=True)
class Seeds(StrictConfig):
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
class Trial(StrictConfig):
    """Everything that decides what one training run computes.

    Attributes:
        init_from: what its networks start from; the schedule and the budget are its own.
        windows: whether windows are of full length throughout, or short ones first.
        batch: windows of one optimizer step, over all workers; a number or a ramp. Where windows
            grow it counts full ones, and short ones are as many more as makes up for their length.
        evaluations: how many times a run is scored, spaced evenly over its budget; the last is at
            the end. The untrained encoder is scored too.
    """

    encoder: EncoderConfig
    objective: Annotated[AnyObjectiveConfig, Field(discriminator="kind")]
    init_from: Annotated[InitFrom, Field(discriminator="kind")] = field(default_factory=FromScratch)
    data: DataConfig = field(default_factory=DataConfig)
    windows: Annotated[WindowSchedule, Field(discriminator="kind")] = field(
        default_factory=FullWindows
    )
    batch: WindowCount = 128
    optim: Annotated[AnyOptimizerConfig, Field(discriminator="kind")] = field(
        default_factory=AdamConfig
    )
    schedule: Schedule = field(default_factory=Schedule)
    budget: Budget
    seeds: Seeds = field(default_factory=Seeds)
    evaluations: Annotated[int, Interval(ge=1, le=1_000)] = 8

    def fingerprint(self, data: str) -> str:
        """Return the trial's identity: a hash of configuration, data and code.

        Args:
            data: fingerprint of the prepared text (`lab.data.batches`).
        """
        settings = asdict(self)
        for place in ("source", "tokenizer", "decontaminate"):  # `data` names what they hold
            del settings["data"][place]
        return content_hash(
            {"trial": settings, "data": data, "version": __version__, "code": code_digest(TRIAL)}
        )

    def lineage(self, data: str) -> str:
        """Return what it has in common with trials of another length: all but the amount."""
        alike = replace(self, budget=replace(self.budget, amount=1.0))
        return content_hash([alike.fingerprint(data)])

    @property
    def texts(self) -> tuple[DataConfig, ...]:
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
            disc_weight=objective.disc_weight_at(progress),
            temperature=objective.temperature_at(progress),
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
        return self.schedule.flat and not self.objective.staged and not self.moves


def content_hash(value: object) -> str:
    """Return twelve hexadecimal digits that name `value` by its canonical JSON."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
