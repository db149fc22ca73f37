"""Make a storage with the tables of MLflow and the prepared text of `sweeps.DATA`.

Usage: python begin_storage.py FOLDER
"""

import sys
from pathlib import Path

from sweeps import DATA

from lab.config.data import DataConfig
from lab.data import batches, preparation
from lab.evaluation import corruption, prepared_pairs
from lab.tasks import minimal_pairs
from lab.tracking.client import connect_client, default_uri


def main(storage: Path) -> None:
    settings, cache = DataConfig(**DATA), storage / "cache"
    text = preparation.prepare_text(settings, cache)
    corpus = batches.open_corpus(text)
    corruption.prepare_held_out(corpus, settings, cache)
    prepared_pairs.prepare_pairs(corpus, minimal_pairs.embedded_pairs(), cache)
    connect_client(default_uri(storage)).search_experiments()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
