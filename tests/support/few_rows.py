"""A copy of the package with few rows in its labelled tasks, for sweeps in other processes."""

import json
import lzma
import shutil
from pathlib import Path

from project import ROOT

# Numbers of sentences of each split, about as many as with the fixture `few_sentences`.
ROWS = {"brown_pos": 100, "movie_reviews": 200}


def copy_with_few_rows(folder: Path) -> None:
    """Copy the package `lab` to a folder and remove most rows of its labelled tasks.

    A probe then takes tenths of a second. The code is the same, so digests of code and identities
    of trials are those of the checkout, but scores of probes are not.
    """
    # The copies of compiled files are valid, because the times of the sources are copied too.
    shutil.copytree(ROOT / "lab", folder / "lab")
    tasks = folder / "lab" / "text" / "tasks"
    assert {file.name for file in tasks.iterdir()} == {f"{name}.jsonl.xz" for name in ROWS}
    for name, number in ROWS.items():
        file = tasks / f"{name}.jsonl.xz"
        splits: dict[str, list[bytes]] = {}
        for row in lzma.decompress(file.read_bytes()).splitlines(keepends=True):
            splits.setdefault(json.loads(row)["split"], []).append(row)
        assert all(len(rows) > number for rows in splits.values()), "no row would be removed"
        few = [row for rows in splits.values() for row in rows[:: len(rows) // number][:number]]
        file.write_bytes(lzma.compress(b"".join(few), preset=0))
