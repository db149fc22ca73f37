"""Type of the small prepared text that many tests share."""

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
