"""Settings that another sweep of the store compares, for an advice."""

from dataclasses import dataclass

from lab.advice.document import plain_settings
from lab.advice.settings import SETTINGS, describe
from lab.advice.values import Source
from lab.config.trial import Path, Trial, Value
from lab.errors import UserError
from lab.loading import search_space
from lab.reporting import stats
from lab.tracking import tags
from lab.tracking.frames import SweepFrames

# Settings of which the law's trial has every value without a change of other settings.
_PATHS = (
    "objective.generator.width",
    "objective.generator.depth",
    "objective.mask_prob",
    "batch",
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A setting that a sweep compares.

    Attributes:
        sweep: name of the sweep.
        path: dotted path of the setting.
        tied: the best value, and those that are not separable from it, best first.
        trials: number of trials that are compared.
        budget: largest budget of these trials, in FLOPs.
    """

    sweep: str
    path: Path
    tied: tuple[Value, ...]
    trials: int
    budget: float

    def keeps(self, trial: Trial) -> bool:
        """Return whether a trial has one of the best values."""
        return SETTINGS[self.path].value_of(trial) in self.tied

    def apply(self, trial: Trial) -> Trial:
        """Return a trial with the best value, or unchanged if it has one of the best."""
        if self.keeps(trial):
            return trial
        return search_space.build_trial(plain_settings(trial), {self.path: self.tied[0]})

    def describe_range(self) -> str:
        """Return the values that are not separable from the best one, as an interval or a list."""
        numbers = [value for value in self.tied if isinstance(value, int | float)]
        if len(numbers) == len(self.tied) > 1:
            return f"{min(numbers):g} to {max(numbers):g} (not separable)"
        if len(self.tied) > 1:
            return f"{', '.join(map(describe, self.tied))} (not separable)"
        return "separable from all others"

    def source(self, flops: float) -> Source:
        """Return the source of the value, for an advised budget in FLOPs."""
        best, *others = map(describe, self.tied)
        tied = f", not separable from {', '.join(others)}" if others else ""
        return Source(
            kind="own runs",
            text=f"best of {self.sweep}: {best}{tied}; {self.trials} trials of up to "
            f"{self.budget:.3g} FLOPs",
            factor=flops / self.budget,
        )


def read_comparison(frames: SweepFrames, objective: str) -> Comparison:
    """Return the best values of a sweep that compares one setting.

    Args:
        frames: frames of the sweep.
        objective: kind of the objective that its trials must have.

    Raises:
        UserError: the sweep compares other settings, or its scores cannot answer.
    """
    name = frames.name
    if len(frames.compare) != 1 or (path := next(iter(frames.compare))) not in _PATHS:
        raise UserError(
            f"--compared {name}: compares {', '.join(frames.compare) or 'nothing'}; must compare "
            f"one of {', '.join(_PATHS)}"
        )
    answer, runs = stats.compute_answer(frames), stats.scored_trials(frames)
    if answer is None or not stats.has_learned(frames, answer, runs):
        raise UserError(f"--compared {name}: no trial scores above its untrained encoder")
    kinds = {str(kind) for kind in runs["objective.kind"]}
    units = {str(kind) for kind in runs[tags.BUDGET_KIND]}
    if kinds != {objective} or units != {"flops"}:
        raise UserError(
            f"--compared {name}: has objective {', '.join(sorted(kinds))} and budgets in "
            f"{', '.join(sorted(units))}; must have {objective} and flops"
        )
    return Comparison(
        sweep=name,
        path=path,
        tied=tuple(cell.settings[path] for cell in answer.cells if cell.tied),
        trials=len(runs),
        budget=float(runs[tags.BUDGET_AMOUNT].max()),
    )
