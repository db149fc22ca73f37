"""A search space: YAML -> `Experiment`, checked at this one door.

Everything that can be wrong with a file is found here, before a process starts or a file is
written, and said in one line: the file, the dotted path, what is wrong, what is allowed.
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


# Told apart by the key `choices`, so that an error speaks of the one that was meant.
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
    """Read, override and check a search space.

    Args:
        file: the YAML file.
        overrides: `path=value` pairs, the value in YAML, applied in order.

    Raises:
        SpaceError: anything is wrong; nothing has been written.
    """
    if file.stem in {"Default", ".", "..", ""} or not file.stem.isprintable():
        raise SpaceError(f"{file}: the name of the file names the sweep: {file.stem!r} cannot")
    raw = yaml_text.read(file)
    try:
        for override in overrides:
            yaml_text.override(raw, override)
        return check_experiment(file.stem, raw)
    except SpaceError as error:
        raise SpaceError(f"{file}: {error}") from None


def build_trial(base: Mapping[str, Value], settings: Mapping[Path, Value]) -> Trial:
    """Return `base` with `settings` written at their dotted paths, as a checked trial.

    Raises:
        SpaceError: names the dotted path that is wrong.
    """
    raw: dict[str, Any] = {"base": deepcopy(dict(base))}
    for path in sorted(settings):  # a whole before its parts: objective, objective.mask_prob
        yaml_text.put(raw, f"base.{path}", deepcopy(settings[path]))
    raw = raw["base"]
    _fill_defaults(raw)
    raw["encoder"] = _encoder(raw.get("encoder", {}))
    built = _validated(_trial_adapter(), raw, "base")
    _check_trial(built)
    return built


def expand_cells(experiment: Experiment) -> tuple[dict[Path, Value], ...]:
    """Return the full grid over `compare`; one empty cell where nothing is compared."""
    paths = list(experiment.compare)
    return tuple(
        dict(zip(paths, values, strict=True))
        for values in itertools.product(*experiment.compare.values())
    )


def required_texts(experiment: Experiment) -> tuple[DataConfig, ...]:
    """Return the texts that the cells read, each once."""
    read = {
        text
        for cell in expand_cells(experiment)
        for text in build_trial(experiment.base, cell).texts
    }
    return tuple(sorted(read, key=repr))


def dump_experiment(experiment: Experiment) -> str:
    """Return the search space as YAML with its overrides and defaults in it; `load_experiment` reads it."""
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
        "size": {"enum": sorted(SIZES), "description": "start from a named size"},
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


def _encoder(raw: Any) -> Any:
    """Write a named size out, field by field."""
    if not isinstance(raw, dict) or "size" not in raw:
        return raw
    fields = {key: value for key, value in raw.items() if key != "size"}
    size = SIZES.get(str(raw["size"]))
    if size is None:
        raise SpaceError(f"base.encoder.size: {raw['size']!r} is none of {', '.join(SIZES)}")
    return asdict(size) | fields


def _fill_defaults(raw: dict[str, Any]) -> None:
    """Write the defaults of a named size where the trial says nothing; Adam without a size."""
    encoder = raw.get("encoder")
    size = encoder.get("size") if isinstance(encoder, dict) else None
    if isinstance(size, str) and size in size_defaults.DEFAULTS:
        size_defaults.fill_defaults(raw, size)
    optim = raw.get("optim")
    if isinstance(optim, dict):
        optim.setdefault("kind", "adam")


def _validated(adapter: TypeAdapter[_T], raw: Any, prefix: str) -> _T:
    try:
        text = yaml_text.as_json(raw)
    except SpaceError as error:
        raise SpaceError(f"{prefix or 'the file'}: {error}") from None
    try:
        # JSON's strictness: a list may become a tuple, but no string becomes a number.
        return adapter.validate_json(text, strict=True)
    except ValidationError as error:
        raise SpaceError(one_line(error, prefix, json_schema())) from None


def check_experiment(name: str, raw: dict[str, Any]) -> Experiment:
    """Return the experiment that a search space's plain data describes.

    Raises:
        SpaceError: names the dotted path that is wrong.
    """
    document = _validated(_adapter(), raw, "")
    experiment = Experiment(
        name=name,
        question=document.question,
        metric=_metric(document.metric, _tasks(document.finetune)),
        base=document.base,
        compare=document.compare,
        tune=document.tune,
        search=document.search,
        resources=document.resources,
        finetune=document.finetune,
        answer=document.answer,
    )
    validation.check_experiment_limits(experiment)
    build_trial(experiment.base, {})  # also what compare and tune write over, as the schema asks
    _check_cells(experiment)
    for settings in _corners(experiment):
        built = _at_its_path(experiment, settings)
        _check_running(experiment, built)
        needs = experiment.metric.needs
        if needs is not None and needs not in built.objective.networks:
            raise SpaceError(
                f"metric: {experiment.metric.name} needs a {needs} and objective "
                f"{built.objective.kind} has none; choose a probe, for example probe/pos/accuracy"
            )
    _check_metric(experiment)
    return experiment


def _check_metric(experiment: Experiment) -> None:
    """Refuse a metric that cannot rank the cells, by a compared value or by a size's default."""
    asked = (*experiment.compare, *experiment.tune)
    spoiler = experiment.metric.spoiler((*asked, *_defaults_that_differ(experiment)))
    if spoiler is not None:
        default = ", which encoder.size sets" if spoiler not in asked else ""
        raise SpaceError(
            f"metric: {experiment.metric.name} cannot rank trials that differ in {spoiler}"
            f"{default}: {experiment.metric.because}"
        )


