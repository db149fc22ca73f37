"""Load and validate search spaces.

A search space is validated completely before any process starts or any file is written. An error
message is one line with the file, the dotted path, the error and the allowed values.
"""

import itertools
import json
import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from functools import cache
from operator import attrgetter
from pathlib import Path as File
from typing import Annotated, Any, TypeVar

from annotated_types import MinLen
from pydantic import Discriminator, Tag, TypeAdapter, ValidationError

from lab.config.architecture import SIZES
from lab.config.base import StrictConfig
from lab.config.data import DataConfig
from lab.config.experiment import (
    Answer,
    Choices,
    Distribution,
    Experiment,
    FinetuneConfig,
    Range,
    Resources,
    SearchConfig,
)
from lab.config.flops import mean_cost
from lab.config.init_from import FromCheckpoint, FromScratch
from lab.config.labels import label
from lab.config.metrics import METRICS, Metric, finetuned
from lab.config.preparatory_runs import GENERATOR, own_budget, preparatory_runs
from lab.config.trial import Path, Trial, Value
from lab.config.window_growth import GrowingWindows
from lab.loading import size_defaults, validation, yaml_text
from lab.loading.error_messages import SpaceError, one_line
from lab.loading.task_table import load_task

_T = TypeVar("_T")


def _kind_of_distribution(raw: object) -> str:
    return "Choices" if isinstance(raw, dict) and "choices" in raw else "Range"


# The key `choices` selects the class, so that errors refer to the intended one.
_Distribution = Annotated[
    Annotated[Range, Tag("Range")] | Annotated[Choices, Tag("Choices")],
    Discriminator(_kind_of_distribution),
]


@dataclass(frozen=True, kw_only=True)
class _Document(StrictConfig):
    question: Annotated[str, MinLen(1)]
    metric: str
    base: dict[str, Value]
    compare: dict[Path, Annotated[tuple[Value, ...], MinLen(1)]] = field(default_factory=dict)
    tune: dict[Path, _Distribution] = field(default_factory=dict)
    search: SearchConfig = field(default_factory=SearchConfig)
    resources: Resources = field(default_factory=Resources)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    answer: Answer = "ranking"


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
    raw = yaml_text.read(file)
    try:
        for override in overrides:
            yaml_text.override(raw, override)
        return check_experiment(file.stem, raw)
    except SpaceError as error:
        raise SpaceError(f"{file}: {error}") from None


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
    trial = _validate(_trial_adapter(), raw, "base")
    _check_trial(trial)
    return trial


def expand_cells(experiment: Experiment) -> tuple[dict[Path, Value], ...]:
    """Return all combinations of the compared values; one empty cell if nothing is compared."""
    paths = list(experiment.compare)
    return tuple(
        dict(zip(paths, values, strict=True))
        for values in itertools.product(*experiment.compare.values())
    )


