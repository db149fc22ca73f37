"""Files of a prepared text: `text.json` has the counts, the settings and the digests of the others.

The digests are checked whenever a prepared text is opened, so that no trial reads damaged text.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path as File
from typing import Any

from lab.storage import digests
from lab.storage.digests import FileDigest

FACTS = "text.json"
_FILES = "files"  # key of the digests


def write_facts(folder: File, facts: Mapping[str, Any]) -> None:
    """Write `text.json`.

    Args:
        folder: folder of the prepared text.
        facts: counts and settings. Digests of the files in the folder are added, unless they are
            those that `read_facts` has returned.
    """
    files = {
        file.name: asdict(digests.digest_file(file))
        for file in sorted(folder.iterdir())
        if _FILES not in facts and file.name != FACTS
    }
    digests.write_json(folder / FACTS, {_FILES: files, **facts}, indent=2)


def read_facts(folder: File) -> dict[str, Any]:
    """Return the counts and settings (`text.json`) of a prepared text.

    Raises:
        DamagedFileError: the file is damaged.
    """
    facts: dict[str, Any] = digests.read_json(folder / FACTS, _remedy(folder))
    return facts


def check_files(folder: File, names: Iterable[str] | None = None) -> None:
    """Check that the files of a prepared text are as they were written.

    Args:
        folder: folder of the prepared text.
        names: names of the files to check; by default all.

    Raises:
        DamagedFileError: a file is missing or damaged.
    """
    files = read_facts(folder)[_FILES]
    expected = {
        name: FileDigest(files[name]["bytes"], tuple(files[name]["sha256"]))
        for name in (files if names is None else names)
    }
    digests.check_files(folder, expected, _remedy(folder))


def _remedy(folder: File) -> str:
    return f"delete {folder} and run the same command again, which prepares the text again"
