"""Read and write YAML, and apply overrides. The resulting mappings are not yet validated."""

import json
import math
import re
from pathlib import Path as File
from typing import Any

import yaml

from lab.config.trial import Path, Value
from lab.control_characters import find_control
from lab.loading.error_messages import SpaceError

_MAX_VALUES = 100_000  # of a document; the search spaces of this project have fewer than 100


def read(
    file: File, expected: str = "a search space is a mapping with question, metric and base"
) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Args:
        file: path of the YAML file.
        expected: error message for a file that does not contain a mapping.

    Raises:
        SpaceError: the file cannot be read, is not YAML or does not contain a mapping.
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
        raise SpaceError(f"{file}: {expected}")
    try:
        _check_characters(raw, "", set())
    except SpaceError as error:
        raise SpaceError(f"{file}: {error}") from None
    return raw


def _check_characters(value: Any, path: str, seen: set[int]) -> None:
    """Reject control characters in the keys and texts of a value, at any depth.

    Args:
        value: content of YAML text.
        path: dotted path of the value.
        seen: identities of the mappings and lists that were checked; aliases repeat them.

    Raises:
        SpaceError: a text has a control character; the message has its path.
    """
    if isinstance(value, str) and (character := find_control(value)) is not None:
        raise SpaceError(
            f"{path or 'value'}: control character {character} in {value[:60]!a}; remove it"
        )
    if not isinstance(value, (dict, list)) or id(value) in seen:
        return
    seen.add(id(value))
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        _check_characters(key, path, seen)
        _check_characters(inner, f"{path}.{key}".removeprefix("."), seen)


def write(raw: dict[str, Any]) -> str:
    """Return a mapping as YAML text, with the keys in their original order."""
    return yaml.dump(raw, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def as_json(raw: Any) -> str:
    """Return plain data as JSON.

    Raises:
        SpaceError: the data cannot be represented in JSON, for example a date as a key or a
            recursive alias.
    """
    try:
        return json.dumps(raw, default=str)
    except (TypeError, ValueError, RecursionError) as error:
        raise SpaceError(f"not plain data: {error}") from None


def override(raw: dict[str, Any], assignment: str) -> None:
    """Apply an override to `raw` in place.

    Args:
        raw: search space.
        assignment: override of the form `path=value`, with the value in YAML.

    Raises:
        SpaceError: `assignment` is not of that form, or its path leads through a value that is
            not a mapping.
    """
    path, equals, text = assignment.partition("=")
    if not equals or not path:
        raise SpaceError(f"--set {assignment}: must be path=value, for example base.batch=64")
    try:
        value = parse(text)
        _check_characters([path, value], "", set())
    except SpaceError as error:
        raise SpaceError(f"--set {assignment}: {error}") from None
    top, _, rest = path.partition(".")
    if top in {"compare", "tune"} and rest:  # the keys of these sections are dotted paths
        section = raw.setdefault(top, {})
        if not isinstance(section, dict):
            raise SpaceError(f"{top}: must be a mapping of dotted paths")
        section[rest] = value
    else:
        put(raw, path, value)


def put(raw: dict[str, Any], path: Path, value: Value) -> None:
    """Set the value at a dotted path of `raw` in place, creating missing mappings on the path.

    Raises:
        SpaceError: a value on the path is not a mapping.
    """
    *parents, last = path.split(".")
    for parent in parents:
        inner = raw.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise SpaceError(f"{path}: {parent} must be a mapping, not {inner!r}")
        raw = inner
    raw[last] = value


def parse(text: str) -> Any:
    """Return the content of YAML text.

    Raises:
        SpaceError: the text is not YAML or has a duplicate key; the message has the position.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except SpaceError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: date 2020-13-45
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise SpaceError(f"{where}not YAML: {getattr(error, 'problem', error)}") from None


class _Loader(yaml.SafeLoader):
    """YAML loader with the scalars of YAML 1.2, which rejects duplicate keys.

    YAML 1.1 reads `1:30` as 90, `010` as 8, `on` and `no` as truth values and `2026-01-02` as a
    date. Here they are texts, which a setting of another type refuses. Aliases that multiply are
    rejected too: a few lines of them can stand for billions of values.
    """

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _check_size(node)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Merge keys (<<) are not expanded yet, so a merged key may be overridden.
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                line = key.start_mark.line + 1
                raise SpaceError(f"line {line}: {key.value}: duplicate key")
            seen.add(str(key.value))
        return node


def _check_size(root: yaml.Node) -> None:
    """Check the number of values of a document, in which each alias counts as a copy.

    Raises:
        SpaceError: there are too many values, or an alias stands for a value that contains it.
    """
    sizes: dict[int, int] = {}  # by the identity of a node; 0 while its parts are counted

    def count(node: yaml.Node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = 0
            sizes[id(node)] = 1 + sum(map(count, _parts(node)))
        elif not sizes[id(node)]:
            raise SpaceError(f"line {node.start_mark.line + 1}: contains itself through an alias")
        if sizes[id(node)] > _MAX_VALUES:
            raise SpaceError(
                f"line {node.start_mark.line + 1}: its aliases stand for more than "
                f"{_MAX_VALUES:,} values, the most that are allowed"
            )
        return sizes[id(node)]

    count(root)


def _parts(node: yaml.Node) -> list[yaml.Node]:
    match node:
        case yaml.MappingNode():
            return [part for pair in node.value for part in pair]
        case yaml.SequenceNode():
            return list(node.value)
    return []


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float | str:
    text = loader.construct_scalar(node).replace("_", "")
    number = float(text)
    if not math.isfinite(number):
        # No setting may be infinite. As a string it is rejected with its dotted path.
        return str(node.value)
    whole = number.is_integer() and ("." not in text or "e" in text.lower())
    return int(number) if whole else number


# A number that begins with 0 is octal in YAML 1.1 and decimal in 1.2; it is read as a text.
_NUMBER = r"^[-+]?((0|[1-9](_?[0-9])*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?$"
_Loader.yaml_implicit_resolvers = {}  # without those of YAML 1.1, which `SafeLoader` has
for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:null", r"^(~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"^(true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("tag:yaml.org,2002:merge", r"^<<$", ["<"]),
    ("!number", _NUMBER, list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), _first)
_Loader.add_constructor("!number", _number)


class _Dumper(yaml.SafeDumper):
    """YAML dumper that quotes texts which `_Loader` would read as numbers, such as `1e-3`."""


_Dumper.add_implicit_resolver("!number", re.compile(_NUMBER), list("-+.0123456789"))
