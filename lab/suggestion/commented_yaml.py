"""Write YAML with a comment above each setting."""

import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

_WIDTH = 100


@dataclass(frozen=True, kw_only=True)
class Section:
    """A setting and the reason for its value.

    Attributes:
        value: plain data, written in one line, or a mapping of further sections.
        because: the reason, written as a comment above the setting; empty for no comment.
    """

    value: object
    because: str = ""


def write_commented(sections: Mapping[str, Section], heading: str = "") -> str:
    """Return the text of a YAML document, with the keys in the order of `sections`.

    Args:
        sections: settings by key.
        heading: comment at the top of the document; empty for none.
    """
    head = [*_comment(heading, 0), ""] if heading else []
    return "\n".join([*head, *_lines(sections, 0)]) + "\n"


def to_plain(sections: Mapping[str, Section]) -> dict[str, Any]:
    """Return the document as plain data, equal to the parsed text of `write_commented`."""
    return {key: _plain(section.value) for key, section in sections.items()}


def _plain(value: object) -> object:
    if isinstance(value, dict) and any(isinstance(inner, Section) for inner in value.values()):
        return to_plain(value)
    return value


def _lines(sections: Mapping[str, Section], indent: int) -> Iterator[str]:
    margin = " " * indent
    for number, (key, section) in enumerate(sections.items()):
        if number and section.because and not indent:
            yield ""
        yield from _comment(section.because, indent)
        if isinstance(section.value, dict) and _plain(section.value) is not section.value:
            yield f"{margin}{_scalar(key)}:"
            yield from _lines(section.value, indent + 2)
        else:
            yield f"{margin}{_scalar(key)}: {_flow(section.value)}"


def _comment(text: str, indent: int) -> Iterator[str]:
    margin = " " * indent + "#"
    for line in text.splitlines():
        wrapped = textwrap.wrap(line, _WIDTH - indent - 2, break_on_hyphens=False)
        yield from (f"{margin} {part}".rstrip() for part in wrapped or [""])


def _flow(value: object) -> str:
    written = yaml.dump(
        value,
        Dumper=_Dumper,
        default_flow_style=True,
        allow_unicode=True,
        width=2**20,
        sort_keys=False,
    )
    return written.removesuffix("\n").removesuffix("\n...")


_scalar = _flow


class _Dumper(yaml.SafeDumper):
    """A dumper that writes 5e12 for 5e+12, and repeats equal objects instead of using aliases."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


def _number(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    text = f"{value:g}" if float(f"{value:g}") == value else repr(value)
    text = re.sub(r"e([+-])0*", lambda match: "e" + match[1].replace("+", ""), text)
    text += ".0" if text.lstrip("-").isdigit() else ""
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


_Dumper.add_representer(float, _number)
_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^-?\d+(\.\d+)?(e-?\d+)?$"), list("-0123456789")
)
