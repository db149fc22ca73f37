"""Comparability of the ranking metric between the trials of an experiment."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lab.config.experiment import Experiment
from lab.config.metrics import Network, alternative_metrics
from lab.config.trial import Path, Trial
from lab.loading.error_messages import SpaceError


def check_metric(experiment: Experiment, trials: Sequence[Trial]) -> None:
    """Check that the values of the metric are comparable between the trials of an experiment.

    Args:
        experiment: the experiment.
        trials: trials with each compared value and each end or choice of the tuned settings.

    Raises:
        SpaceError: trials differ in a setting that changes the meaning of the metric.
    """
    if experiment.answer == "path":  # nothing is ranked
        return
    varied = (*experiment.compare, *experiment.tune)
    metric, differing = experiment.metric, find_differing_paths(trials)
    path = metric.find_incomparable_path((*varied, *differing))
    if path is not None:
        cause = ""
        if path not in varied:
            cause = (
                f", which {'objective' if path.startswith('objective.') else 'encoder.size'} sets"
            )
        raise SpaceError(
            f"metric: {metric.name} cannot rank trials that differ in {path}{cause}: "
            f"{metric.reason}; {_describe_alternatives(differing, trials)}"
        )


def describe_confounding(experiment: Experiment, trials: Sequence[Trial]) -> str | None:
    """Return a warning if the metric depends on a differing setting without any training.

    Args:
        experiment: the experiment.
        trials: trials with each compared value and each end or choice of the tuned settings.
    """
    metric, differing = experiment.metric, find_differing_paths(trials)
    paths = metric.find_confounding_paths(differing)
    if experiment.answer != "ranking" or not paths:
        return None
    return (
        f"metric: {metric.name} is confounded with {', '.join(paths)}, in which trials differ: "
        f"{metric.confounding}; compare each score with `untrained` in trials.csv, "
        f"or change the metric; {_describe_alternatives(differing, trials)}"
    )


def describe_bias(experiment: Experiment, trials: Sequence[Trial]) -> str | None:
    """Return a warning if the metric is not neutral between values of a differing setting.

    Args:
        experiment: the experiment.
        trials: trials with each compared value and each end or choice of the tuned settings.
    """
    metric, differing = experiment.metric, find_differing_paths(trials)
    paths = metric.find_biased_paths(differing)
    if experiment.answer != "ranking" or not paths:
        return None
    return (
        f"metric: {metric.name} is not neutral between trials that differ in {', '.join(paths)}: "
        f"{metric.bias}; compare the order of the settings by the other scores of the report, or "
        f"change the metric; {_describe_alternatives(differing, trials)}"
    )


def find_differing_paths(trials: Sequence[Trial]) -> tuple[Path, ...]:
    """Return the dotted paths of the settings in which trials differ, in order."""
    settings = [dict(_leaves(asdict(trial))) for trial in trials]
    paths = dict.fromkeys(path for each in settings for path in each)
    missing = object()
    return tuple(path for path in paths if any(_differ(settings, path, missing)))


def _differ(settings: Sequence[Mapping[Path, Any]], path: Path, missing: object) -> Iterator[bool]:
    first = settings[0].get(path, missing)
    return (each.get(path, missing) != first for each in settings)


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[Path, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _describe_alternatives(differing: tuple[Path, ...], trials: Sequence[Trial]) -> str:
    """Return the metrics that can rank the trials, as text."""
    networks: frozenset[Network] = frozenset.intersection(
        *(trial.objective.networks for trial in trials)
    )
    found = alternative_metrics(differing, networks)
    parts = {
        "comparable here": found.neutral,
        "confounded": found.confounded,
        "not neutral": found.biased,
    }
    return "; ".join(f"{name}: {', '.join(names)}" for name, names in parts.items() if names)
