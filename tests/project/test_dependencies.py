"""Every package that the code imports is declared, and nothing else is."""

import ast
import re
import sys
import tomllib
from importlib import metadata

from project import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def plain(requirement: str) -> str:
    """Return a distribution's normalised name."""
    name = re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def imports() -> set[str]:
    found: set[str] = set()
    for file in (ROOT / "lab").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.Import(names=names):
                    found |= {name.name.partition(".")[0] for name in names}
                case ast.ImportFrom(module=str(module), level=0):
                    found.add(module.partition(".")[0])
    return found - sys.stdlib_module_names - {"lab"}


def test_every_import_is_declared_and_every_declared_distribution_imported() -> None:
    providers = {
        name: {plain(provider) for provider in found}
        for name, found in metadata.packages_distributions().items()
    }
    declared = {plain(requirement) for requirement in PROJECT["dependencies"]}
    used = {name: providers[name] & declared for name in imports()}
    assert [name for name, found in used.items() if not found] == [], "imported, not declared"
    unused = declared - set().union(*used.values())
    assert unused == {"zstandard"}, "declared, never imported; datasets opens .zst with that one"
