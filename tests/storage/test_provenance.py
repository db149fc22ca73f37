"""Provenance of a record: it names the code that computed, and is never rewritten."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from project import ROOT

from lab.config.code_digest import TRIAL, digest
from lab.storage import provenance
from lab.storage.provenance import Provenance, add_provenance, current_provenance, read_provenance

SHOW = """
import json
from dataclasses import asdict
from lab.storage.provenance import current_provenance
print(json.dumps([asdict(current_provenance())]))
"""
EXAMPLE = Provenance(
    code="0123456789ab",
    version="0.3.0",
    commit="c0ffee",
    dirty=True,
    python="3.11.0",
    torch="2.9.0",
    machine="a machine",
    packages={"torch": "2.9.0"},
    diff="--- a\n+++ b\n",
)


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a git checkout with a copy of the package, below a folder of other files."""
    folder = tmp_path / "checkout"
    ignored = shutil.ignore_patterns("text", "__pycache__")
    shutil.copytree(ROOT / "lab", folder / "code" / "lab", ignore=ignored)
    (folder / ".gitignore").write_text("__pycache__\n")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "First")
    return folder


def show(folder: Path) -> Provenance:
    """Return the provenance of a new process that imports the package from a folder."""
    done = subprocess.run(
        [sys.executable, "-c", SHOW], capture_output=True, text=True, check=True,
        cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)},
    )  # fmt: skip
    (entry,) = provenance.parse_provenance(done.stdout)
    return entry


def test_changes_outside_the_package_are_not_changes_of_the_code(checkout: Path) -> None:
    notes = checkout / "code" / "notes.txt"
    notes.write_text("first\n", encoding="utf-8")
    git(checkout, "add", str(notes))
    entry = show(checkout / "code")
    assert (entry.dirty, entry.diff) == (False, "")


def test_commit_and_patch_reproduce_the_code(checkout: Path, tmp_path: Path) -> None:
    clean = show(checkout / "code")
    assert (clean.commit, clean.dirty, clean.diff) == (
        git(checkout, "rev-parse", "HEAD"),
        False,
        "",
    )
    git(checkout, "config", "color.ui", "always")
    package = checkout / "code" / "lab"
    with (package / "training" / "optimizer.py").open("a", encoding="utf-8") as file:
        file.write("\nCHANGED = 'ü'")  # without a line feed at the end
    (package / "training" / "new file.py").write_text("NEW = 1\n")
    changed = show(checkout / "code")
    assert (changed.commit, changed.dirty) == (clean.commit, True)
    assert changed.code == digest(package, TRIAL) != clean.code
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(checkout), str(clone))
    (tmp_path / "patch").write_text(changed.diff, encoding="utf-8")
    git(clone, "apply", str(tmp_path / "patch"))
    assert digest(clone / "code" / "lab", TRIAL) == changed.code


def test_code_outside_git_has_no_commit(checkout: Path) -> None:
    shutil.rmtree(checkout / ".git")
    entry = show(checkout / "code")
    assert (entry.commit, entry.dirty, entry.diff) == ("none", False, "")


def test_entry_is_added_once(tmp_path: Path) -> None:
    assert read_provenance(tmp_path) == ()
    add_provenance(tmp_path, EXAMPLE)
    before = (tmp_path / "provenance.json").stat().st_mtime_ns
    add_provenance(tmp_path, EXAMPLE)
    assert (tmp_path / "provenance.json").stat().st_mtime_ns == before
    other = replace(EXAMPLE, commit="decade")
    add_provenance(tmp_path, other, EXAMPLE)
    assert read_provenance(tmp_path) == (EXAMPLE, other)


@pytest.mark.parametrize("text", ["", "[{", "{}", "[1]", '[{"commit": "c0ffee"}]'])
def test_damaged_provenance_counts_as_missing(tmp_path: Path, text: str) -> None:
    (tmp_path / "provenance.json").write_text(text)
    assert read_provenance(tmp_path) == ()


def test_provenance_names_the_installed_packages() -> None:
    entry = current_provenance()
    assert entry.torch == entry.packages["torch"]
    assert entry.python == ".".join(map(str, sys.version_info[:3]))
    assert json.dumps(entry.packages)
