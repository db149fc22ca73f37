"""Consistency checks of the sections of a search space other than `base`."""

import json
import math
from collections.abc import Iterator, Sequence

from lab.config.experiment import Choices, Distribution, Experiment, HalvingConfig, Range
from lab.config.trial import Path, Trial, Value
from lab.loading import trial_checks
from lab.loading.error_messages import SpaceError

_MOST_CELLS = 10_000
_MOST_STEPS = 10_000
_MOST_JOBS = 100_000

# Shape settings: between two valid values there are some that are not a multiple of the heads.
_SHAPES = {
    *(f"encoder.{side}" for side in ("layers", "hidden", "ffn", "heads", "embedding")),
    "objective.generator.width",
    "objective.generator.depth",
}
NEVER_COMPARED = {"evaluations", "budget", "budget.kind"}
NEVER_COMPARED_REASON = "scores at different evaluation counts or budget units are not comparable"
_NEVER_TUNED = {"seeds", "budget", "evaluations", "init_from"}


def check_experiment_limits(experiment: Experiment) -> None:
    """Check which settings are compared and tuned, and the size of the sweep.

    Raises:
        SpaceError: a check fails; the message has the dotted path.
    """
    for path, other in _overlaps(experiment):
        raise SpaceError(
            f"tune.{path}: overlaps with compare.{other}; a setting is either compared or tuned"
        )
    for path, values in experiment.compare.items():
        if path in NEVER_COMPARED:
            raise SpaceError(f"compare.{path}: cannot be compared: {NEVER_COMPARED_REASON}")
        if _has_duplicates(values):
            raise SpaceError(f"compare.{path}: duplicate value")
    for path, distribution in experiment.tune.items():
        _check_distribution(path, distribution)
    _check_size(experiment)
    if experiment.answer == "noise" and experiment.search.seeds < 2:
        raise SpaceError("search.seeds: must be at least 2 for answer: noise, not 1")
    if experiment.search.stopping is not None:
        _check_halving(experiment)
    _check_prior(experiment)


def check_sections_against(trial: Trial, experiment: Experiment) -> None:
    """Check that a trial allows the metric, the early stopping and the resources of its experiment.

    Raises:
        SpaceError: a check fails; the message has the dotted path.
    """
    if experiment.search.stopping is not None:
        _check_rungs(experiment.search.stopping, trial)
    smallest = min(trial.settings_at(progress).batch for progress in trial.breakpoints)
    if smallest < experiment.resources.workers:
        raise SpaceError(
            f"resources.workers: must be at most the smallest batch, {smallest} windows, not "
            f"{experiment.resources.workers}"
        )
    shared = 0 < experiment.resources.gpus_per_worker < 1
    if shared and trial.budget.kind == "seconds":
        raise SpaceError(
            "base.budget.kind: seconds are not comparable on a GPU that trials share "
            "(resources.gpus_per_worker); use flops or tokens, or a whole GPU"
        )
    if shared and experiment.constraints.seconds is not None:
        raise SpaceError(
            "constraints.seconds: the seconds of a trial depend on the other trials of a GPU that "
            "they share (resources.gpus_per_worker); use a whole GPU, or remove the limit"
        )
    needs = experiment.metric.needs
    if needs is not None and needs not in trial.objective.networks:
        raise SpaceError(
            f"metric: {experiment.metric.name} needs a {needs} and objective "
            f"{trial.objective.kind} has none; choose a probe, for example probe/pos/accuracy"
        )


def _describe_varying(trial: Trial) -> str:
    if not trial.varying_settings:
        return ""
    hint = (
        " (base.windows {kind: full} keeps the length)"
        if "length" in trial.varying_settings
        else ""
    )
    return f"; here {', '.join(sorted(trial.varying_settings))} vary{hint}"


def _overlaps(experiment: Experiment) -> Iterator[tuple[Path, Path]]:
    """Yield each tuned path with a compared path that equals it, contains it or is part of it."""
    for tuned in experiment.tune:
        for compared in experiment.compare:
            if f"{tuned}.".startswith(f"{compared}.") or f"{compared}.".startswith(f"{tuned}."):
                yield tuned, compared


def _check_size(experiment: Experiment) -> None:
    search = experiment.search
    cells = math.prod(len(values) for values in experiment.compare.values())
    if cells > _MOST_CELLS:
        raise SpaceError(f"compare: {cells} cells; at most {_MOST_CELLS} are allowed")
    crossed = search.repeated == "every_setting"
    each = search.trials * search.seeds if crossed else search.trials + search.seeds
    if cells * each > _MOST_JOBS:
        raise SpaceError(
            f"search: {cells} cells of {search.trials} search trials "
            f"{'on' if crossed else 'and'} {search.seeds} {'seeds' if crossed else 'repeats'}; "
            f"at most {_MOST_JOBS} trials in all are allowed"
        )
    choices = math.prod(len(d.choices) for d in experiment.tune.values() if isinstance(d, Choices))
    if crossed:
        _check_crossed(experiment)
    if search.sampler == "grid" and choices > search.trials:
        raise SpaceError(
            f"search.trials: {search.trials} is too small for the grid, which has at least "
            f"{choices} settings (all combinations of the choices under tune)"
        )
    if not experiment.tune and search.trials > 1:
        raise SpaceError(
            f"search.trials: must be 1, not {search.trials}, because tune is empty; use "
            f"search.seeds for repeats"
        )


