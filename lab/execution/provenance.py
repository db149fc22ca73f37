"""Provenance of results: version of the code, installed packages and machine."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path as File

from lab import __version__
from lab.tracking import tags


def code_and_machine() -> dict[str, str]:
    """Return the versions of code, Python and torch, the commit and the machine, by tag.

    `commit` is `none` outside a git checkout. `dirty` is `true` where tracked files differ from it.
    """
    commit = _git("rev-parse", "HEAD")
    return {
        tags.VERSION: __version__,
        tags.COMMIT: commit or "none",
        tags.DIRTY: str(
            bool(commit and _git("status", "--porcelain", "--untracked-files=no"))
        ).lower(),
        tags.PYTHON: platform.python_version(),
        tags.TORCH: metadata.version("torch"),
        tags.MACHINE: f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {platform.system()}",
    }


def uncommitted_diff() -> str:
    """Return the difference between the code and its commit, as a patch; empty outside git."""
    return _git("diff", "HEAD")


def installed_packages() -> str:
    """Return the installed distributions, one `name==version` per line."""
    installed = {d.name: d.version for d in metadata.distributions() if d.name}
    return "".join(f"{name}=={installed[name]}\n" for name in sorted(installed, key=str.lower))


def _git(*arguments: str) -> str:
    here = File(__file__).parent
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", "-C", str(here), *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    # A copy in site-packages may be inside the checkout of another project, and that project's
    # commit is not the commit of this code.
    in_checkout = "site-packages" not in here.parts
    return done.stdout.strip() if in_checkout and done.returncode == 0 else ""


def _processor() -> str:
    try:
        lines = File("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
