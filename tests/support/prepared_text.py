"""A small prepared text that many tests read."""

from pathlib import Path
from typing import NamedTuple

from lab.config.data import DataConfig
from lab.data.batches import Corpus


class PreparedText(NamedTuple):
    """A prepared text.

    Attributes:
        data: the settings that it was prepared by.
        text: its folder.
        corpus: the folder, opened.
    """

    data: DataConfig
    text: Path
    corpus: Corpus
