"""Short labels of settings, for tables, figures and terminals."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lab.config.trial import Path, Value, content_hash

_LONGEST = 80  # characters of a value in a label
_END = 20  # characters of the first and the last value of an abbreviated list


def label(values: Mapping[Path, Value], compared: Mapping[Path, Sequence[Value]]) -> str:
    """Return a short label of a setting, for example `width 0.25`.

    A value of more than 80 characters, such as a list of many files, is abbreviated. A path is
    abbreviated to its last part if that is unique among the paths. A path that ends in
    `kind` is abbreviated to the part before it: `optim muon`. A mapping with a kind is named by
    that kind. If it is one of several compared values, its name holds only the entries in which it
    differs from the others: `generator frozen`, `growing, until 0.6`. A long mapping
    without a kind is named by the entries in which it differs: `hidden 32, ffn 128`.

    Args:
        values: values of the setting, by dotted path.
        compared: all values of each compared path.
    """
    lasts = [path.removesuffix(".kind").rpartition(".")[2] for path in values]
    parts = []
    for path, last, value in zip(values, lasts, values.values(), strict=True):
        others = [*compared.get(path, ()), value]
        if isinstance(value, dict) and "kind" in value:
            parts.append(_distinctive_name(value, others))
        elif len(_format_whole(value)) > _LONGEST and (
            distinctive := _distinctive_entries(value, others)
        ):
            parts.append(", ".join(_format_leaf(*item) for item in distinctive.items()))
        else:
            parts.append(f"{last if lasts.count(last) == 1 else path} {_format(value)}")
    return ", ".join(parts)


def _distinctive_name(value: Mapping[str, Any], others: Sequence[Value]) -> str:
    """Return the entries in which `value` differs from `others`: kinds first, then other leaves."""
    candidates = [other for other in others if isinstance(other, dict) and "kind" in other]
    kinds = [path for path in _differing_paths(candidates) if path.rpartition(".")[2] == "kind"]
    outer = [path for path in kinds if not any(_encloses(other, path) for other in kinds)]
    own_kinds = _select_leaves(value, outer)
    same_kinds = [other for other in candidates if _select_leaves(other, outer) == own_kinds]
    chosen = own_kinds or {"kind": value["kind"]}
    chosen |= _select_leaves(value, _differing_paths(same_kinds))
    return ", ".join(_format_leaf(*item) for item in chosen.items())


def _distinctive_entries(value: Value, others: Sequence[Value]) -> dict[str, Value]:
    """Return the leaves in which a mapping differs from the other mappings; none of other types."""
    if not isinstance(value, dict) or _is_ramp(value):
        return {}
    mappings = [other for other in others if isinstance(other, dict) and not _is_ramp(other)]
    return _select_leaves(value, _differing_paths(mappings))


def _differing_paths(values: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the paths of the leaves that differ between the values, in order."""
    leaves = [dict(_leaves(value)) for value in values]
    paths = dict.fromkeys(path for each in leaves for path in each)
    return [path for path in paths if len({_format(each.get(path)) for each in leaves}) > 1]


def _select_leaves(value: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Value]:
    """Return the leaves of a mapping at `paths`, omitting paths that it does not have."""
    leaves = dict(_leaves(value))
    return {path: leaves[path] for path in paths if path in leaves}


def _leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, dict) and not _is_ramp(inner):
            yield from _leaves(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


def _encloses(outer: str, inner: str) -> bool:
    """Return whether the mapping of the `kind` at `outer` contains the one of `inner`."""
    return outer != inner and inner.startswith(outer.removesuffix("kind"))


def _format_leaf(path: str, value: Value) -> str:
    *parents, last = path.split(".")
    if last == "kind":
        return " ".join([*parents[-1:], str(value)])
    return f"{last} {_format(value)}"


def _is_ramp(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"start", "end"}


def _format(value: Value) -> str:
    text = _format_whole(value)
    return text if len(text) <= _LONGEST else _abbreviate(value, text)


def _abbreviate(value: Value, text: str) -> str:
    """Return the beginning of a long value, or ends and length of a list, with a hash of it."""
    digest = content_hash(text)[:6]
    if not isinstance(value, (list, tuple)):
        return f"{text[: _LONGEST // 2]}… ({digest})"
    first, last = (_format_whole(end)[:_END] for end in (value[0], value[-1]))
    return f"{len(value)} values, {first} … {last} ({digest})"


def _format_whole(value: Value) -> str:
    if isinstance(value, float) or (isinstance(value, int) and value >= 10**6):
        return f"{value:.6g}"
    if isinstance(value, dict) and _is_ramp(value):
        return f"{_format_whole(value['start'])} → {_format_whole(value['end'])}"
    return value if isinstance(value, str) else json.dumps(value)
