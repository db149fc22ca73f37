"""Load and validate search spaces.

A search space is validated completely before any process starts or any file is written. An error
message is one line with the file, the dotted path, the error and the allowed values.
"""

import itertools
import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict
from functools import partial
from pathlib import Path as File
from typing import Any

from lab.config.architecture import SIZES
from lab.config.costs.constraints import has_design_constraints
from lab.config.data import DataConfig
from lab.config.experiment import Choices, Distribution, Experiment, FinetuneConfig, Range
from lab.config.labels import label
from lab.config.metrics import METRICS, Metric, find_metric, finetuned
from lab.config.trial import Path, Trial, Value
from lab.loading import (
    comparability,
    cost_checks,
    mask_checks,
    rate_trends,
    schema,
    size_defaults,
    trial_checks,
    validation,
    yaml_text,
)
from lab.loading.error_messages import SpaceError
from lab.loading.task_table import load_task


def load_experiment(file: File, overrides: tuple[str, ...] = ()) -> Experiment:
    """Return the experiment of a search space file, after applying overrides.

    Args:
        file: path of the YAML file.
        overrides: assignments `path=value` with the value in YAML, applied in order.

    Raises:
        SpaceError: the file cannot be read or is not a valid search space.
    """
    if file.stem in {"Default", ".", "..", ""} or not file.stem.isprintable():
        raise SpaceError(
            f"{file}: the file name is the name of the sweep, and {file.stem!r} is not a valid name"
        )
    if "+" in file.stem:  # the report of the sweeps A and B is in the folder A+B
        raise SpaceError(
            f"{file}: the file name is the name of the sweep, and cannot contain '+', which joins "
            f"the names of sweeps in a report of several; rename it to "
            f"{file.stem.replace('+', '_')}{file.suffix}"
        )
    raw = yaml_text.read(file)
    try:
        for override in overrides:
            yaml_text.override(raw, override)
        return check_experiment(file.stem, raw)
    except SpaceError as error:
        raise SpaceError(f"{file}: {error}") from None


def check_experiment(name: str, raw: dict[str, Any]) -> Experiment:
    """Return the experiment of a search space that was read as plain YAML data.

    Args:
        name: name of the sweep.
        raw: content of the search space.

    Raises:
        SpaceError: a setting is invalid; the message has its dotted path.
    """
    document = schema.validate_document(raw)
    experiment = Experiment(
        name=name,
        question=document.question,
        metric=_metric(document),
        base=document.base,
        compare=document.compare,
        tune=document.tune,
        search=document.search,
        resources=document.resources,
        finetune=document.finetune,
        minimal_pairs=document.minimal_pairs,
        answer=document.answer,
        constraints=document.constraints,
        cost=document.cost,
    )
    validation.check_experiment_limits(experiment)
    # The base must be valid by itself, as in the JSON Schema, even where every cell overrides it.
    build_trial(experiment.base, {})
    _check_cells(experiment)
    trials = [trial for of_cell in corner_trials(experiment) for trial in of_cell]
    for trial in trials:
        validation.check_sections_against(trial, experiment)
    comparability.check_metric(experiment, trials)
    mask_checks.check_mask_values(experiment, trials)
    cost_checks.check_cost(experiment, trials)
    if has_design_constraints(experiment.constraints):
        build = partial(_build_varied_trial, experiment)
        cost_checks.check_constraints(experiment, _corner_settings(experiment), build)
    return experiment


def build_trial(base: Mapping[str, Value], settings: Mapping[Path, Value]) -> Trial:
    """Return the trial of `base` with `settings` applied at their dotted paths.

    Raises:
        SpaceError: a setting is invalid; the message has its dotted path.
    """
    raw: dict[str, Any] = {"base": deepcopy(dict(base))}
    # In sorted order a section (objective) is set before its parts (objective.mask_prob).
    for path in sorted(settings):
        yaml_text.put(raw, f"base.{path}", deepcopy(settings[path]))
    raw = raw["base"]
    _fill_defaults(raw)
    raw["encoder"] = _expand_size(raw.get("encoder", {}))
    trend = rate_trends.take_trend(raw)
    trial = schema.validate_trial(raw)
    if trend is not None:
        trial = rate_trends.apply_trend(trial, trend)
    trial_checks.check_trial(trial)
    return trial


def expand_cells(experiment: Experiment) -> tuple[dict[Path, Value], ...]:
    """Return all combinations of the compared values; one empty cell if nothing is compared."""
    paths = list(experiment.compare)
    return tuple(
        dict(zip(paths, values, strict=True))
        for values in itertools.product(*experiment.compare.values())
    )


def corner_trials(experiment: Experiment) -> list[list[Trial]]:
    """Return trials of each cell that cover each end and choice of the tuned settings.

    The settings under `tune` are varied one at a time, with the first value of all others, because
    all combinations would be as many as the search itself has.

    Raises:
        SpaceError: a setting is invalid; the message has its dotted path.
    """
    return [
        [_build_varied_trial(experiment, settings) for settings in of_cell]
        for of_cell in _corner_settings(experiment)
    ]


