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
from pathlib import Path as File
from typing import Annotated, Any, TypeVar

from annotated_types import MinLen
from pydantic import Discriminator, Tag, TypeAdapter, ValidationError

from lab import yaml_text
from lab.flops import step_cost
from lab.metrics import METRICS, Metric
from lab.noun import Noun
from lab.refusal import SpaceError, one_line
from lab.spec import (
    SIZES,
    Choices,
    Distribution,
    Experiment,
    Mlm,
    Path,
    Range,
    Resources,
    Search,
    Trial,
    Value,
)

_T = TypeVar("_T")


def _kind_of_distribution(raw: object) -> str:
    return "Choices" if isinstance(raw, dict) and "choices" in raw else "Range"


# Told apart by the key `choices`, so that an error speaks of the one that was meant.
_Distribution = Annotated[
    Annotated[Range, Tag("Range")] | Annotated[Choices, Tag("Choices")],
    Discriminator(_kind_of_distribution),
]


@dataclass(frozen=True, kw_only=True)
class _Document(Noun):
    question: Annotated[str, MinLen(1)]
    metric: str
    base: dict[str, Value]
    compare: dict[Path, Annotated[tuple[Value, ...], MinLen(1)]] = field(default_factory=dict)
    tune: dict[Path, _Distribution] = field(default_factory=dict)
    search: Search = field(default_factory=Search)
    resources: Resources = field(default_factory=Resources)


def load(file: File, overrides: tuple[str, ...] = ()) -> Experiment:
    """Read, override and check a search space.

    Args:
        file: the YAML file.
        overrides: `path=value` pairs, the value in YAML, applied in order.

    Raises:
        SpaceError: anything is wrong; nothing has been written.
    """
    raw = yaml_text.read(file)
    try:
        for override in overrides:
            yaml_text.override(raw, override)
        return _check(file.stem, raw)
    except SpaceError as error:
        raise SpaceError(f"{file}: {error}") from None


def trial(base: Mapping[str, Value], settings: Mapping[Path, Value]) -> Trial:
    """Return `base` with `settings` written at their dotted paths, as a checked trial.

    Raises:
        SpaceError: names the dotted path that is wrong.
    """
    raw: dict[str, Any] = {"base": deepcopy(dict(base))}
    for path in sorted(settings):  # a whole before its parts: objective, objective.mask_prob
        yaml_text.put(raw, f"base.{path}", deepcopy(settings[path]))
    raw = raw["base"]
    raw["encoder"] = _encoder(raw.get("encoder", {}))
    built = _validated(_trial_adapter(), raw, "base")
    _check_trial(built)
    return built


def cells(experiment: Experiment) -> tuple[dict[Path, Value], ...]:
    """Return the full grid over `compare`; one empty cell where nothing is compared."""
    paths = list(experiment.compare)
    return tuple(
        dict(zip(paths, values, strict=True))
        for values in itertools.product(*experiment.compare.values())
    )


def dump(experiment: Experiment) -> str:
    """Return the search space as YAML with its overrides and defaults in it; `load` reads it."""
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
    encoder = definitions["Encoder"]
    encoder["properties"] = {
        "size": {"enum": sorted(SIZES), "description": "start from a named size"},
        **encoder["properties"],
    }
    encoder["anyOf"] = [{"required": ["size"]}, {"required": encoder.pop("required")}]
    definitions["Trial"] = trial_schema
    schema["properties"]["base"] = {"$ref": "#/$defs/Trial"}
    schema["properties"]["metric"]["enum"] = sorted(METRICS)
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


def _validated(adapter: TypeAdapter[_T], raw: Any, prefix: str) -> _T:
    try:
        text = json.dumps(raw, default=str)
    except (TypeError, ValueError, RecursionError) as error:  # a date as a key, an alias to itself
        raise SpaceError(f"{prefix or 'the file'}: not plain data: {error}") from None
    try:
        # JSON's strictness: a list may become a tuple, but no string becomes a number.
        return adapter.validate_json(text, strict=True)
    except ValidationError as error:
        raise SpaceError(one_line(error, prefix, json_schema())) from None


