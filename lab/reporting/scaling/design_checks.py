"""Reasons to distrust a law that lie in the design of its runs, in words."""

from collections.abc import Collection, Iterable
from statistics import median
from typing import Any

from lab.loading.sweep_warnings import StepSettings, describe_batches
from lab.reporting.compute.learning_curves import BUDGET
from lab.reporting.scaling.analysis import FittedGroup
from lab.reporting.scaling.end_points import RATE, SIZE_PATHS, EndPoint
from lab.reporting.scaling.estimates import format_flops, format_number
from lab.tracking.frames import SweepFrames

_OTHERS = ("batch",)  # settings without a dot in their path
_BY_BATCH = ("optim.beta2", "optim.weight_decay")  # settings that belong to a batch
# Ratio of tokens per parameter. At equal FLOPs, a size twice the optimal one has about a quarter of
# its tokens per parameter.
_FAR_BELOW = 4.0
_FREE = ("seeds.",)  # prefixes of settings that differ between all runs


def check_design(frames: SweepFrames, fitted: FittedGroup) -> tuple[str, ...]:
    """Return warnings about the runs of a fitted law."""
    return (
        *_check_rates(frames, fitted),
        *_check_other_settings(frames, fitted),
        *check_batches(frames, fitted.ends),
        *_check_seeds(fitted),
        *_check_epochs(fitted),
        *_check_optimum(fitted),
        *_check_tokens_per_parameter(fitted),
    )


def check_batches(frames: SweepFrames, ends: Iterable[EndPoint]) -> list[str]:
    """Return a warning if runs differ in the batch, but not in β2 or weight decay."""
    if not {*_BY_BATCH} <= {*frames.trials}:
        return []
    by_number = {row["number"]: row for row in frames.trials.to_dict("records")}
    settings = {
        StepSettings(end.step_tokens, *(float(by_number[end.number][name]) for name in _BY_BATCH))
        for end in ends
    }
    found = describe_batches(settings)
    return [] if found is None else [found]


def _check_rates(frames: SweepFrames, fitted: FittedGroup) -> list[str]:
    if RATE in frames.tune or RATE in frames.compare:
        return []
    rates = {end.rate for end in fitted.ends}
    if len(rates) == 1:
        return [
            f"all runs have the learning rate {rates.pop():.3g}: a rate that is the best one at "
            "one size only biases the exponents"
        ]
    return ["the learning rates were not tuned in this sweep: the law is that of the rates it used"]


def _check_other_settings(frames: SweepFrames, fitted: FittedGroup) -> list[str]:
    """Return a warning that names the settings that differ between sizes beside the shape."""
    numbers = {end.number for end in fitted.ends}
    trials = frames.trials[frames.trials["number"].isin(numbers)]
    tuned = {BUDGET, RATE, *frames.tune, *SIZE_PATHS, *fitted.group.varied}
    differing = [
        name for name in map(str, trials) if _is_setting(name, tuned) and _differs(trials[name])
    ]
    if not differing:
        return []
    return [f"the runs also differ in {', '.join(sorted(differing))}"]


def _is_setting(name: str, tuned: set[str]) -> bool:
    is_path = "." in name or name in _OTHERS
    return is_path and "/" not in name and name not in tuned and not name.startswith(_FREE)


def _differs(values: Any) -> bool:
    return len({str(value) for value in values}) > 1


def _check_seeds(fitted: FittedGroup) -> list[str]:
    corners = {(end.run.parameters, end.run.budget) for end in fitted.ends}
    if len(corners) < len(fitted.ends):
        return []
    return ["each size and budget has one run: the noise between seeds is in the residuals only"]


def _check_epochs(fitted: FittedGroup) -> list[str]:
    if all(end.run.epochs is not None for end in fitted.ends):
        return []
    return ["the epochs of some runs are unknown, so repeated text may be among them"]


def _check_optimum(fitted: FittedGroup) -> list[str]:
    sizes = [end.run.parameters for end in fitted.ends]
    outside = [
        format_flops(optimum.budget)
        for optimum in fitted.optima
        if not optimum.extrapolated
        and not min(sizes) <= optimum.allocation.parameters <= max(sizes)
    ]
    if not outside:
        return []
    return [f"the optimal size is outside of the sizes that were run at {', '.join(outside)}"]


def _check_tokens_per_parameter(fitted: FittedGroup) -> list[str]:
    """Return a warning if most runs have far fewer tokens per parameter than is optimal."""
    optimal = {
        optimum.budget: optimum.allocation.tokens / optimum.allocation.parameters
        for optimum in fitted.optima
        if not optimum.extrapolated
    }
    runs = [end.run for end in fitted.ends]
    own = [run.tokens / run.parameters for run in runs]
    excess = [optimal[run.budget] / ratio for run, ratio in zip(runs, own, strict=True)]
    if median(excess) <= _FAR_BELOW:
        return []
    return [
        f"the runs have a median of {format_number(median(own))} tokens per parameter "
        f"({_format_range(own)}), and the optimal sizes at their budgets "
        f"{_format_range(optimal.values())}: most encoders are larger than optimal, so smaller "
        "ones should be run"
    ]


def _format_range(values: Collection[float]) -> str:
    ends = dict.fromkeys(format_number(end(values)) for end in (min, max))
    return " to ".join(ends)
