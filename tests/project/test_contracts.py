"""Each import contract detects an import that violates it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from project import ROOT

# By contract: a file and an import in it that violates the contract.
VIOLATIONS = {
    "Packages import in one direction": ("config/budget.py", "import lab.training.model"),
    "Only execution imports ray": ("search/search.py", "import ray"),
    "Only search imports optuna": ("reporting/stats.py", "import optuna"),
    "Only tracking and interop import mlflow": ("trials/run.py", "import mlflow"),
    "Only interop and data import transformers": ("training/model.py", "import transformers"),
    "Only data and tasks import datasets": ("evaluation/probes.py", "import datasets"),
    "Configuration imports nothing heavy": ("config/trial.py", "import numpy"),
    "Reports and the search need neither torch nor ray": ("reporting/tables.py", "import torch"),
    "Scaling laws are functions of arrays": ("scaling/law.py", "import pandas"),
}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the linter on the copy of the package in `folder`."""
    return subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a folder with a copy of the package and its contracts."""
    shutil.copytree(ROOT / "lab", tmp_path / "lab", ignore=shutil.ignore_patterns("text"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_each_contract_has_a_violation() -> None:
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    names = [
        line.partition('"')[2].rstrip('"')
        for line in settings.partition("[tool.importlinter]")[2].splitlines()
        if line.startswith("name = ")
    ]
    assert sorted(names) == sorted(VIOLATIONS)


@pytest.mark.parametrize("contract", VIOLATIONS)
def test_violation_is_detected(contract: str, copy: Path) -> None:
    name, line = VIOLATIONS[contract]
    file = copy / "lab" / name
    file.write_text(f"{file.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")
    done = lint(copy)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{contract} BROKEN" in done.stdout


def test_module_outside_of_the_layers_is_refused(copy: Path) -> None:
    (copy / "lab" / "helpers.py").write_text('"""A module in no layer."""\n', encoding="utf-8")
    done = lint(copy)
    assert done.returncode == 1, done.stdout
    assert "Packages import in one direction BROKEN" in done.stdout