def _check_halving(experiment: Experiment) -> None:
    """Reject a metric or a sampler that successive halving cannot use."""
    if experiment.metric.name.startswith("finetune/"):
        raise SpaceError(
            f"search.stopping: {experiment.metric.name} needs fine-tuning, and trials at a rung "
            f"are not fine-tuned; choose another metric, for example probe/pos/accuracy"
        )
    if experiment.search.sampler in ("tpe", "gp"):
        raise SpaceError(
            f"search.stopping: needs a sampler that does not adapt to scores (grid, random or "
            f"qmc), not {experiment.search.sampler}, because all search trials of a cell start "
            f"before the first has a final score"
        )


def _check_rungs(halving: HalvingConfig, trial: Trial) -> None:
    """Reject trials at rungs that a trial with the full budget cannot continue from."""
    if trial.trunk is None and not trial.extendable:
        raise SpaceError(
            "search.stopping: requires that a run begins exactly as a shorter one: base.schedule "
            "{kind: constant, warmup: 0}, or {kind: trunk}, whose trials at rungs have cooldowns "
            "of their own; an objective without stages; and no other setting that varies during "
            f"the run{_describe_varying(trial)}"
        )
    for share, rung in zip(halving.shares, halving.rungs(trial), strict=True):
        try:
            trial_checks.check_trial(rung)
        except SpaceError as error:
            raise SpaceError(
                f"search.stopping.first_rung: the trials at the rung of {share:.4g} of the budget "
                f"are not valid: {error}"
            ) from None


def _check_prior(experiment: Experiment) -> None:
    """Refuse settings of earlier sweeps for a search that does not adapt to scores."""
    if not experiment.search.prior:
        return
    if not experiment.tune:
        raise SpaceError("search.prior: needs at least one setting under tune")
    if experiment.search.sampler not in ("tpe", "gp"):
        raise SpaceError(
            f"search.prior: needs a sampler that adapts to scores (tpe or gp), not "
            f"{experiment.search.sampler}, whose points depend on their number only"
        )


def _check_crossed(experiment: Experiment) -> None:
    """Refuse a search that cannot train every setting on all seeds."""
    if not experiment.tune:
        raise SpaceError("search.repeated: every_setting needs at least one setting under tune")
    if experiment.search.sampler in ("tpe", "gp"):
        raise SpaceError(
            f"search.repeated: every_setting needs a sampler that does not adapt to scores (grid, "
            f"random or qmc), not {experiment.search.sampler}"
        )
    if experiment.search.stopping is not None:
        raise SpaceError(
            "search.repeated: every_setting cannot be combined with search.stopping, because a "
            "stopped trial has no score"
        )


def _check_distribution(path: Path, distribution: Distribution) -> None:
    if path.partition(".")[0] in _NEVER_TUNED:
        raise SpaceError(
            f"tune.{path}: cannot be tuned: the best score would only reflect a lucky seed or "
            f"more compute"
        )
    match distribution:
        case Choices(choices=choices):
            if not choices:
                raise SpaceError(f"tune.{path}.choices: must not be empty")
            if _has_duplicates(choices):
                raise SpaceError(f"tune.{path}.choices: duplicate value")
        case Range():
            _check_range(path, distribution)


def _has_duplicates(values: Sequence[Value]) -> bool:
    return len({json.dumps(value, sort_keys=True) for value in values}) < len(values)


def _check_range(path: Path, values: Range) -> None:
    low, high = values.low, values.high
    if low >= high:
        raise SpaceError(f"tune.{path}: low must be less than high; {low:g} is not below {high:g}")
    if values.log and (low <= 0 or values.step is not None):
        raise SpaceError(f"tune.{path}: a log range must have low above 0 and no step")
    if values.step is not None and (high - low) / values.step > _MOST_STEPS:
        raise SpaceError(
            f"tune.{path}: more than {_MOST_STEPS} steps of {values.step:g} between low and high"
        )
    if values.integer and any(not n.is_integer() for n in (low, high, values.step or 1.0)):
        raise SpaceError(f"tune.{path}: with integer, low, high and step must be whole numbers")
    if path in _SHAPES and values.step is None:
        raise SpaceError(
            f"tune.{path}: a shape setting needs a step (or choices), because not every value "
            f"between low and high is a multiple of the number of heads"
        )
