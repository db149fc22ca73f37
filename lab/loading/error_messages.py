"""One-line error messages for invalid search spaces.

pydantic's validation errors are translated into messages with the dotted path, the error, the
allowed values (from the JSON Schema) and the given value.
"""

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lab.config.objectives import masking
from lab.config.schedules import ramps
from lab.errors import UserError

_LONGEST = 2_000  # characters of a message, which may quote keys and values of a file


class SpaceError(UserError):
    """Invalid search space; the message is a single line."""

    def __init__(self, message: str) -> None:
        line = " ".join(message.split())
        super().__init__(line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…")


def one_line(error: ValidationError, prefix: str, schema: dict[str, Any]) -> str:
    """Return a message about the first error, with the number of further errors.

    Args:
        error: pydantic's validation error.
        prefix: dotted path of the validated value; empty for the whole file.
        schema: JSON Schema of a search space, from which allowed keys are taken.
    """
    # A misspelled key is often reported as a missing key too; the unknown key is more informative.
    errors = error.errors(include_url=False)
    first = next((one for one in errors if one["type"] == "unexpected_keyword_argument"), errors[0])
    steps = ([prefix] if prefix else []) + [str(step) for step in first["loc"]]
    kind = ["kind"] if first["type"].startswith("union_tag") else []
    path = ".".join([*_path_in_file(steps, schema), *kind]) or "the file"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{path}: {_describe(first, steps, schema)}{more}"


# The mapping that may take the place of a number or word, by the tag of the number or word.
_MAPPING = dict([ramps.TAGS, masking.TAGS])
# Alternatives that are distinguished by their keys or types, without a tag in the schema.
_UNTAGGED = {
    *("Range", "Choices", "GeneratorConfig", "FrozenGeneratorConfig"),
    *_MAPPING,
    *_MAPPING.values(),
}

# Messages by pydantic's error type. Those of `_MUST` are followed by the given value.
_WITHOUT_VALUE = {
    "unexpected_keyword_argument": "unknown key; allowed: {keys}",
    "missing": "required, but missing",
    "union_tag_not_found": "required, but missing; must be one of {tags}",
    "too_short": "needs at least one value",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
}
# Errors whose messages end with the reason for the bound.
_BOUNDS = (
    *("greater_than", "greater_than_equal", "less_than", "less_than_equal"),
    *("string_too_short", "string_too_long"),
)
# Keys of version 0.2.0 and their names since version 0.3.0.
_RENAMED = {
    "curve": "evaluations",
    "networks": "clip_scope",
    "form": "normalization",
    "law": "replacement_distribution",
}
_COUNTED_UNIT = {"too_short": "values", "string_too_short": "characters"}
_MUST = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping with {keys}",
    "dataclass_type": "must be a mapping with {keys}",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be one of {expected}",
    "union_tag_invalid": "must be one of {expected_tags}",
}


def _describe(error: ErrorDetails, steps: list[str], schema: dict[str, Any]) -> str:
    """Return the error, the allowed values and the given value."""
    kind, context = error["type"], error.get("ctx", {})
    template = (_WITHOUT_VALUE | _MUST).get(kind)
    if context.get("min_length", 1) > 1:
        return f"needs at least {context['min_length']} {_COUNTED_UNIT[kind]}"
    if template is None:
        return error["msg"].removeprefix("Value error, ")
    parent = steps[:-1] if kind == "unexpected_keyword_argument" else steps
    limits = {key: _without_quotes(value) for key, value in context.items()}
    allowed = _allowed_at(parent, schema)
    if parent is not steps and (new := _RENAMED.get(steps[-1], "")) in allowed["keys"].split(", "):
        return f"unknown key; renamed to {new} in version 0.3.0"
    message = template.format(**allowed, **limits)
    reason = _reason_at(steps, schema) if kind in _BOUNDS else ""
    if kind in ("float_type", "int_type", "literal_error") and parent[-1] in _MAPPING:
        mapping = _allowed_at([*steps[:-1], _MAPPING[parent[-1]]], schema)
        message += " or a mapping with {keys}".format(**mapping)
    if kind in _WITHOUT_VALUE:
        return message + reason
    return f"{message}, not {_format_value(context.get('tag', error['input']))}{reason}"


def _reason_at(steps: list[str], schema: dict[str, Any]) -> str:
    """Return the reason for the bounds at a location (`lab.config.bounds`), if it has one."""
    node = schema
    for _, node in _walk(steps, schema):  # noqa: B007 - the last node is used
        pass
    alternatives = [node, *node.get("oneOf", []), *node.get("anyOf", [])]
    reason = next((one["reason"] for one in alternatives if "reason" in one), "")
    return f": {reason}" if reason else ""


def _without_quotes(value: object) -> object:
    """Turn pydantic's "'a', 'b' or 'c'" into "a, b, c"."""
    return value.replace("'", "").replace(" or ", ", ") if isinstance(value, str) else value


def _format_value(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:60]}..."


def _allowed_at(steps: list[str], schema: dict[str, Any]) -> dict[str, str]:
    """Return the keys (`keys`) and the kinds (`tags`) that the schema allows at a location."""
    node = schema
    for _, node in _walk(steps, schema):  # noqa: B007 - the last node is used
        pass
    alternatives = [*node.get("oneOf", []), *node.get("anyOf", [])]
    members = [_definition(schema, one) for one in alternatives if "$ref" in one]
    keys = dict.fromkeys(key for one in (node, *members) for key in one.get("properties", {}))
    return {"keys": ", ".join(keys) or "dotted paths", "tags": ", ".join(_tagged(node))}


def _path_in_file(steps: list[str], schema: dict[str, Any]) -> list[str]:
    """Return a location without the tags that pydantic adds and the file does not contain."""
    parent = schema
    path = []
    for step, node in _walk(steps, schema):
        if step not in _UNTAGGED and step not in _tagged(parent):
            path.append(step)
        parent = node
    return path


def _walk(steps: list[str], schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each step of a location with the schema node below it."""
    node = schema
    for step in steps:
        if step in _MAPPING.values():
            node = next(member for member in node.get("oneOf", [{}]) if "type" not in member)
        # An untagged alternative keeps the parent's node, so that the keys of all are listed.
        elif step not in _UNTAGGED:
            node = _schema_below(node, step)
        if "$ref" in node:
            node = _definition(schema, node)
        yield step, node


def _schema_below(node: dict[str, Any], step: str) -> dict[str, Any]:
    if step in _tagged(node):
        return {"$ref": _tagged(node)[step]}
    below = node.get("properties", {}).get(step, node.get("additionalProperties"))
    return below if isinstance(below, dict) else {}


def _tagged(node: dict[str, Any]) -> dict[str, str]:
    mapping: dict[str, str] = node.get("discriminator", {}).get("mapping", {})
    return mapping


def _definition(schema: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    definition: dict[str, Any] = schema["$defs"][reference["$ref"].rpartition("/")[2]]
    return definition
