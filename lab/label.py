"""Short names of settings, for tables, figures and terminals."""

import json
from collections.abc import Mapping

from lab.spec import Path, Value


def label(values: Mapping[Path, Value]) -> str:
    """Return a short name of a setting: `width 0.25`, whole paths where last parts collide.

    A mapping with a kind is named by it, and by whatever else it says.
    """
    lasts = [path.rpartition(".")[2] for path in values]
    names = [
        last if lasts.count(last) == 1 else path for path, last in zip(values, lasts, strict=True)
    ]
    return ", ".join(
        _show(value) if isinstance(value, dict) and "kind" in value else f"{name} {_show(value)}"
        for name, value in zip(names, values.values(), strict=True)
    )


def _show(value: Value) -> str:
    if isinstance(value, float) or (isinstance(value, int) and value >= 10**6):
        return f"{value:.6g}"
    if isinstance(value, dict) and "kind" in value:
        rest = label({key: inner for key, inner in value.items() if key != "kind"})
        return f"{value['kind']} ({rest})" if rest else str(value["kind"])
    return value if isinstance(value, str) else json.dumps(value)
