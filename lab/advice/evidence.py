"""Own runs of one sweep, and the law and the learning rates that are fitted to them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lab.advice.devices import Timing
from lab.advice.values import Source, short
from lab.config.architecture import EncoderConfig
from lab.config.flops import encoder_weights
from lab.config.schedules.rate_trend import RateTrendConfig
from lab.config.trial import Trial
from lab.scaling.finite_test_set import TestSetErrors
from lab.scaling.flops import FlopsPerToken
from lab.scaling.law import LawFit
from lab.scaling.profiles import Estimate, optimal_size_intervals
from lab.scaling.rate_trend import RateTrend


@dataclass(frozen=True, kw_only=True)
class RateEvidence:
    """The trend of the best learning rate of a sweep that tunes it.

    Attributes:
        sweep: name of the sweep.
        trend: the trend.
        largest_budget: largest budget of the optima of the trend, in FLOPs.
    """

    sweep: str
    trend: RateTrend
    largest_budget: float

    def source(self, flops: float) -> Source:
        """Return the source of values of the trend, for an advised budget in FLOPs."""
        used = [optimum for optimum in self.trend.optima if not optimum.problem]
        sizes = sorted({optimum.predictors["parameters"] for optimum in used})
        return Source(
            kind="fitted trend",
            text=f"best rates of {self.sweep} at {len(used)} points with {short(sizes[0])} to "
            f"{short(sizes[-1])} parameters, over {', '.join(self.trend.names)}",
            factor=flops / self.largest_budget,
        )


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Own runs of one sweep that differ in size, budget, learning rate and seeds.

    Attributes:
        sweep: name of the sweep, with the compared settings that the runs share.
        metric: name of the score that the law describes; smaller is better.
        fit: the law, with N of the encoder without embeddings (`encoder_weights`).
        trials: settings of the runs that the law is fitted to, one for each run of the fit.
        rates: trend of the best learning rate; None if no runs determine one.
        rate_problem: why there is no trend; empty with a trend.
        rate_config: power law that the search space has as learning rate; None if it has numbers.
        timings: speeds of the runs.
        epoch_tokens: tokens of one pass over the sweep's text; None if unknown.
        test_set: errors of the law due to the finite test set; None if they are unknown.
        warnings: signs that the law is wrong.
    """

    sweep: str
    metric: str
    fit: LawFit
    trials: tuple[Trial, ...]
    rates: RateEvidence | None
    rate_problem: str
    timings: tuple[Timing, ...]
    epoch_tokens: float | None
    rate_config: RateTrendConfig | None = None
    test_set: TestSetErrors | None = None
    warnings: tuple[str, ...] = ()

    @property
    def largest_budget(self) -> float:
        """Largest budget of the fitted runs, in FLOPs."""
        return float(self.fit.points.budgets_n.max())

    def optimal_size(self, flops: float, per_token: FlopsPerToken) -> Estimate:
        """Return the compute-optimal size at a budget, with the interval of the law."""
        (size,) = optimal_size_intervals(self.fit, np.array([flops]), per_token)
        return size if self.test_set is None else self.test_set.widen_size(size, flops, per_token)

    @property
    def shapes(self) -> tuple[EncoderConfig, ...]:
        """Shapes of the encoders of the runs."""
        return tuple({trial.encoder for trial in self.trials})

    @cached_property
    def model(self) -> Trial:
        """Settings of the largest encoder at its largest budget."""
        return max(self.trials, key=lambda one: (encoder_weights(one.encoder), one.budget.amount))

    def law_source(self, flops: float) -> Source:
        """Return the source of values of the law, for an advised budget in FLOPs."""
        budgets = self.fit.points.budgets_n
        return Source(
            kind="fitted trend",
            text=f"law L(N, D) of {self.sweep}, {len(self.fit.points)} runs of "
            f"{budgets.min():.3g} to {budgets.max():.3g} FLOPs",
            factor=flops / self.largest_budget,
        )

    def setting_source(self, flops: float, value_of: Callable[[Trial], object]) -> Source:
        """Return the source of a setting that is taken over from the runs.

        Args:
            flops: advised budget in FLOPs.
            value_of: returns the setting of a trial.
        """
        values = {repr(value_of(trial)) for trial in self.trials}
        count = len(self.trials)
        text = (
            f"the same in all {count} runs of {self.sweep}, so not compared there"
            if len(values) == 1
            else f"that of the largest encoder of {self.sweep}; its {count} runs have "
            f"{len(values)} values"
        )
        return Source(kind="own runs", text=text, factor=flops / self.largest_budget)
