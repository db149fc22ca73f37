"""The classes of `lab.config` behind a search space: their descriptions and defaults.

Descriptions are those of the docstrings, with one entry under `Attributes` for each key.
"""

import inspect
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import Any

from lab.config.base import StrictConfig
from lab.loading import markdown


@cache
def classes_by_name() -> Mapping[str, type]:
    """Return the classes that a search space or a task file can spell out, by name."""
    found: dict[str, type] = {}
    waiting: list[type] = [StrictConfig]
    for one in waiting:  # the list grows in the loop
        found[one.__name__] = one
        waiting += one.__subclasses__()
    return found


def description(owner: type) -> list[str]:
    """Return the paragraphs of a class's docstring above its attributes, an empty line between."""
    text = inspect.cleandoc(owner.__doc__ or "").partition("\nAttributes:\n")[0]
    paragraphs = [markdown.escape(" ".join(one.split())) for one in text.strip().split("\n\n")]
    return [line for one in paragraphs for line in (one, "")][:-1]


def attribute_texts(owner: type) -> dict[str, str]:
    """Return the `Attributes` entries of a class and its bases, by attribute."""
    found: dict[str, str] = {}
    for one in reversed(owner.__mro__):
        entries = inspect.cleandoc(one.__doc__ or "").partition("\nAttributes:\n")[2]
        for entry in re.split(r"\n(?=    \S)", f"\n{entries}"):
            name, colon, text = entry.strip().partition(":")
            if colon:
                found[name] = " ".join(text.split())
    return found


def defaults(owner: type) -> dict[str, Any]:
    """Return the defaults of a dataclass, by field."""
    found = {}
    for each in fields(owner):
        if each.default is not MISSING:
            found[each.name] = each.default
        elif each.default_factory is not MISSING:
            found[each.name] = each.default_factory()
    return found
