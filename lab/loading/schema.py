"""Types of a search space file, the validation against them, and their JSON Schema.

python -m lab.loading.schema > search_spaces/schema.json
"""

import json
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, TypeVar

from annotated_types import MinLen
from pydantic import Discriminator, Tag, TypeAdapter, ValidationError

from lab.config.architecture import SIZES
from lab.config.base import StrictConfig
from lab.config.bounds import LearningRate, Name, Question
from lab.config.costs.constraints import Constraints
from lab.config.costs.second_objective import CostName
from lab.config.experiment import (
    Answer,
    Choices,
    FinetuneConfig,
    Range,
    Resources,
    SearchConfig,
)
from lab.config.metrics import METRICS
from lab.config.optimizer import OptimizerConfig
from lab.config.schedules.rate_trend import RateTrendConfig
from lab.config.trial import Path, Trial, Value
from lab.loading import yaml_text
from lab.loading.error_messages import SpaceError, one_line

_T = TypeVar("_T")


def _kind_of_distribution(raw: object) -> str:
    return "Choices" if isinstance(raw, dict) and "choices" in raw else "Range"


# The key `choices` selects the class, so that errors refer to the intended one.
_Distribution = Annotated[
    Annotated[Range, Tag("Range")] | Annotated[Choices, Tag("Choices")],
    Discriminator(_kind_of_distribution),
]


@dataclass(frozen=True, kw_only=True)
class Document(StrictConfig):
    """A search space file; its attributes are those of `Experiment`, with the metric's name."""

    question: Question
    metric: str
    base: dict[str, Value]
    compare: dict[Path, Annotated[tuple[Value, ...], MinLen(1)]] = field(default_factory=dict)
    tune: dict[Path, _Distribution] = field(default_factory=dict)
    search: SearchConfig = field(default_factory=SearchConfig)
    resources: Resources = field(default_factory=Resources)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    minimal_pairs: Name | None = None
    answer: Answer = "ranking"
    constraints: Constraints = field(default_factory=Constraints)
    cost: CostName | None = None


def validate_document(raw: dict[str, Any]) -> Document:
    """Return the content of a search space file with checked types and ranges.

    The settings of `base`, `compare` and `tune` are not checked.

    Args:
        raw: content of the file, as plain YAML data.

    Raises:
        SpaceError: a value has another type or range; the message has its dotted path.
    """
    return _validate(_adapter(), raw, "")


def validate_trial(raw: dict[str, Any]) -> Trial:
    """Return a trial from its settings, with checked types and ranges.

    Args:
        raw: settings of the trial, as plain YAML data.

    Raises:
        SpaceError: a value has another type or range; the message has its dotted path.
    """
    return _validate(_trial_adapter(), raw, "base")


def validate_rate_trend(raw: dict[str, Any], path: Path) -> RateTrendConfig:
    """Return a trend of the learning rate with checked types and ranges.

    Args:
        raw: settings of the trend, as plain YAML data.
        path: dotted path of the trend, for messages.

    Raises:
        SpaceError: a value has another type or range; the message has its dotted path.
    """
    schema = json_schema()
    schema["properties"][path] = {"$ref": "#/$defs/RateTrendConfig"}
    return _validate(TypeAdapter(RateTrendConfig), raw, path, schema)


def validate_learning_rate(rate: float, path: Path) -> None:
    """Check that a learning rate has an allowed value.

    Raises:
        SpaceError: the value has another range; the message begins with `path`.
    """
    _validate(TypeAdapter(LearningRate), rate, path)


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
    trend_schema = TypeAdapter(RateTrendConfig).json_schema()
    definitions |= trend_schema.pop("$defs")
    definitions["RateTrendConfig"] = trend_schema
    for optimizer in OptimizerConfig.__subclasses__():
        rates = definitions[optimizer.__name__]["properties"]
        number = rates["lr"]
        rates["lr"] = {
            "anyOf": [number, {"$ref": "#/$defs/RateTrendConfig"}],
            "default": number.pop("default"),
        }
    definitions["Trial"] = trial_schema
    schema["properties"]["base"] = {"$ref": "#/$defs/Trial"}
    schema["properties"]["metric"]["anyOf"] = [
        {"enum": sorted(METRICS)},
        {"pattern": "^finetune/[^/]+$"},
        {"pattern": "^pairs/[A-Za-z0-9_-]+/accuracy$"},
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "$defs": definitions,
    }


@cache
def _adapter() -> TypeAdapter[Document]:
    return TypeAdapter(Document)


@cache
def _trial_adapter() -> TypeAdapter[Trial]:
    return TypeAdapter(Trial)


def _validate(
    adapter: TypeAdapter[_T], raw: Any, prefix: str, schema: dict[str, Any] | None = None
) -> _T:
    """Return the validated value; `schema` has a property `prefix`, null for that of the file."""
    try:
        text = yaml_text.as_json(raw)
    except SpaceError as error:
        raise SpaceError(f"{prefix or 'the file'}: {error}") from None
    try:
        # In strict JSON mode a list may become a tuple, but a string does not become a number.
        return adapter.validate_json(text, strict=True)
    except ValidationError as error:
        raise SpaceError(one_line(error, prefix, schema or json_schema())) from None


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
