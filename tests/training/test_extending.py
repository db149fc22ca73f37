"""The worked example of docs/extending.md: a new objective passes the conformance suite."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from project import ROOT

CONFIG = "lab/config/objectives/__init__.py"
MODULES = "lab/training/objectives/__init__.py"
MEMBERS = "tests/support/members.py"


def blocks() -> dict[str, str]:
    """Return the titled blocks of code of the page, by their title."""
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    found = re.findall(
        r'^ *```python title="([^"]+)"\n(.*?)^ *```$', page, re.DOTALL | re.MULTILINE
    )
    return {title: textwrap.dedent(code) for title, code in found}


def insert(file: Path, *, after: str, line: str) -> None:
    """Insert text after the first line that begins with `after`."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    place = next(n for n, one in enumerate(lines) if one.startswith(after))
    file.write_text("".join([*lines[: place + 1], line, *lines[place + 1 :]]), encoding="utf-8")


@pytest.fixture
def extended(tmp_path: Path) -> Path:
    """Return a copy of code and tests with the page's objective in it."""
    # The copies keep their times of modification, so that the compiled modules are valid.
    shutil.copytree(ROOT / "lab", tmp_path / "lab", ignore=shutil.ignore_patterns("text"))
    (tmp_path / "lab" / "text").symlink_to(ROOT / "lab" / "text")
    for folder in ("support", "training"):
        shutil.copytree(ROOT / "tests" / folder, tmp_path / "tests" / folder)
    for file in ("tests/conftest.py", "pyproject.toml"):
        shutil.copy2(ROOT / file, tmp_path / file)
    written = blocks()
    for name, code in written.items():
        if name != MEMBERS:
            (tmp_path / name).write_text(code, encoding="utf-8")
    config = "from lab.config.objectives.z_loss import ZLossMlmConfig\n"
    insert(tmp_path / CONFIG, after="from lab.config.objectives.random", line=config)
    insert(
        tmp_path / CONFIG,
        after="    | RandomReplacementConfig",
        line="    | ZLossMlmConfig\n",
    )
    module = "from lab.training.objectives.z_loss import ZLossMlm\n"
    insert(tmp_path / MODULES, after="from lab.training.objectives.random", line=config + module)
    entry = "    ZLossMlmConfig: ZLossMlm,\n"
    insert(tmp_path / MODULES, after="    RandomReplacementConfig: Random", line=entry)
    insert(tmp_path / MEMBERS, after="from lab.config.objectives.random", line=config)
    member = textwrap.indent(written[MEMBERS], "    ")
    insert(tmp_path / MEMBERS, after="MEMBERS = (", line=member)
    return tmp_path


def test_example_of_the_documentation_conforms(extended: Path) -> None:
    tests = extended / "tests" / "training"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("-k", "z_loss_mlm or every_objective"),
            str(tests / "test_conformance.py"),
            str(tests / "test_conformance_runs.py"),
        ],
        cwd=extended,
        env={
            **os.environ,
            "PYTHONPATH": str(extended),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d{2,} passed", done.stdout, re.MULTILINE), done.stdout
