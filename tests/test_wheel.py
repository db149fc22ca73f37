"""What is installed is what works: the package alone, elsewhere, with what it says it needs."""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SMALL = {
    "base.data": "{share: 0.01, held_out: 0.1, vocab: 400, length: 32}",
    "base.batch": 32,
    "base.budget.amount": "3e10",
    "base.curve": 1,
    "compare.objective.generator.width": "[0.5]",
    "search.seeds": 1,
    "resources.slots": 1,
}


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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy, since building leaves folders beside the sources."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    shutil.copytree(ROOT / "lab", source / "lab", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", PROJECT["readme"], *PROJECT["license-files"]):
        shutil.copy(ROOT / name, source)
    # Without isolation, nothing is downloaded; with it, pip fetches setuptools itself.
    there = importlib.util.find_spec("setuptools") is not None
    enough = there and int(metadata.version("setuptools").partition(".")[0]) >= 77
    isolation = ["--no-build-isolation"] if enough else []
    pip("wheel", str(source), "--no-deps", *isolation, "--wheel-dir", str(built))
    (made,) = built.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    pip("install", str(wheel), "--no-deps", "--no-index", "--target", str(folder))
    return folder


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_wheel_holds_code_text_templates_and_licenses(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
    kept = [
        path
        for path in (ROOT / "lab").rglob("*")
        if path.suffix in {".py", ".xz", ".jinja"} or path.name == "py.typed"
    ]
    assert any(path.suffix == ".xz" for path in kept)
    assert {str(path.relative_to(ROOT)) for path in kept} <= names
    assert not [name for name in names if name.startswith(("tests", "search_spaces", "reports"))]
    assert {Path(name).name for name in names} >= {"LICENSE", "NOTICE", "py.typed"}


@pytest.mark.slow
def test_installed_package_runs_a_sweep_from_another_folder(site: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    shutil.copy(ROOT / "search_spaces" / "smoke.yaml", tmp_path)

    def python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            timeout=540,
            check=False,
            cwd=tmp_path,
            env=environment,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = Path(python("-c", "import lab; print(lab.__file__)").strip())
    assert where.is_relative_to(site)
    overrides = [part for item in SMALL.items() for part in ("--set", "{}={}".format(*item))]
    said = python("-m", "lab.sweep", "smoke.yaml", *overrides)
    assert "[1/1] finished" in said
    report = tmp_path / "reports" / "smoke"
    assert {path.name for path in report.iterdir()} >= {"report.html", "report.md", "trials.csv"}
    # Not the commit of whatever checkout lies around: an installed copy has none.
    assert re.search(r"(?m)^- commit: none$", (report / "report.md").read_text())
