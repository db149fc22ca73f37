"""A search space as it is written: YAML and overrides -> plain mappings, unchecked."""

import json
import math
import re
from pathlib import Path as File
from typing import Any

import yaml

from lab.config.trial import Path, Value
from lab.loading.error_messages import SpaceError


def read(
    file: File, wanted: str = "a search space is a mapping with question, metric and base"
) -> dict[str, Any]:
    """Read a search space, or another mapping.

    Args:
        file: the YAML file.
        wanted: said where it is no mapping.

    Raises:
        SpaceError: names the file; it cannot be read, is not YAML or is no mapping.
    """
    try:
        raw = parse(file.read_text(encoding="utf-8"))
    except SpaceError as error:
        raise SpaceError(f"{file}: {error}") from None
    except UnicodeDecodeError:
        raise SpaceError(f"{file}: not UTF-8 text") from None
    except OSError as error:
        raise SpaceError(f"{file}: {(error.strerror or 'cannot be read').lower()}") from None
    if not isinstance(raw, dict):
        raise SpaceError(f"{file}: {wanted}")
    return raw


def write(raw: dict[str, Any]) -> str:
    """Return YAML text with the keys in their order."""
    return yaml.safe_dump(raw, sort_keys=False, allow_unicode=True, width=100)


def as_json(raw: Any) -> str:
    """Return plain data as JSON.

    Raises:
        SpaceError: it is not plain: a date as a key, an alias to itself.
    """
    try:
        return json.dumps(raw, default=str)
    except (TypeError, ValueError, RecursionError) as error:
        raise SpaceError(f"not plain data: {error}") from None


def override(raw: dict[str, Any], given: str) -> None:
    """Write what `given` says, a `path=value` with the value in YAML, into `raw`.

    Raises:
        SpaceError: it is not of that form, or `raw` has no place for it.
    """
    path, equals, text = given.partition("=")
    if not equals or not path:
        raise SpaceError(f"--set {given}: write it as path=value, for example base.batch=64")
    try:
        value = parse(text)
    except SpaceError as error:
        raise SpaceError(f"--set {given}: {error}") from None
    top, _, rest = path.partition(".")
    if top in {"compare", "tune"} and rest:  # their keys are dotted paths themselves
        section = raw.setdefault(top, {})
        if not isinstance(section, dict):
            raise SpaceError(f"{top}: must be a mapping of dotted paths")
        section[rest] = value
    else:
        put(raw, path, value)


def put(raw: dict[str, Any], path: Path, value: Value) -> None:
    """Write `value` into `raw` at a dotted path; mappings on the way are made.

    Raises:
        SpaceError: something on the way is no mapping.
    """
    *parents, last = path.split(".")
    for parent in parents:
        inner = raw.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise SpaceError(f"{path}: {parent} is {inner!r}, which has no fields")
        raw = inner
    raw[last] = value


def parse(text: str) -> Any:
    """Return what YAML text says.

    Raises:
        SpaceError: it is not YAML, with line and column.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except SpaceError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: 2020-13-45
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise SpaceError(f"{where}not YAML: {getattr(error, 'problem', error)}") from None


class _Loader(yaml.SafeLoader):
    """YAML 1.2 numbers (1e-3 is one), and no key twice."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:  # before merges (<<) expand
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                line = key.start_mark.line + 1
                raise SpaceError(f"line {line}: {key.value}: the key stands twice")
            seen.add(str(key.value))
        return node


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float | str:
    number = float(loader.construct_scalar(node).replace("_", ""))
    if not math.isfinite(number):
        return str(node.value)  # no field is infinite: refused as a word, by its dotted path
    return int(number) if number.is_integer() else number


def _float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float | str:
    number = loader.construct_yaml_float(node)
    return number if math.isfinite(number) else str(node.value)


_Loader.add_implicit_resolver(
    "!number", re.compile(r"^[-+]?(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)?$"), list("-+.0123456789")
)
_Loader.add_constructor("!number", _number)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)