def _defaults_that_differ(experiment: Experiment) -> tuple[Path, ...]:
    """Return the settings in which trials differ by the defaults of their sizes."""
    if not any(path.startswith("encoder") for path in (*experiment.compare, *experiment.tune)):
        return ()
    trials = [build_trial(experiment.base, settings) for settings in _corners(experiment)]
    paths = dict.fromkeys(
        path for size in size_defaults.DEFAULTS.values() for path in size.settings
    )
    return tuple(path for path in paths if len({attrgetter(path)(one) for one in trials}) > 1)


def _check_running(experiment: Experiment, built: Trial) -> None:
    """Refuse what the trial cannot be run or compared by."""
    if experiment.search.stopping is not None and not built.extendable:
        raise SpaceError(
            "search.stopping: scores on the way are those of runs that end there only under "
            "base.schedule {kind: constant, warmup: 0}, without stages, and where no other setting "
            f"moves{_moving(built)}"
        )
    least = min(built.at(progress).batch for progress in built.knots)
    if least < experiment.resources.workers:
        raise SpaceError(
            f"resources.workers: {experiment.resources.workers} for a batch of {least} "
            f"windows; at most one for each"
        )
    shared = 0 < experiment.resources.gpus_per_worker < 1
    if shared and built.budget.kind == "seconds":
        raise SpaceError(
            "base.budget.kind: seconds on a GPU that trials share compare its load; take flops or "
            "tokens, or a whole GPU"
        )


def _moving(built: Trial) -> str:
    if not built.moves:
        return ""
    full = " (base.windows {kind: full} keeps the length)" if "length" in built.moves else ""
    return f"; here {', '.join(sorted(built.moves))} move{full}"


def _tasks(asked: FinetuneConfig) -> list[str]:
    """Return the names of the tasks; each is found, and none twice."""
    try:
        names = [load_task(name).name for name in asked.tasks]
    except SpaceError as error:
        raise SpaceError(f"finetune.tasks: {error}") from None
    for name in names:
        if names.count(name) > 1:
            raise SpaceError(f"finetune.tasks: two are called {name}")
    return names


def _metric(name: str, tasks: list[str]) -> Metric:
    known = METRICS | {metric.name: metric for metric in map(finetuned, tasks)}
    if name not in known:
        hint = "" if not name.startswith("finetune/") else ": name its task in finetune.tasks"
        raise SpaceError(f"metric: {name!r} is none of {', '.join(known)}{hint}")
    return known[name]


def _at_its_path(experiment: Experiment, settings: dict[Path, Value]) -> Trial:
    """Return the trial; an error about a compared or tuned value names the place it stands at."""
    try:
        return build_trial(experiment.base, settings)
    except SpaceError as error:
        for path in sorted(settings, key=len, reverse=True):
            if str(error).startswith(f"base.{path}"):
                section = "compare" if path in experiment.compare else "tune"
                raise SpaceError(section + str(error).removeprefix("base")) from None
        raise


