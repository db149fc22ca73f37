"""Type of the small prepared text that many tests share."""

import shutil
from pathlib import Path
from typing import NamedTuple

from lab.config.data import DataConfig
from lab.data.batches import Corpus


class PreparedText(NamedTuple):
    """A prepared text.

    Attributes:
        data: settings of the text.
        text: folder of the text.
        corpus: opened text.
    """

    data: DataConfig
    text: Path
    corpus: Corpus


def copy_held_out(held_out: Path, cache: Path) -> None:
    """Copy held-out corruptions with their index file to another cache."""
    for file in held_out.parent.iterdir():
        shutil.copy(file, cache)
