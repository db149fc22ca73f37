"""Why a search space is refused, in one line for a person.

pydantic finds what is wrong; here its findings become words: the dotted path, what is wrong,
what is allowed (which the JSON Schema knows), what was given.
"""

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lab.config.ramps import TAGS
from lab.errors import UserError


class SpaceError(UserError):
    """A search space that cannot be run; the message is one line for a person."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def one_line(error: ValidationError, prefix: str, schema: dict[str, Any]) -> str:
    """Say the first thing that is wrong, and how many more there are.

    Args:
        error: what pydantic found.
        prefix: dotted path of what was validated; empty for the whole file.
        schema: the JSON Schema of a search space, which knows what is allowed.
    """
    # A misspelt key is often also a missing one, and the misspelling says more.
    found = error.errors(include_url=False)
    first = next((one for one in found if one["type"] == "unexpected_keyword_argument"), found[0])
    steps = ([prefix] if prefix else []) + [str(step) for step in first["loc"]]
    kind = ["kind"] if first["type"].startswith("union_tag") else []
    path = ".".join([*_in_the_file(steps, schema), *kind]) or "the file"
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{path}: {_plain(first, steps, schema)}{more}"


_NUMBER, _RAMP = TAGS
# Told apart by their keys or types, so the schema has no tags for them.
_UNTAGGED = {"Range", "Choices", "GeneratorConfig", "FrozenGeneratorConfig", *TAGS}

# What is wrong and what is allowed, by pydantic's name; `_MUST` also shows what was given.
_SAYS = {
    "unexpected_keyword_argument": "unknown key; allowed: {keys}",
    "missing": "required, and missing",
    "union_tag_not_found": "required, and missing; one of {tags}",
    "too_short": "needs at least one value",
    "string_too_short": "must not be empty",
}
# Keys of version 0.2.0 and their present names.
_RENAMED = {
    "curve": "evaluations",
    "networks": "clip_scope",
    "form": "normalization",
    "law": "replacement_distribution",
}
_COUNTED = {"too_short": "values", "string_too_short": "characters"}
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


def _plain(error: ErrorDetails, steps: list[str], schema: dict[str, Any]) -> str:
    """Return what is wrong, what is allowed and what was given, in a person's words."""
    kind, context = error["type"], error.get("ctx", {})
    words = (_SAYS | _MUST).get(kind)
    if context.get("min_length", 1) > 1:
        return f"needs at least {context['min_length']} {_COUNTED[kind]}"
    if words is None:
        return error["msg"].removeprefix("Value error, ")
    holder = steps[:-1] if kind == "unexpected_keyword_argument" else steps
    limits = {key: _bare(value) for key, value in context.items()}
    allowed = _allowed_at(holder, schema)
    if holder is not steps and (new := _RENAMED.get(steps[-1], "")) in allowed["keys"].split(", "):
        return f"unknown key; version 0.3.0 names it {new}"
    said = words.format(**allowed, **limits)
    if holder[-1:] == [_NUMBER] and kind in ("float_type", "int_type"):
        said += " or a mapping with {keys}".format(**_allowed_at([*steps[:-1], _RAMP], schema))
    return said if kind in _SAYS else f"{said}, not {_shown(context.get('tag', error['input']))}"


def _bare(value: object) -> object:
    """Turn pydantic's "'a', 'b' or 'c'" into "a, b, c"."""
    return value.replace("'", "").replace(" or ", ", ") if isinstance(value, str) else value


def _shown(given: object) -> str:
    match given:
        case None:
            return "null"
        case bool():
            return str(given).lower()
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return repr(given) if len(repr(given)) <= 60 else f"{repr(given)[:60]}..."


def _allowed_at(steps: list[str], schema: dict[str, Any]) -> dict[str, str]:
    """Return the `keys` and the `tags` of members that the schema allows at a location."""
    node = schema
    for _, node in _walk(steps, schema):  # noqa: B007 - the last one is wanted
        pass
    members = [_definition(schema, one) for one in node.get("oneOf", []) if "$ref" in one]
    keys = dict.fromkeys(key for one in (node, *members) for key in one.get("properties", {}))
    return {"keys": ", ".join(keys) or "dotted paths", "tags": ", ".join(_tagged(node))}


def _in_the_file(steps: list[str], schema: dict[str, Any]) -> list[str]:
    """Leave out what pydantic puts into a location and the file does not have: members' tags."""
    before = schema
    path = []
    for step, node in _walk(steps, schema):
        if step not in _UNTAGGED and step not in _tagged(before):
            path.append(step)
        before = node
    return path


def _walk(steps: list[str], schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each step of a location with the schema's node below it."""
    node = schema
    for step in steps:
        if step == _RAMP:
            node = next(member for member in node.get("oneOf", [{}]) if "type" not in member)
        elif step not in _UNTAGGED:  # whoever got one of them wrong may mean the other
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
