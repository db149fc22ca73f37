"""The search space of an advised trial, with the source of each value as a comment."""

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from lab.advice.values import Advice, AdvisedValue
from lab.config.base import StrictConfig
from lab.config.trial import Path, Trial
from lab.suggestion.commented_yaml import Section, write_commented

_KIND = "kind"  # field that selects the class, which must be written even if it is a default


def write_document(advice: Advice, command: str) -> str:
    """Return the text of the search space.

    Args:
        advice: the advice.
        command: the command that gave it.
    """
    heading = "\n".join(
        [
            f"Written by {command}",
            advice.heading,
            *(f"WARNING: {warning}." for warning in advice.warnings),
        ]
    )
    document = {
        "question": Section(value=advice.question),
        "metric": Section(value=advice.metric),
        "base": Section(value=base_sections(advice)),
        "search": Section(value={"seeds": 1}, because="One run, for which the budget is meant."),
    }
    if advice.resources:
        document["resources"] = Section(value=dict(advice.resources))
    return write_commented(document, heading)


def base_sections(advice: Advice) -> dict[str, Section]:
    """Return the settings of the trial that are advised or differ from the defaults of types."""
    advised = {value.path: value for value in advice.values if value.path}
    return _sections(plain_settings(advice.trial, frozenset(advised)), advised, "")


def plain_settings(trial: Trial, keep: frozenset[Path] = frozenset()) -> dict[str, Any]:
    """Return the settings of a trial as in a search space, without values that are defaults.

    Args:
        trial: the trial.
        keep: dotted paths that are written even if they have their default.
    """
    return _plain(trial, keep, "")


def _plain(config: StrictConfig, keep: frozenset[Path], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    assert is_dataclass(config)  # noqa: S101 - every section is one
    for each in fields(config):
        value, path = getattr(config, each.name), f"{prefix}{each.name}"
        kept = any(one == path or one.startswith(f"{path}.") for one in keep)
        if each.name == _KIND or kept or value != _default(each):
            found[each.name] = _to_yaml(value, keep, f"{path}.")
    return found


def _default(each: "Field[Any]") -> object:
    if each.default_factory is not MISSING:
        return each.default_factory()
    return each.default


def _to_yaml(value: Any, keep: frozenset[Path], prefix: str) -> object:
    if isinstance(value, StrictConfig):
        return _plain(value, keep, prefix)
    if isinstance(value, tuple):
        return [_to_yaml(each, frozenset(), "") for each in value]
    return value


def _sections(
    settings: Mapping[str, Any], advised: Mapping[Path, AdvisedValue], prefix: str
) -> dict[str, Section]:
    """Return settings as sections; those of a mapping with an advised value are one a line."""
    sections = {}
    for key, value in settings.items():
        path = f"{prefix}{key}"
        own = advised.get(path)
        inner = isinstance(value, dict) and any(one.startswith(f"{path}.") for one in advised)
        sections[key] = Section(
            value=_sections(value, advised, f"{path}.") if inner else value,
            because="" if own is None else _comment(own),
        )
    return sections


def _comment(value: AdvisedValue) -> str:
    ends = f", {value.interval}" if value.interval else ""
    return f"{value.name}: {value.text}{ends}; {value.source}"