def _check_cells(experiment: Experiment) -> None:
    """Refuse two cells that are one trial, or that a report could not tell apart."""
    names: set[str] = set()
    trials: set[Trial] = set()
    for cell in expand_cells(experiment):
        name, built = label(cell, experiment.compare), _at_its_path(experiment, cell)
        if name in names or built in trials:
            raise SpaceError(f"compare: two cells are the same, or look it: {name}")
        names.add(name)
        trials.add(built)


def _corners(experiment: Experiment) -> tuple[dict[Path, Value], ...]:
    """Return settings that hold every compared value and every end or choice of a nuisance.

    The grid in full; nuisances one at a time beside the first values of the others, since
    the product of all would be as large as the search.
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


def _check_trial(built: Trial) -> None:
    try:
        built.objective.generator_shape(built.encoder)
    except ValueError as error:
        raise SpaceError(f"base.objective.generator: {error}") from None
    _check_start(built)
    _check_windows(built)
    try:
        cost = mean_cost(built)
        _check_preparatory(built)
        steps = own_budget(built).steps(cost)
    except OverflowError:
        raise SpaceError("base: one step's compute is too large to count") from None
    if steps is not None and steps < 1:
        unit = cost.flops if built.budget.kind == "flops" else cost.tokens
        left = built.budget.amount - own_budget(built).amount
        without = f", less the {left:.4g} of its preparatory mlm runs," if left else ""
        raise SpaceError(
            f"base.budget.amount: {built.budget.amount:g} {built.budget.kind}{without} are less "
            f"than one step, which costs {unit:.3g}"
        )
    said = f"base.budget.amount: {built.budget.amount:g} {built.budget.kind} are {steps} steps"
    least = built.objective.minimum_steps()
    if steps is not None and steps < least:
        raise SpaceError(
            f"{said}, and {built.objective.kind}'s networks take turns that need at least {least}"
        )
    if isinstance(built.windows, GrowingWindows) and steps is not None:
        until = built.windows.until
        least *= math.ceil(2 / min(until, 1 - until))
        if steps < least:
            raise SpaceError(
                f"{said}, and windows that grow at {until:g} need at least {least}; "
                "base.windows {kind: full} does not grow"
            )


def _check_windows(built: Trial) -> None:
    """Refuse short windows that are not short."""
    windows, length = built.windows, built.data.length
    if isinstance(windows, GrowingWindows) and windows.start >= length:
        raise SpaceError(
            f"base.windows.start: must be below base.data.length, {length}, not {windows.start}"
        )


def _check_start(built: Trial) -> None:
    """Refuse a start that the objective has no use for."""
    start, objective = built.init_from, built.objective
    if isinstance(start, FromScratch):
        return
    if why := objective.starts_from_scratch:
        raise SpaceError(f"base.init_from: {why}; leave init_from out")
    generates = objective.generator_shape(built.encoder) is not None
    if isinstance(start, FromCheckpoint) and start.generator and not generates:
        raise SpaceError(f"base.init_from.generator: objective {objective.kind} has no generator")
    if isinstance(start, FromCheckpoint) and start.generator and objective.frozen_generator:
        raise SpaceError(
            "base.init_from.generator: the frozen generator is that of "
            "base.objective.generator.init_from; leave it out"
        )


def _check_preparatory(built: Trial) -> None:
    """Refuse mlm runs that train nothing, cannot be charged, or whose tables cannot be shared."""
    runs, objective = preparatory_runs(built), built.objective
    if runs and built.budget.kind == "seconds":
        raise SpaceError(
            "base.budget.kind: a budget that counts preparatory mlm runs is in flops or tokens, "
            "not in seconds"
        )
    for network, run in runs.items():
        if not run.budget.steps(mean_cost(run)):
            frozen = network == GENERATOR and objective.frozen_generator
            place = "objective.generator.init_from" if frozen else "init_from"
            raise SpaceError(
                f"base.{place}.budget.amount: {run.budget.amount:g} {run.budget.kind} are less "
                f"than one step of the {network}'s mlm run"
            )
    if objective.shares_table and len(set(runs.values())) > 1:
        raise SpaceError(
            "base.init_from: encoder and generator start from mlm runs of their own shapes, whose "
            "tables differ, and base.objective.sharing: tokens has one table for both; take none "
            "or gdes, or a generator of width 1 and depth 1"
        )


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
