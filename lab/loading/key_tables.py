"""Markdown tables of all keys below a class: one section for each path, one row for each key."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from itertools import chain
from typing import Any, NamedTuple

from lab.config.architecture import EncoderConfig
from lab.loading import config_classes, markdown, schema_words
from lab.loading.schema_words import Node

_COLUMNS = ("key", "type", "range", "default", "description")


class Section(NamedTuple):
    """A heading of the page with the classes that its path may hold.

    Attributes:
        path: dotted path of the keys' mapping.
        members: names of the classes, more than one where the mapping is of one of several kinds.
    """

    path: str
    members: tuple[str, ...]


class Row(NamedTuple):
    """One key.

    Attributes:
        key: name of the key.
        type: type of its value.
        range: limits of its value.
        default: value if the key is left out.
        text: description.
    """

    key: str
    type: str
    range: str
    default: str
    text: str


class KeyTables:
    """Markdown tables of all keys below one class.

    Args:
        schema: JSON Schema with the definitions of all classes, by name.
        top: path and node of the sections to begin with; classes are listed where they occur
            first.
    """

    def __init__(self, schema: Node, top: Sequence[tuple[str, Node]]) -> None:
        self._definitions: dict[str, Node] = schema["$defs"]
        self._headings: dict[str, str] = {}
        self._sections = list(self._collect(list(top)))

    def lines(self, below: str) -> Iterator[str]:
        """Yield the headings and tables of all sections below the path `below`."""
        for section in self._sections:
            if section.path == below or section.path.startswith(f"{below}."):
                yield from self._section(section)

    def table(self, properties: Node, owner: type, required: Sequence[str]) -> Iterator[str]:
        """Yield a table with a row for each property of a class."""
        yield from markdown.table(_COLUMNS, self._rows(properties, owner, required))

    def _collect(self, waiting: list[tuple[str, Node]]) -> Iterator[Section]:
        """Yield the sections in breadth-first order; a class belongs to the first one only."""
        for path, node in waiting:  # the list grows in the loop
            names = [
                name for name in schema_words.references(node) if not schema_words.is_ramp(name)
            ]
            new = tuple(name for name in names if name not in self._headings)
            if not new:
                continue
            for name in new:
                self._headings[name] = self._heading(path, name, names)
                for key, inner in self._properties(name).items():
                    waiting.append((f"{path}.{key}{schema_words.suffix(inner)}", inner))
            yield Section(path, new)

    def _heading(self, path: str, name: str, names: Sequence[str]) -> str:
        if kind := self._kind(name):
            return f"`{path}` with kind `{kind}`"
        if len(names) == 1:
            return f"`{path}`"
        if kinds := self._definitions[name]["properties"].get("kind", {}).get("enum"):
            *first, last = (f"`{each}`" for each in kinds)
            return f"`{path}` with kind {', '.join(first)} or {last}"
        if any(self._kind(other) for other in names):
            return f"`{path}` without kind"
        return f"`{path}` as {_plain_name(name)}"

    def _kind(self, name: str) -> str:
        """Return the value of `kind` that selects a class; empty if none does."""
        kind = self._definitions[name]["properties"].get("kind", {})
        return str(kind.get("const", ""))

    def _properties(self, name: str) -> Node:
        properties: Node = self._definitions[name]["properties"]
        return {key: node for key, node in properties.items() if "const" not in node}

    def _section(self, section: Section) -> Iterator[str]:
        if len(section.members) == 1:
            name = section.members[0]
            yield from self._member(name, "##", self._member_rows(name))
            return
        by_kind = " by its `kind`" if any(map(self._kind, section.members)) else ""
        yield from ("", f"## `{section.path}`", "", f"One of the following, chosen{by_kind}.")
        rows = self._described(section.members)
        shared = self._shared(rows)
        if shared:
            yield from ("", "Keys of several kinds:", "")
            head = ("key", "kinds", "type", "range", "default", "description")
            yield from markdown.table(
                head, [(row.key, kinds, *row[1:]) for row, kinds in shared.items()]
            )
        for name in section.members:
            own = [row for row in rows[name] if row not in shared]
            yield from self._member(name, "###", own)

    def _member(self, name: str, level: str, rows: Sequence[Row]) -> Iterator[str]:
        """Yield heading, description and table of one class."""
        yield from (
            "",
            f"{level} {self._headings[name]}",
            "",
            *config_classes.description(config_classes.classes_by_name()[name]),
        )
        if rows:
            yield from ("", *markdown.table(_COLUMNS, rows))
        elif not self._properties(name):
            yield from ("", "It has no other keys.")

    def _described(self, names: Sequence[str]) -> dict[str, list[Row]]:
        """Return the rows of several kinds; a key without a description has that of another."""
        rows = {name: self._member_rows(name) for name in names}
        texts: dict[str, str] = {}
        for row in chain.from_iterable(rows.values()):
            texts[row.key] = texts.get(row.key) or row.text
        return {
            name: [row._replace(text=row.text or texts[row.key]) for row in own]
            for name, own in rows.items()
        }

    def _shared(self, rows: Mapping[str, Sequence[Row]]) -> dict[Row, str]:
        """Return the rows that several classes have, each with the kinds that have it."""
        owners: dict[Row, list[str]] = {}
        for name, own in rows.items():
            for row in own:
                owners.setdefault(row, []).append(f"`{self._kind(name)}`")
        return {
            row: "all" if len(kinds) == len(rows) else ", ".join(kinds)
            for row, kinds in owners.items()
            if len(kinds) > 1
        }

    def _member_rows(self, name: str) -> list[Row]:
        required = self._definitions[name].get("required", ())
        return self._rows(self._properties(name), config_classes.classes_by_name()[name], required)

    def _rows(self, properties: Node, owner: type, required: Sequence[str]) -> list[Row]:
        texts, defaults = config_classes.attribute_texts(owner), config_classes.defaults(owner)
        rows = []
        for key, node in properties.items():
            default = "required"
            if key not in required:
                default = self._default(key, node, owner, defaults)
            text = texts.get(key) or node.get("description") or self._summary(node)
            rows.append(
                Row(
                    f"`{key}`",
                    self._type(node),
                    schema_words.limits(node),
                    default,
                    markdown.escape(text),
                )
            )
        return rows

    def _default(self, key: str, node: Node, owner: type, defaults: Mapping[str, Any]) -> str:
        """Return the value of a key that is left out, in words."""
        if owner is EncoderConfig and key not in defaults:
            return "none" if key == "size" else "that of `size`"
        value = node.get("default", defaults.get(key))
        if value is None and "$ref" in node:
            return "its defaults"
        if is_dataclass(value):
            kind = getattr(value, "kind", "")
            return f"`{{kind: {kind}}}`" if kind else "its defaults"
        return "none" if value in (None, "", (), []) else markdown.value(value)

    def _summary(self, node: Node) -> str:
        """Return the first line of the class that a key holds, if it holds one class."""
        names = schema_words.references(node)
        return (
            config_classes.description(config_classes.classes_by_name()[names[0]])[0]
            if len(names) == 1
            else ""
        )

    def _type(self, node: Node) -> str:
        names = [name for name in schema_words.references(node) if not schema_words.is_ramp(name)]
        if names:
            alternatives = (*node.get("oneOf", ()), *node.get("anyOf", ()))
            words = [
                schema_words.scalar_type(one)
                for one in alternatives
                if "enum" in one or one.get("type") == "number"
            ]
            links = ", ".join([*words, *(self._link(name, names) for name in names)])
            return f"list of {links}" if node.get("type") == "array" else links
        return schema_words.scalar_type(node)

    def _link(self, name: str, names: Sequence[str]) -> str:
        heading = self._headings[name]
        words = self._kind(name) or ("mapping" if len(names) == 1 else _plain_name(name))
        return f"[{words}](#{markdown.slug(heading)})"


def _plain_name(name: str) -> str:
    return name.removesuffix("Config").lower()
