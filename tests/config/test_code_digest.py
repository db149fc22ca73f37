"""Digest of the code: it changes with the code that computes, and with nothing else."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from project import ROOT

from lab.config.code_digest import FINETUNING, TEXT, TRIAL, code_digest, digest

Change = Callable[[str], str]
LAB = ROOT / "lab"


def replaced(old: str, new: str) -> Change:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return change


def copy_code(folder: str, package: Path) -> None:
    """Copy a folder or module of the package, or all for an empty name, without the texts."""
    if (LAB / folder).is_file():
        package.mkdir(exist_ok=True)
        shutil.copy(LAB / folder, package)
        return
    ignored = shutil.ignore_patterns("text", "__pycache__")
    shutil.copytree(LAB / folder, package / folder, ignore=ignored)


def changed(package: Path, name: str, change: Change, folders: tuple[str, ...] = TRIAL) -> bool:
    """Return whether a change of one file changes the digest of some folders.

    The package contains the folder of the file only, because the time is that of reading the code.
    """
    copy_code(name.partition("/")[0], package)
    before, file = digest(package, folders), package / name
    file.write_text(change(file.read_text(encoding="utf-8")), encoding="utf-8")
    return digest(package, folders) != before


@pytest.mark.parametrize("folders", [TRIAL, FINETUNING], ids=["trial", "fine-tuning"])
def test_digest_does_not_depend_on_the_folder_of_the_package(
    tmp_path: Path, folders: tuple[str, ...]
) -> None:
    copy_code("", tmp_path / "lab")
    assert digest(tmp_path / "lab", folders) == code_digest(folders)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("training/objectives/electra.py", replaced("self.step_settings.disc_weight *", "1.01 *")),
        ("training/optimizer.py", replaced("3.4445", "3.5")),
        ("evaluation/scores.py", replaced("_WINDOWS = 256", "_WINDOWS = 128")),
        ("config/objectives/electra.py", replaced("50.0", "49.0")),
        ("tasks/embedded.py", lambda text: f"{text}\nUNUSED = 1\n"),
        ("tasks/minimal_pairs.py", lambda text: f"{text}\nUNUSED = 1\n"),
        ("score_blocks.py", replaced("BLOCKS = 100", "BLOCKS = 50")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_code_that_computes_changes_the_digest(tmp_path: Path, name: str, change: Change) -> None:
    assert changed(tmp_path, name, change)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("training/objectives/electra.py", lambda text: f"# A comment.\n{text}\n\n"),
        ("training/objectives/electra.py", replaced('"""Return', '"""Give')),
        ("config/objectives/generators.py", replaced("must be omitted", "omit it")),
        ("config/labels.py", lambda text: f"{text}\nUNUSED = 1\n"),
        ("reporting/stats.py", lambda text: f"{text}\nUNUSED = 1\n"),
        ("tasks/label_checks.py", lambda text: f"{text}\nUNUSED = 1\n"),
    ],
    ids=["comment", "docstring", "message", "labels", "report", "tasks of fine-tuning"],
)
def test_prose_and_other_code_do_not(tmp_path: Path, name: str, change: Change) -> None:
    assert not changed(tmp_path, name, change)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("finetuning/finetuner.py", replaced("DROPOUT = 0.1", "DROPOUT = 0.2")),
        ("finetuning/metrics.py", replaced("return ", "return 2 * ")),
        ("tasks/examples.py", lambda text: f"{text}\nUNUSED = 1\n"),
        ("training/model.py", lambda text: f"{text}\nUNUSED = 1\n"),
        ("score_blocks.py", replaced("BLOCKS = 100", "BLOCKS = 50")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_code_that_fine_tunes_changes_the_digest_of_fine_tuning_results(
    tmp_path: Path, name: str, change: Change
) -> None:
    assert changed(tmp_path, name, change, FINETUNING)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("finetuning/finetuner.py", replaced("DROPOUT = 0.1", "DROPOUT = 0.1  # in the encoder")),
        ("finetuning/results.py", lambda text: f"{text}\nUNUSED = 1\n"),
        ("trials/run.py", lambda text: f"{text}\nUNUSED = 1\n"),
    ],
    ids=["comment", "stored results", "trial"],
)
def test_other_changes_do_not_change_the_digest_of_fine_tuning_results(
    tmp_path: Path, name: str, change: Change
) -> None:
    assert not changed(tmp_path, name, change, FINETUNING)


def test_fine_tuning_code_is_no_part_of_the_digest_of_trials(tmp_path: Path) -> None:
    assert not changed(
        tmp_path, "finetuning/finetuner.py", replaced("DROPOUT = 0.1", "DROPOUT = 0.2")
    )


def test_new_module_changes_the_digest(tmp_path: Path) -> None:
    copy_code("training", tmp_path)
    before = digest(tmp_path, TRIAL)
    (tmp_path / "training" / "new.py").write_text("X = 1\n", encoding="utf-8")
    assert digest(tmp_path, TRIAL) != before


def test_digest_is_the_same_in_every_process_and_differs_between_purposes() -> None:
    code = "from lab.config.code_digest import *; print(code_digest(TRIAL), code_digest(TEXT))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [code_digest(TRIAL), code_digest(TEXT)]
    assert code_digest(TRIAL) != code_digest(TEXT)
