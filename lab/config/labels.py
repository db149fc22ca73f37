"""Short names of settings, for tables, figures and terminals."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lab.config.trial import Path, Value


def label(values: Mapping[Path, Value], compared: Mapping[Path, Sequence[Value]]) -> str:
    """Return a short name of a setting: `width 0.25`, whole paths where last parts collide.

    A path that ends in `kind` is named by the part before it: `optim muon`.
    A mapping with a kind is named by that kind. Where it is one of several compared values, its
    name holds only what tells it apart from the others: `generator frozen`, `growing, until 0.6`.

    Args:
        values: of the setting, by path.
        compared: all values that a path takes, for the paths that are compared.
    """
    lasts = [path.removesuffix(".kind").rpartition(".")[2] for path in values]
    parts = []
    for path, last, value in zip(values, lasts, values.values(), strict=True):
        if isinstance(value, dict) and "kind" in value:
            parts.append(_short(value, [*compared.get(path, ()), value]))
        else:
            parts.append(f"{last if lasts.count(last) == 1 else path} {_show(value)}")
    return ", ".join(parts)


def _short(value: Mapping[str, Any], others: Sequence[Value]) -> str:
    """Return what tells `value` from `others`: first kinds, then whatever else differs."""
    alike = [other for other in others if isinstance(other, dict) and "kind" in other]
    kinds = [path for path in _differing(alike) if path.rpartition(".")[2] == "kind"]
    outer = [path for path in kinds if not any(_encloses(other, path) for other in kinds)]
    named = _at(value, outer)
    alike = [other for other in alike if _at(other, outer) == named]
    chosen = (named or {"kind": value["kind"]}) | _at(value, _differing(alike))
    return ", ".join(_part(*item) for item in chosen.items())


def _differing(values: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the paths of the leaves that are not the same in all values, in order."""
    leaves = [dict(_leaves(value)) for value in values]
    paths = dict.fromkeys(path for each in leaves for path in each)
    return [path for path in paths if len({_show(each.get(path)) for each in leaves}) > 1]


def _at(value: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Value]:
    """Return the leaves of a mapping that stand at `paths`."""
    leaves = dict(_leaves(value))
    return {path: leaves[path] for path in paths if path in leaves}


def _leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, dict) and not _is_ramp(inner):
            yield from _leaves(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


def _encloses(outer: str, inner: str) -> bool:
    """Return whether the mapping at whose `kind` path `outer` ends contains that of `inner`."""
    return outer != inner and inner.startswith(outer.removesuffix("kind"))


def _part(path: str, value: Value) -> str:
    *parents, last = path.split(".")
    if last == "kind":
        return " ".join([*parents[-1:], str(value)])
    return f"{last} {_show(value)}"


def _is_ramp(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"start", "end"}


def _show(value: Value) -> str:
    if isinstance(value, float) or (isinstance(value, int) and value >= 10**6):
        return f"{value:.6g}"
    if isinstance(value, dict) and _is_ramp(value):
        return f"{_show(value['start'])} → {_show(value['end'])}"
    return value if isinstance(value, str) else json.dumps(value)