def required_texts(experiment: Experiment) -> tuple[DataConfig, ...]:
    """Return the prepared texts that the cells read, without duplicates."""
    texts = {
        text
        for cell in expand_cells(experiment)
        for text in build_trial(experiment.base, cell).texts
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


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a search space, for editors (`search_spaces/schema.json`)."""
    schema = _adapter().json_schema()
    trial_schema = _trial_adapter().json_schema()
    definitions = {**trial_schema.pop("$defs"), **schema.pop("$defs")}
    encoder = definitions["EncoderConfig"]
    encoder["properties"] = {
        "size": {"enum": sorted(SIZES), "description": "named size that sets all other keys"},
        **encoder["properties"],
    }
    encoder["anyOf"] = [{"required": ["size"]}, {"required": encoder.pop("required")}]
    definitions["Trial"] = trial_schema
    schema["properties"]["base"] = {"$ref": "#/$defs/Trial"}
    schema["properties"]["metric"]["anyOf"] = [
        {"enum": sorted(METRICS)},
        {"pattern": "^finetune/[^/]+$"},
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "$defs": definitions,
    }


@cache
def _adapter() -> TypeAdapter[_Document]:
    return TypeAdapter(_Document)


@cache
def _trial_adapter() -> TypeAdapter[Trial]:
    return TypeAdapter(Trial)


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
    """Add the defaults of a named size to raw settings in place; without a size, only Adam."""
    encoder = raw.get("encoder")
    size = encoder.get("size") if isinstance(encoder, dict) else None
    if isinstance(size, str) and size in size_defaults.DEFAULTS:
        size_defaults.fill_defaults(raw, size)
    optim = raw.get("optim")
    if isinstance(optim, dict):
        optim.setdefault("kind", "adam")


def _validate(adapter: TypeAdapter[_T], raw: Any, prefix: str) -> _T:
    try:
        text = yaml_text.as_json(raw)
    except SpaceError as error:
        raise SpaceError(f"{prefix or 'the file'}: {error}") from None
    try:
        # In strict JSON mode a list may become a tuple, but a string does not become a number.
        return adapter.validate_json(text, strict=True)
    except ValidationError as error:
        raise SpaceError(one_line(error, prefix, json_schema())) from None


def check_experiment(name: str, raw: dict[str, Any]) -> Experiment:
    """Return the experiment of a search space that was read as plain YAML data.

    Args:
        name: name of the sweep.
        raw: content of the search space.

    Raises:
        SpaceError: a setting is invalid; the message has its dotted path.
    """
    document = _validate(_adapter(), raw, "")
    experiment = Experiment(
        name=name,
        question=document.question,
        metric=_metric(document.metric, _task_names(document.finetune)),
        base=document.base,
        compare=document.compare,
        tune=document.tune,
        search=document.search,
        resources=document.resources,
        finetune=document.finetune,
        answer=document.answer,
    )
    validation.check_experiment_limits(experiment)
    # The base must be valid by itself, as in the JSON Schema, even where every cell overrides it.
    build_trial(experiment.base, {})
    _check_cells(experiment)
    for settings in _corners(experiment):
        trial = _build_varied_trial(experiment, settings)
        _check_resources(experiment, trial)
        needs = experiment.metric.needs
        if needs is not None and needs not in trial.objective.networks:
            raise SpaceError(
                f"metric: {experiment.metric.name} needs a {needs} and objective "
                f"{trial.objective.kind} has none; choose a probe, for example probe/pos/accuracy"
            )
    _check_metric(experiment)
    return experiment


def _check_metric(experiment: Experiment) -> None:
    """Reject the metric if its values are not comparable between the trials of the experiment."""
    varied = (*experiment.compare, *experiment.tune)
    spoiler = experiment.metric.spoiler((*varied, *_differing_defaults(experiment)))
    if spoiler is not None:
        default = ", which encoder.size sets" if spoiler not in varied else ""
        raise SpaceError(
            f"metric: {experiment.metric.name} cannot rank trials that differ in {spoiler}"
            f"{default}: {experiment.metric.because}"
        )


def _differing_defaults(experiment: Experiment) -> tuple[Path, ...]:
    """Return the settings in which trials differ because their sizes have different defaults."""
    if not any(path.startswith("encoder") for path in (*experiment.compare, *experiment.tune)):
        return ()
    trials = [build_trial(experiment.base, settings) for settings in _corners(experiment)]
    paths = dict.fromkeys(
        path for size in size_defaults.DEFAULTS.values() for path in size.settings
    )
    return tuple(path for path in paths if len({attrgetter(path)(one) for one in trials}) > 1)


def _check_resources(experiment: Experiment, trial: Trial) -> None:
    """Reject early stopping, workers or a budget unit that the trial does not allow."""
    if experiment.search.stopping is not None and not trial.extendable:
        raise SpaceError(
            "search.stopping: requires that a run begins exactly as a shorter one: "
            "base.schedule {kind: constant, warmup: 0}, an objective without stages, and no other "
            f"setting that varies during the run{_describe_varying(trial)}"
        )
    smallest = min(trial.at(progress).batch for progress in trial.knots)
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


def _describe_varying(trial: Trial) -> str:
    if not trial.moves:
        return ""
    hint = " (base.windows {kind: full} keeps the length)" if "length" in trial.moves else ""
    return f"; here {', '.join(sorted(trial.moves))} vary{hint}"


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


def _metric(name: str, tasks: list[str]) -> Metric:
    known = METRICS | {metric.name: metric for metric in map(finetuned, tasks)}
    if name not in known:
        hint = "; add its task to finetune.tasks" if name.startswith("finetune/") else ""
        raise SpaceError(f"metric: must be one of {', '.join(known)}, not {name!r}{hint}")
    return known[name]


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


def _corners(experiment: Experiment) -> tuple[dict[Path, Value], ...]:
    """Return settings that cover every compared value and every end or choice under `tune`.

    All cells are combined with nuisance parameters that are varied one at a time, with the first
    value of all others, because all combinations would be as many as the search itself has.
    """
    ends = {path: _ends(distribution) for path, distribution in experiment.tune.items()}
    first = {path: values[0] for path, values in ends.items()}
    nuisances = [first, *(first | {path: v} for path, values in ends.items() for v in values)]
    return tuple(cell | nuisance for cell in expand_cells(experiment) for nuisance in nuisances)


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


def _check_trial(trial: Trial) -> None:
    try:
        trial.objective.generator_shape(trial.encoder)
    except ValueError as error:
        raise SpaceError(f"base.objective.generator: {error}") from None
    _check_init_from(trial)
    _check_windows(trial)
    try:
        cost = mean_cost(trial)
        _check_preparatory_runs(trial)
        steps = own_budget(trial).steps(cost)
    except OverflowError:
        raise SpaceError("base: the compute of one step is too large a number") from None
    if steps is not None and steps < 1:
        unit = cost.flops if trial.budget.kind == "flops" else cost.tokens
        spent = trial.budget.amount - own_budget(trial).amount
        less = f", less the {spent:.4g} of its preparatory mlm runs," if spent else ""
        raise SpaceError(
            f"base.budget.amount: {trial.budget.amount:g} {trial.budget.kind}{less} are less "
            f"than one step, which costs {unit:.3g}"
        )
    budget = f"base.budget.amount: {trial.budget.amount:g} {trial.budget.kind} are {steps} steps"
    required = trial.objective.minimum_steps()
    if steps is not None and steps < required:
        raise SpaceError(
            f"{budget}; objective {trial.objective.kind} needs at least {required} to update each "
            f"network"
        )
    if isinstance(trial.windows, GrowingWindows) and steps is not None:
        until = trial.windows.until
        required *= math.ceil(2 / min(until, 1 - until))
        if steps < required:
            raise SpaceError(
                f"{budget}; windows that grow at progress {until:g} need at least {required}, "
                "base.windows {kind: full} needs fewer"
            )


def _check_windows(trial: Trial) -> None:
    """Reject short windows that are not shorter than full ones."""
    windows, length = trial.windows, trial.data.length
    if isinstance(windows, GrowingWindows) and windows.start >= length:
        raise SpaceError(
            f"base.windows.start: must be below base.data.length, {length}, not {windows.start}"
        )


def _check_init_from(trial: Trial) -> None:
    """Reject initial weights that the objective does not use."""
    start, objective = trial.init_from, trial.objective
    if isinstance(start, FromScratch):
        return
    if reason := objective.starts_from_scratch:
        raise SpaceError(f"base.init_from: must be {{kind: scratch}} for {reason}")
    has_generator = objective.generator_shape(trial.encoder) is not None
    if isinstance(start, FromCheckpoint) and start.generator and not has_generator:
        raise SpaceError(f"base.init_from.generator: objective {objective.kind} has no generator")
    if isinstance(start, FromCheckpoint) and start.generator and objective.frozen_generator:
        raise SpaceError(
            "base.init_from.generator: must be omitted, because the frozen generator is that of "
            "base.objective.generator.init_from"
        )


def _check_preparatory_runs(trial: Trial) -> None:
    """Reject mlm runs without a step, in a budget of seconds, or with unshareable embeddings."""
    runs, objective = preparatory_runs(trial), trial.objective
    if runs and trial.budget.kind == "seconds":
        raise SpaceError(
            "base.budget.kind: must be flops or tokens, not seconds, for a trial that starts from "
            "mlm runs, because the budget includes these runs"
        )
    for network, run in runs.items():
        if not run.budget.steps(mean_cost(run)):
            frozen = network == GENERATOR and objective.frozen_generator
            path = "objective.generator.init_from" if frozen else "init_from"
            raise SpaceError(
                f"base.{path}.budget.amount: {run.budget.amount:g} {run.budget.kind} are less "
                f"than one step of the {network}'s mlm run"
            )
    if objective.shares_table and len(set(runs.values())) > 1:
        raise SpaceError(
            "base.init_from: encoder and generator of different shapes start from separate mlm "
            "runs with different embeddings, but base.objective.sharing: tokens requires equal "
            "ones; use sharing none or gdes, or a generator of width 1 and depth 1"
        )


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
