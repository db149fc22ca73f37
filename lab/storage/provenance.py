"""Provenance of a trial's numbers: the code, the packages and the machine that computed them.

Each process that trains or fine-tunes a trial adds an entry to `provenance.json` in the trial's
record, before it computes. Nothing else writes the file, so it stays as it is when the sweep is
run again after the trial has ended.
"""

import json
import os
import platform
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path as File
from typing import Any

from lab import __version__
from lab.config.code_digest import TRIAL, code_digest
from lab.storage import regular_files, sealed

NAME = "provenance.json"
_ENTRIES = "entries"
_PACKAGE = File(__file__).parent.parent


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Code, packages and machine of one process.

    Attributes:
        code: digest of the code that determines a trial's numbers (`lab.config.code_digest`).
        version: version of the lab.
        commit: hash of the checked-out commit; `none` outside a git checkout.
        dirty: whether the code differs from the commit.
        python: version of Python.
        torch: version of torch.
        machine: processor, number of available cores and operating system.
        packages: versions of the installed distributions by name.
        diff: difference between the code and its commit, as a patch; empty outside git.
        threads: threads that torch uses for one operation; None for a process that computes no
            trial, and in records of versions that did not store it.
    """

    code: str
    version: str
    commit: str
    dirty: bool
    python: str
    torch: str
    machine: str
    packages: dict[str, str]
    diff: str
    threads: int | None = None


@cache
def current_provenance() -> Provenance:
    """Return the provenance of this process.

    It is determined once in a process, because a process does not import changed files again.
    """
    commit = _git("rev-parse", "HEAD").strip()
    diff = _uncommitted_changes() if commit else ""
    return Provenance(
        code=code_digest(TRIAL),
        version=__version__,
        commit=commit or "none",
        dirty=bool(diff),
        python=platform.python_version(),
        torch=metadata.version("torch"),
        machine=f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {platform.system()}",
        packages=_installed_packages(),
        diff=diff,
    )


def add_provenance(folder: File, *added: Provenance) -> None:
    """Add entries to the provenance in a record, unless it has equal ones.

    Args:
        folder: folder of the record.
        added: provenance of the processes that compute the trial's numbers.
    """
    entries = read_provenance(folder)
    new = [entry for entry in added if entry not in entries]
    if new:
        content = {_ENTRIES: [asdict(entry) for entry in (*entries, *new)]}
        sealed.write(folder / NAME, content, indent=2)


def read_provenance(folder: File) -> tuple[Provenance, ...]:
    """Return the entries of a record in the order in which they were added.

    Empty before the trial has started, and if the file is missing or damaged.
    """
    file = folder / NAME
    with suppress(OSError, ValueError, TypeError, KeyError):
        try:
            return _build_entries(sealed.read(file)[_ENTRIES])
        except sealed.DamagedError:  # earlier versions wrote a list, without a seal
            return parse_provenance(regular_files.read_text(file))
    return ()


def parse_provenance(text: str) -> tuple[Provenance, ...]:
    """Return the entries of the content of a `provenance.json`.

    Raises:
        ValueError: the text is not JSON.
        TypeError: the text is not a list of entries.
    """
    return _build_entries(json.loads(text))


def _build_entries(content: Iterable[Any]) -> tuple[Provenance, ...]:
    return tuple(Provenance(**fields) for fields in content)


def _installed_packages() -> dict[str, str]:
    installed = {each.name: each.version for each in metadata.distributions() if each.name}
    return {name: installed[name] for name in sorted(installed, key=str.lower)}


def _uncommitted_changes() -> str:
    """Return the changes of the package's files as a patch; untracked files are included.

    Other files, for example reports, are left out: they do not change a trial's numbers.
    """
    untracked = _git("ls-files", "--others", "--exclude-standard", "-z", "--", str(_PACKAGE))
    files = [name for name in untracked.split("\0") if name]
    new = (_git("diff", *_PLAIN, "--no-index", "--", os.devnull, name) for name in files)
    return "".join((_git("diff", *_PLAIN, "HEAD", "--", str(_PACKAGE)), *new))


_PLAIN = ("--no-color", "--no-ext-diff", "--no-textconv")  # whatever the user's settings are


def _git(*arguments: str) -> str:
    """Return the output of a git command at the root of the checkout; empty without a checkout."""
    # A copy in site-packages may be inside the checkout of another project, and that project's
    # commit is not the commit of this code.
    if "site-packages" in _PACKAGE.parts:
        return ""
    root = _run_git(_PACKAGE, "rev-parse", "--show-toplevel").rstrip("\n")
    return _run_git(File(root), *arguments) if root else ""


def _run_git(folder: File, *arguments: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", "-C", str(folder), *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (
        done.stdout if done.returncode <= 1 else ""
    )  # 1: `git diff --no-index` found a difference


def _processor() -> str:
    try:
        lines = File("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
