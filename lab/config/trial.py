"""Configuration of one trial: all settings that determine the result of a training run.

Defaults given here apply to encoders without a named size. The defaults of named sizes are in
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
from lab.config.budget import Budget, Spent
from lab.config.code_digest import TRIAL, code_digest
from lab.config.data import DataConfig
from lab.config.init_from import FromScratch, InitFrom
from lab.config.objectives import AnyObjectiveConfig
from lab.config.optimizer import AdamConfig, AnyOptimizerConfig
from lab.config.schedules.learning_rate import Schedule
from lab.config.schedules.ramps import StepSettings, WindowCount, value_at
from lab.config.schedules.trunk import AnySchedule, TrunkSchedule
from lab.config.schedules.window_growth import (
    FullWindows,
    GrowingWindows,
    WindowSchedule,
    length_at,
)

Path = str  # a dotted path into a trial, for example objective.generator.width
Value = object  # the YAML value at a path: a number, a string, a list or a mapping


@dataclass(frozen=True, kw_only=True)
class Seeds(StrictConfig):
    """Random seeds, one for each source of randomness, so that each can be varied separately.

    Attributes:
        init: seed of the initial weights.
        order: seed of the order of the windows.
        mask: seed of the masked positions, the sampled tokens and dropout.
    """

    init: Annotated[int, Interval(ge=0, lt=2**31)] = 0
    order: Annotated[int, Interval(ge=0, lt=2**31)] = 0
    mask: Annotated[int, Interval(ge=0, lt=2**31)] = 0

    def repeat(self, number: int) -> "Seeds":
        """Return the seeds of repeat `number`; repeat 0 has these seeds."""
        return Seeds(init=self.init + number, order=self.order + number, mask=self.mask + number)


@dataclass(frozen=True, kw_only=True)
class Trial(StrictConfig):
    """All settings that determine the result of one training run.

    Attributes:
        encoder: shape of the encoder that is pre-trained and exported.
        objective: pre-training objective.
        init_from: source of the initial weights. A trial that starts from trained weights has its
            own schedule and budget.
        data: training text, tokenizer and windows.
        windows: window length during the run: constant, or short windows first.
        batch: number of windows in one optimizer step, over all workers; a number or a ramp. With
            growing windows this is the number of full windows; a step of short windows has
            proportionally more.
        optim: optimizer.
        schedule: learning rate schedule.
        budget: compute that the run may use.
        seeds: random seeds.
        evaluations: number of evaluations of the run, spaced evenly over its budget, with the last
            at the end. The untrained encoder is evaluated in addition.
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
    schedule: Annotated[AnySchedule, Field(discriminator="kind")] = field(default_factory=Schedule)
    budget: Budget
    seeds: Seeds = field(default_factory=Seeds)
    evaluations: Annotated[int, Interval(ge=1, le=1_000)] = 8

    def fingerprint(self, data: str) -> str:
        """Return the trial's identity: a hash of configuration, data and code.

        Args:
            data: fingerprint of the prepared text (`lab.data.batches`).
        """
        settings = asdict(self)
        for key in ("source", "tokenizer", "decontaminate"):  # part of the fingerprint `data`
            del settings["data"][key]
        return content_hash(
            {"trial": settings, "data": data, "version": __version__, "code": code_digest(TRIAL)}
        )

    def lineage(self, data: str) -> str:
        """Return a hash shared by all trials that begin as this one does.

        These trials differ from this one in `budget.amount` only. Trials that share a trunk have
        the lineage of the trunk.

        Args:
            data: fingerprint of the prepared text (`lab.data.batches`).
        """
        beginning = self.trunk or self
        unit_budget = replace(beginning, budget=replace(beginning.budget, amount=1.0))
        return content_hash([unit_budget.fingerprint(data)])

    @property
    def trunk(self) -> "Trial | None":
        """The run that this trial branches from, up to the start of its cooldown; None for most."""
        match self.schedule:
            case TrunkSchedule(decay=decay) as schedule if decay:
                amount = (1.0 - decay) * self.budget.amount
                return replace(
                    self,
                    schedule=replace(schedule, decay=0.0),
                    budget=replace(self.budget, amount=amount),
                    evaluations=1,
                )
            case _:
                return None

    def rate_multiplier(self, progress: float, spent: Spent) -> float:
        """Return the multiplier in [0, 1] of the peak learning rate of a step.

        Args:
            progress: progress of the phase before the step.
            spent: resources used before the step.
        """
        match self.schedule:
            case TrunkSchedule() as schedule:
                return schedule(progress, self.budget.spent_amount(spent))
            case Schedule() as schedule:
                return schedule(progress)

    @property
    def data_configs(self) -> tuple[DataConfig, ...]:
        """Prepared texts that the trial reads: in full windows and, if windows grow, short ones."""
        match self.windows:
            case GrowingWindows(start=start):
                return self.data, replace(self.data, length=start)
            case _:
                return (self.data,)

    @property
    def breakpoints(self) -> tuple[float, ...]:
        """Values of progress between which all settings are linear; settings may jump at them."""
        match self.windows:
            case GrowingWindows(until=until):
                return 0.0, until, 1.0
            case _:
                return 0.0, 1.0

    def settings_at(self, progress: float) -> StepSettings:
        """Return the values of the varying settings at `progress`."""
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
    def varying_settings(self) -> frozenset[str]:
        """Names of the step settings that vary during the run."""
        values = zip(*map(self.settings_at, self.breakpoints), strict=True)
        return frozenset(
            name
            for name, at_breakpoints in zip(StepSettings._fields, values, strict=True)
            if len(set(at_breakpoints)) > 1
        )

    @property
    def extendable(self) -> bool:
        """Whether a longer run begins exactly as this one, so that this run can be extended.

        No setting may depend on progress, which is relative to the end of the run.
        """
        return self.schedule.flat and not self.objective.staged and not self.varying_settings


def content_hash(value: object) -> str:
    """Return the first twelve hexadecimal digits of the SHA-256 of `value` as canonical JSON."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
