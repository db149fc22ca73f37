"""The declared dependencies are exactly the packages that the code imports."""

import ast
import re
import sys
import tomllib
from importlib import metadata

from project import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def normalized_name(requirement: str) -> str:
    """Return the normalized name of a requirement's distribution."""
    name = re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def imported_packages() -> set[str]:
    """Return the top-level packages that the code imports, without the standard library."""
    packages: set[str] = set()
    for file in (ROOT / "lab").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.Import(names=names):
                    packages |= {name.name.partition(".")[0] for name in names}
                case ast.ImportFrom(module=str(module), level=0):
                    packages.add(module.partition(".")[0])
    return packages - sys.stdlib_module_names - {"lab"}


def test_every_import_is_declared_and_every_declared_distribution_imported() -> None:
    providers = {
        name: {normalized_name(distribution) for distribution in distributions}
        for name, distributions in metadata.packages_distributions().items()
    }
    declared = {normalized_name(requirement) for requirement in PROJECT["dependencies"]}
    used = {name: providers[name] & declared for name in imported_packages()}
    assert [name for name, declarations in used.items() if not declarations] == [], "not declared"
    unused = declared - set().union(*used.values())
    assert unused == {"zstandard", "plotly"}, (
        "declared, but not imported; only datasets imports zstandard, for .zst files, and reports "
        "read the script of plotly as a resource"
    )
