"""Scores of the look-up tables of hidden words: python -m benchmarks.lookup_tables FOLDER.

They are those of a sweep of the embedded text with `data.vocab` and `data.length`. The folder keeps
the prepared text, which takes a minute to make.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path as File

from lab.config.data import DataConfig
from lab.data.batches import open_corpus
from lab.data.preparation import prepare_text
from lab.evaluation.lookup import count_ngrams
from lab.evaluation.token_lookup import score_token_tables
from lab.evaluation.word_lookup import score_word_tables


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the name, the score and the seconds of each table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.lookup_tables",
        description="Print the scores of the look-up tables of hidden words.",
    )
    parser.add_argument("folder", type=File, help="folder of the prepared text")
    parser.add_argument("--vocab", type=int, default=2_048, help="number of tokens")
    parser.add_argument("--length", type=int, default=16, help="positions of a window")
    chosen = parser.parse_args(arguments)
    data = DataConfig(vocab=chosen.vocab, length=chosen.length)
    corpus = open_corpus(prepare_text(data, chosen.folder))
    table = count_ngrams(corpus)
    for score in (score_word_tables, score_token_tables):
        start = time.perf_counter()
        scores = score(table, corpus)
        seconds = time.perf_counter() - start
        for name, value in scores.items():
            print(f"{name} {value:.4f}")
        print(f"{score.__name__}: {seconds:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
