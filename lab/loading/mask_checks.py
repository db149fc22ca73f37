"""Mask probabilities of an experiment, and the numbers of tokens that they mask.

A window has few tokens, so the number of masked tokens is a staircase in the mask probability
(`lab.config.mask_counts`): different probabilities can mask the same number of tokens.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from lab.config.experiment import Experiment, Range
from lab.config.mask_counts import describe_masks, list_mask_counts
from lab.config.schedules.ramps import ProbabilityRamp
from lab.config.trial import Path, Trial
from lab.loading.error_messages import SpaceError

_PATH = "objective.mask_prob"
_FEW = 10  # numbers of masked tokens below which a range is called coarse
_POINTS = 400  # values of a range at which the numbers are counted


def check_mask_values(experiment: Experiment, trials: Iterable[Trial]) -> None:
    """Check that trials with different mask probabilities mask different numbers of tokens.

    Args:
        experiment: the experiment.
        trials: trials with each compared value and each end or choice of the tuned settings.

    Raises:
        SpaceError: two trials differ in the mask probability only, and mask the same number of
            tokens in full windows of each length.
    """
    section = _find_section(experiment)
    if section is None:
        return
    first: dict[tuple[Trial, object], Trial] = {}
    for trial in trials:
        rest = replace(trial, objective=replace(trial.objective, mask_prob=0.5))
        other = first.setdefault((rest, list_mask_counts(trial)), trial)
        if other.objective.mask_prob != trial.objective.mask_prob:
            raise SpaceError(
                f"{section}: mask probabilities {_format(other)} and {_format(trial)} mask the "
                f"same number of tokens of a full window, {describe_masks(trial)}; use values that "
                f"mask different numbers, or longer windows"
            )


def describe_coarse_range(experiment: Experiment, trials: Sequence[Trial]) -> str | None:
    """Return a warning if a continuous range of mask probabilities has few distinct values.

    Args:
        experiment: the experiment.
        trials: one trial of each cell.
    """
    for path, values in experiment.tune.items():
        if not path.startswith(_PATH) or not isinstance(values, Range) or values.step is not None:
            continue
        inner = path.removeprefix(_PATH).removeprefix(".")
        sampled = [_sample(trial, inner, values) for trial in trials]
        fewest = min(sampled, key=_count_distinct)
        distinct = _count_distinct(fewest)
        if distinct <= _FEW:
            return (
                f"tune.{path}: the range from {values.low:g} to {values.high:g} has only "
                f"{distinct} distinct numbers of masked tokens, {describe_masks(*fewest)}; the "
                f"search cannot tell finer values apart"
            )
    return None


def mask_lines(trials: Iterable[Sequence[Trial]]) -> list[str]:
    """Return the masked tokens of a full window, a line for each mask probability and length.

    Args:
        trials: trials of each cell that cover its mask probabilities.
    """
    texts: dict[str, None] = {}
    for of_cell in trials:
        ends = list(dict.fromkeys(map(_format, of_cell)))
        texts[f"mask_prob {' to '.join(ends)}: {describe_masks(*of_cell)}"] = None
    first, *more = texts
    head = "masked tokens of a full window"
    return [f"{head}:", *(f"  {text}" for text in texts)] if more else [f"{head}, {first}"]


def _find_section(experiment: Experiment) -> str | None:
    """Return the path of the search space that sets mask probabilities; None if none does."""
    for name, section in (("compare", experiment.compare), ("tune", experiment.tune)):
        for path in section:
            if path.startswith(_PATH) or _PATH.startswith(f"{path}."):
                return f"{name}.{path}"
    return None


def _sample(trial: Trial, inner: Path, values: Range) -> list[Trial]:
    """Return trials with mask probabilities that cover a range.

    Args:
        trial: a trial.
        inner: `start` or `end` of a ramp; empty for a constant probability.
        values: the range.
    """
    step = (values.high - values.low) / (_POINTS - 1)
    probabilities = [values.low + n * step for n in range(_POINTS)]
    return [_with_probability(trial, inner, value) for value in probabilities]


def _with_probability(trial: Trial, inner: Path, value: float) -> Trial:
    match trial.objective.mask_prob:
        case ProbabilityRamp() as ramp:
            mask_prob: float | ProbabilityRamp = replace(ramp, **{inner: value})
        case _:
            mask_prob = value
    return replace(trial, objective=replace(trial.objective, mask_prob=mask_prob))


def _count_distinct(trials: Sequence[Trial]) -> int:
    return len(set(map(list_mask_counts, trials)))


def _format(trial: Trial) -> str:
    match trial.objective.mask_prob:
        case ProbabilityRamp(start=start, end=end):
            return f"{start:g} → {end:g}"
        case constant:
            return f"{constant:g}"