def required_texts(experiment: Experiment) -> tuple[DataConfig, ...]:
    """Return the prepared texts that the cells read, without duplicates."""
    texts = {
        text
        for cell in expand_cells(experiment)
        for text in build_trial(experiment.base, cell).data_configs
    }
    return tuple(sorted(texts, key=repr))


def dump_experiment(experiment: Experiment) -> str:
    """Return an experiment as a YAML search space, including its overrides and defaults."""
    plain = asdict(experiment) | {"metric": experiment.metric.name}
    del plain["name"]
    for distribution in plain["tune"].values():
        if distribution.get("step", 0) is None:
            del distribution["step"]
    return yaml_text.write(json.loads(json.dumps(plain)))


def _expand_size(raw: Any) -> Any:
    """Return the raw encoder with its named size, if it has one, replaced by the size's fields."""
    if not isinstance(raw, dict) or "size" not in raw:
        return raw
    fields = {key: value for key, value in raw.items() if key != "size"}
    size = SIZES.get(str(raw["size"]))
    if size is None:
        raise SpaceError(
            f"base.encoder.size: must be one of {', '.join(SIZES)}, not {raw['size']!r}"
        )
    return asdict(size) | fields


def _fill_defaults(raw: dict[str, Any]) -> None:
    """Add the defaults of a named size to raw settings in place; without a size, only kinds."""
    encoder = raw.get("encoder")
    size = encoder.get("size") if isinstance(encoder, dict) else None
    if isinstance(size, str) and size in size_defaults.DEFAULTS:
        size_defaults.fill_defaults(raw, size)
    for section, kind in (("optim", "adam"), ("schedule", "stable")):
        if isinstance(raw.get(section), dict):
            raw[section].setdefault("kind", kind)


def _task_names(finetune: FinetuneConfig) -> list[str]:
    """Return the names of the fine-tuning tasks.

    Raises:
        SpaceError: there is no such task, or two tasks have the same name.
    """
    try:
        names = [load_task(name).name for name in finetune.tasks]
    except SpaceError as error:
        raise SpaceError(f"finetune.tasks: {error}") from None
    for name in names:
        if names.count(name) > 1:
            raise SpaceError(f"finetune.tasks: two tasks have the name {name}")
    return names


def _metric(document: schema.Document) -> Metric:
    name, tasks = document.metric, _task_names(document.finetune)
    metric = find_metric(name)
    if document.minimal_pairs is not None and metric is not None and metric.scores_pairs:
        return metric  # the categories of a file are checked when it is read
    known = METRICS | {metric.name: metric for metric in map(finetuned, tasks)}
    if name not in known:
        hint = "; add its task to finetune.tasks" if name.startswith("finetune/") else ""
        raise SpaceError(f"metric: must be one of {', '.join(known)}, not {name!r}{hint}")
    return known[name]


def _corner_settings(experiment: Experiment) -> list[list[dict[Path, Value]]]:
    """Return the settings of `corner_trials`; first those with the first value of each path."""
    ends = {path: _ends(distribution) for path, distribution in experiment.tune.items()}
    first = {path: values[0] for path, values in ends.items()}
    nuisances = [first, *(first | {path: v} for path, values in ends.items() for v in values)]
    return [[cell | nuisance for nuisance in nuisances] for cell in expand_cells(experiment)]


def _build_varied_trial(experiment: Experiment, settings: dict[Path, Value]) -> Trial:
    """Return the trial of some settings.

    Raises:
        SpaceError: a setting is invalid; a compared or tuned value is reported at its path under
            `compare` or `tune` instead of `base`.
    """
    try:
        return build_trial(experiment.base, settings)
    except SpaceError as error:
        for path in sorted(settings, key=len, reverse=True):
            if str(error).startswith(f"base.{path}"):
                section = "compare" if path in experiment.compare else "tune"
                raise SpaceError(section + str(error).removeprefix("base")) from None
        raise


def _check_cells(experiment: Experiment) -> None:
    """Reject cells with equal trials or equal labels."""
    names: set[str] = set()
    trials: set[Trial] = set()
    for cell in expand_cells(experiment):
        name, trial = label(cell, experiment.compare), _build_varied_trial(experiment, cell)
        if name in names or trial in trials:
            raise SpaceError(f"compare: two cells are equal or have the same label: {name}")
        names.add(name)
        trials.add(trial)


def _ends(distribution: Distribution) -> tuple[Value, ...]:
    match distribution:
        case Choices(choices=choices):
            return choices
        case Range(low=low, high=high, step=step):
            if step is None:
                ends: tuple[float, ...] = (low, high)
            else:
                ends = tuple(low + i * step for i in range(int((high - low) / step + 1e-9) + 1))
            return tuple(int(end) for end in ends) if distribution.integer else ends
