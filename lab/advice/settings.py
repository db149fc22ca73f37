"""The settings of a trial that are advised, by name and dotted path."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lab.config.flops import mean_cost
from lab.config.objectives.generators import JointObjectiveConfig
from lab.config.optimizer import MuonConfig
from lab.config.preparatory_runs import training_budget
from lab.config.schedules.ramps import Ramp
from lab.config.trial import Path, Trial


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting.

    Attributes:
        name: name with its unit.
        value_of: returns the setting of a trial; None if the trial has no such setting.
    """

    name: str
    value_of: Callable[[Trial], object]


def _generator(trial: Trial, attribute: str) -> object:
    objective = trial.objective
    if not isinstance(objective, JointObjectiveConfig):
        return None
    return getattr(objective.generator, attribute)


def _hidden_ratio(trial: Trial) -> object:
    return trial.optim.hidden_lr if isinstance(trial.optim, MuonConfig) else None


# By dotted path. Learning rates and the encoder's shape are advised separately.
SETTINGS: Mapping[Path, Setting] = {
    "objective.kind": Setting(name="objective", value_of=lambda one: one.objective.kind),
    "objective.generator.width": Setting(
        name="generator width / encoder width", value_of=lambda one: _generator(one, "width")
    ),
    "objective.generator.depth": Setting(
        name="generator layers / encoder layers", value_of=lambda one: _generator(one, "depth")
    ),
    "objective.mask_prob": Setting(
        name="mask probability", value_of=lambda one: one.objective.mask_prob
    ),
    "optim.kind": Setting(name="optimizer", value_of=lambda one: one.optim.kind),
    "batch": Setting(name="batch (windows)", value_of=lambda one: one.batch),
    "data.length": Setting(name="window (positions)", value_of=lambda one: one.data.length),
}
GENERATOR_RATE: Path = "optim.generator_lr"
HIDDEN_RATE: Path = "optim.hidden_lr"
# Ratios to the learning rate `optim.lr`.
RATE_RATIOS: Mapping[Path, Setting] = {
    GENERATOR_RATE: Setting(
        name="learning rate of the generator",
        value_of=lambda one: None if _generator(one, "width") is None else one.optim.generator_lr,
    ),
    HIDDEN_RATE: Setting(name="learning rate of hidden matrices", value_of=_hidden_ratio),
}


def describe(value: object) -> str:
    """Return the value of a setting as text."""
    match value:
        case Ramp(start=start, end=end):
            return f"{start:g} to {end:g}"
        case float():
            return f"{value:.3g}"
        case _:
            return str(value)


def steps_and_tokens(trial: Trial) -> tuple[int, float]:
    """Return the optimizer steps and the tokens of a trial with a budget in FLOPs."""
    cost = mean_cost(trial)
    steps = training_budget(trial).steps(cost) or 0
    return steps, float(steps * cost.tokens)
