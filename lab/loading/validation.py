"""What a search space may ask: the rules of `compare`, `tune` and `search` among themselves."""

import json
import math
from collections.abc import Iterator

from lab.config.experiment import Choices, Distribution, Experiment, Range
from lab.config.trial import Path
from lab.loading.error_messages import SpaceError

_MOST_CELLS = 10_000
_MOST_STEPS = 10_000
_MOST_JOBS = 100_000

# Widths and counts: between two valid ones lie some that heads do not divide.
_SHAPES = {
    *(f"encoder.{side}" for side in ("layers", "hidden", "ffn", "heads", "embedding")),
    "objective.generator.width",
    "objective.generator.depth",
}
_NEVER_COMPARED = {"evaluations", "budget", "budget.kind"}
_NEVER_TUNED = {"seeds", "budget", "evaluations", "init_from"}


def check_experiment_limits(experiment: Experiment) -> None:
    """Refuse what no sweep should be made of.

    Raises:
        SpaceError: names the dotted path.
    """
    for path, other in _overlaps(experiment):
        raise SpaceError(
            f"tune.{path}: {other} stands under compare too; a parameter is one of both"
        )
    for path, values in experiment.compare.items():
        if path in _NEVER_COMPARED:
            raise SpaceError(f"compare.{path}: no setting that a score could speak for")
        if len({json.dumps(value, sort_keys=True) for value in values}) < len(values):
            raise SpaceError(f"compare.{path}: a value stands twice")
    for path, distribution in experiment.tune.items():
        _check_distribution(path, distribution)
    _check_size(experiment)
    if experiment.answer == "noise" and experiment.search.seeds < 2:
        raise SpaceError("search.seeds: 1, but answer: noise is a spread between at least 2 seeds")
    if experiment.search.stopping is not None and not experiment.metric.at_every_evaluation:
        raise SpaceError(
            f"search.stopping: {experiment.metric.name} is taken at the end alone; choose a metric "
            f"that is taken on the way, for example probe/pos/accuracy"
        )


def collect_warnings(experiment: Experiment) -> tuple[str, ...]:
    """Return what will keep a sweep that is allowed from answering its question."""
    cells = math.prod(len(values) for values in experiment.compare.values())
    if experiment.answer != "ranking" or cells < 2 or experiment.search.seeds > 1:
        return ()
    return (
        "search.seeds: 1 runs each setting once: no interval can be computed, and no setting can "
        "be told apart from another; take 3 or more, for example --set search.seeds=3",
    )


def _overlaps(experiment: Experiment) -> Iterator[tuple[Path, Path]]:
    """Yield a tuned path and the compared one that is the same, its whole or its part."""
    for tuned in experiment.tune:
        for compared in experiment.compare:
            if f"{tuned}.".startswith(f"{compared}.") or f"{compared}.".startswith(f"{tuned}."):
                yield tuned, compared


def _check_size(experiment: Experiment) -> None:
    search = experiment.search
    cells = math.prod(len(values) for values in experiment.compare.values())
    if cells > _MOST_CELLS:
        raise SpaceError(f"compare: {cells} cells; at most {_MOST_CELLS}")
    if cells * (search.trials + search.seeds) > _MOST_JOBS:
        raise SpaceError(
            f"search: {cells} cells of {search.trials} trials and {search.seeds} seeds; "
            f"at most {_MOST_JOBS} runs in all"
        )
    choices = math.prod(len(d.choices) for d in experiment.tune.values() if isinstance(d, Choices))
    if search.sampler == "grid" and choices > search.trials:
        raise SpaceError(
            f"search.trials: {search.trials} do not hold the grid, whose choices alone are "
            f"{choices} settings"
        )
    if not experiment.tune and search.trials > 1:
        raise SpaceError(
            f"search.trials: {search.trials} settings a cell, but tune names nothing to vary; "
            f"use search.seeds for repeats"
        )


def _check_distribution(path: Path, distribution: Distribution) -> None:
    if path.partition(".")[0] in _NEVER_TUNED:
        raise SpaceError(f"tune.{path}: never tuned: it would buy score with luck or compute")
    match distribution:
        case Choices(choices=choices):
            if not choices:
                raise SpaceError(f"tune.{path}.choices: empty")
        case Range():
            _check_range(path, distribution)


def _check_range(path: Path, values: Range) -> None:
    low, high = values.low, values.high
    if low >= high:
        raise SpaceError(f"tune.{path}: low {low:g} is not below high {high:g}")
    if values.log and (low <= 0 or values.step is not None):
        raise SpaceError(f"tune.{path}: a log range starts above 0 and has no step")
    if values.step is not None and (high - low) / values.step > _MOST_STEPS:
        raise SpaceError(f"tune.{path}: more than {_MOST_STEPS} steps of {values.step:g}")
    if values.integer and any(not n.is_integer() for n in (low, high, values.step or 1.0)):
        raise SpaceError(f"tune.{path}: integer needs a whole low, high and step")
    if path in _SHAPES and values.step is None:
        raise SpaceError(
            f"tune.{path}: a shape needs a step (or choices): between the ends lie widths that "
            f"their heads do not divide"
        )