def _check(name: str, raw: dict[str, Any]) -> Experiment:
    document = _validated(_adapter(), raw, "")
    experiment = Experiment(
        name=name,
        question=document.question,
        metric=_metric(document.metric),
        base=document.base,
        compare=document.compare,
        tune=document.tune,
        search=document.search,
        resources=document.resources,
    )
    _check_search(experiment)
    trial(experiment.base, {})  # also what compare and tune write over, as the schema asks
    for settings in _corners(experiment):
        built = trial(experiment.base, settings)
        if experiment.metric.name.startswith("detect/") and isinstance(built.objective, Mlm):
            raise SpaceError(
                f"metric: {experiment.metric.name} needs a discriminator and objective mlm has "
                f"none; choose a probe, for example probe/pos/accuracy"
            )
    spoiler = experiment.metric.spoiler((*experiment.compare, *experiment.tune))
    if spoiler is not None:
        raise SpaceError(
            f"metric: {experiment.metric.name} cannot rank trials that differ in {spoiler}: "
            f"{experiment.metric.because}"
        )
    return experiment


def _metric(name: str) -> Metric:
    if name not in METRICS:
        raise SpaceError(f"metric: {name!r} is none of {', '.join(METRICS)}")
    return METRICS[name]


def _check_search(experiment: Experiment) -> None:
    twice = set(experiment.compare) & set(experiment.tune)
    if twice:
        raise SpaceError(f"tune.{min(twice)}: stands under compare too; a parameter is one of both")
    for path, values in experiment.compare.items():
        if len({json.dumps(value, sort_keys=True) for value in values}) < len(values):
            raise SpaceError(f"compare.{path}: a value stands twice")
    for path, distribution in experiment.tune.items():
        _check_distribution(path, distribution)
    choices = [len(d.choices) for d in experiment.tune.values() if isinstance(d, Choices)]
    if experiment.search.sampler == "grid" and math.prod(choices) > experiment.search.trials:
        raise SpaceError(
            f"search.trials: {experiment.search.trials} do not hold the grid, whose choices alone "
            f"are {math.prod(choices)} settings"
        )
    if not experiment.tune and experiment.search.trials > 1:
        raise SpaceError(
            f"search.trials: {experiment.search.trials} settings a cell, but tune names nothing "
            f"to vary; use search.seeds for repeats"
        )


_SHAPES = {
    *(f"encoder.{side}" for side in ("layers", "hidden", "ffn", "heads", "embedding")),
    "objective.generator.width",
    "objective.generator.depth",
}


def _check_distribution(path: Path, distribution: Distribution) -> None:
    if path.startswith(("seeds", "budget")):
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
    if values.integer and any(not n.is_integer() for n in (low, high, values.step or 1.0)):
        raise SpaceError(f"tune.{path}: integer needs a whole low, high and step")
    if path in _SHAPES and values.step is None:
        raise SpaceError(
            f"tune.{path}: a shape needs a step (or choices): between the ends lie widths that "
            f"their heads do not divide"
        )


def _corners(experiment: Experiment) -> tuple[dict[Path, Value], ...]:
    """Return settings that hold every compared value and every end or choice of a nuisance.

    The grid in full; nuisances one at a time beside the first values of the others, since
    the product of all would be as large as the search.
    """
    ends = {path: _ends(distribution) for path, distribution in experiment.tune.items()}
    first = {path: values[0] for path, values in ends.items()}
    nuisances = [first, *(first | {path: v} for path, values in ends.items() for v in values)]
    return tuple(cell | nuisance for cell in cells(experiment) for nuisance in nuisances)


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
    objective = built.objective
    if not isinstance(objective, Mlm):
        try:
            objective.generator.of(built.encoder)
        except ValueError as error:
            raise SpaceError(f"base.objective.generator: {error}") from None
    try:
        cost = step_cost(built)
        steps = built.budget.steps(cost)
    except OverflowError:
        raise SpaceError("base: one step's compute is too large to count") from None
    if steps == 0:
        unit = cost.flops if built.budget.kind == "flops" else cost.tokens
        raise SpaceError(
            f"base.budget.amount: {built.budget.amount:g} {built.budget.kind} are less than one "
            f"step, which costs {unit:.3g}"
        )


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
