"""Types and limits of JSON Schema nodes in words."""

from typing import Any

from lab.config.schedules.ramps import Ramp
from lab.loading import config_classes, markdown

Node = dict[str, Any]  # a part of a JSON Schema


def references(node: Node) -> list[str]:
    """Return the names of the classes that a value may be of, also inside of a list."""
    parts = [node, *node.get("oneOf", ()), *node.get("anyOf", ())]
    inner = [node[key] for key in ("items", "additionalProperties") if node.get(key)]
    found = [part["$ref"].rpartition("/")[2] for part in parts if "$ref" in part]
    return [*found, *(name for one in inner if isinstance(one, dict) for name in references(one))]


def suffix(node: Node) -> str:
    """Return the part of a path that stands for an element of a list or mapping."""
    if node.get("type") == "array":
        return "[]"
    return ".PATH" if isinstance(node.get("additionalProperties"), dict) else ""


def scalar_type(node: Node) -> str:
    """Return the type of a value that holds no class, in words."""
    for alternatives in (node.get("oneOf"), node.get("anyOf")):
        if alternatives:
            number = next(one for one in alternatives if "$ref" not in one)
            ramp = " or ramp" if any("$ref" in one for one in alternatives) else ""
            return scalar_type(number) + ramp
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    if node.get("type") == "array":
        return f"list of {scalar_type(node['items'])}"
    if isinstance(node.get("additionalProperties"), dict):
        return "mapping of dotted paths"
    kind = str(node.get("type", "values"))
    return {"integer": "whole number", "string": "text", "boolean": "true or false"}.get(kind, kind)


def limits(node: Node) -> str:
    """Return the limits of a value in words."""
    parts = [one for one in (node, *node.get("oneOf", ()), *node.get("anyOf", ())) if one]
    bounds = {key: value for part in parts for key, value in part.items()}
    words = {
        "exclusiveMinimum": "above",
        "minimum": "at least",
        "exclusiveMaximum": "below",
        "maximum": "at most",
    }
    shown = [
        f"{word} {markdown.value(bounds[key])}" for key, word in words.items() if key in bounds
    ]
    if count := bounds.get("minItems"):
        shown.append(f"at least {count} value{'s' * (count > 1)}")
    if length := bounds.get("minLength"):
        shown.append("not empty" if length == 1 else f"at least {length} characters")
    return ", ".join(shown) or "–"


def is_ramp(name: str) -> bool:
    """Return whether the class of this name is a ramp, which takes the place of a number."""
    return issubclass(config_classes.classes_by_name()[name], Ramp)
