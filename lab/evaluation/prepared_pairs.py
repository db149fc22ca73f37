"""Minimal pairs prepared for a text: the pairs, with the accuracies of look-up tables beside them.

A look-up table scores a sentence without an encoder, by the sum of the log probabilities of its
tokens (`lookup.token_scores`): their frequency, or their probability between the two neighbors.

Letters: N windows, T positions, S scored tokens.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path as File

import numpy as np
import torch

from lab.config.code_digest import TRIAL, code_digest
from lab.config.lookups import baseline_name
from lab.config.results import MetricRow
from lab.config.trial import content_hash
from lab.data.batches import Corpus
from lab.evaluation.lookup import NgramTable, count_ngrams, token_scores
from lab.evaluation.minimal_pairs import PairWindows, accuracies, pair_windows
from lab.storage import digests
from lab.tasks.minimal_pairs import MinimalPair, read_pairs


@dataclass(frozen=True, kw_only=True)
class PreparedPairs:
    """Minimal pairs, and the scores of look-up tables on them.

    Attributes:
        pairs: the pairs.
        baselines: accuracies of the look-up tables, by the name of their metric entry.
    """

    pairs: tuple[MinimalPair, ...]
    baselines: MetricRow


def prepare_pairs(corpus: Corpus, pairs: tuple[MinimalPair, ...], cache: File) -> File:
    """Return the file of the pairs prepared for a text; write it if it does not exist.

    Args:
        corpus: prepared text.
        pairs: pairs.
        cache: folder of the file.
    """
    file = pairs_file(corpus, pairs, cache)
    if not file.exists():
        content = PreparedPairs(pairs=pairs, baselines=lookup_accuracies(corpus, pairs))
        digests.write_json(file, asdict(content))
    return file


def pairs_file(corpus: Corpus, pairs: tuple[MinimalPair, ...], cache: File) -> File:
    """Return the path that `prepare_pairs` returns; the file may not exist yet."""
    identity = content_hash([corpus.fingerprint, pairs, code_digest(TRIAL)])
    return cache / f"pairs-{identity}.json"


def open_pairs(file: File | None) -> PreparedPairs:
    """Return the content of a file that `prepare_pairs` wrote.

    Args:
        file: the file; None for the pairs of the package without baselines.

    Raises:
        UserError: the file is missing or damaged.
    """
    if file is None:
        return PreparedPairs(pairs=read_pairs(None), baselines={})
    content = digests.read_json(file, "delete it and run the same command again")
    pairs = tuple(MinimalPair(*pair) for pair in content["pairs"])
    return PreparedPairs(pairs=pairs, baselines=content["baselines"])


def lookup_accuracies(corpus: Corpus, pairs: tuple[MinimalPair, ...]) -> MetricRow:
    """Return the accuracies of the look-up tables, by the name of their metric entry."""
    windows = pair_windows(corpus.vocabulary, pairs, corpus.train_NT.shape[1])
    return {
        baseline_name(table, name): value
        for table, scores in lookup_scores(count_ngrams(corpus), windows).items()
        for name, value in accuracies(torch.tensor(scores), pairs).items()
    }


def lookup_scores(ngrams: NgramTable, windows: PairWindows) -> dict[str, list[float]]:
    """Return the score of each window by each table: the sum over the tokens of its words."""
    scored_NT = windows.word_NT.numpy() >= 0
    ends = np.cumsum(scored_NT.sum(1))[:-1]
    # `fsum` does not depend on the order, so sentences of the same tokens have equal scores.
    return {
        table: [math.fsum(row_T) for row_T in np.split(log_probability_S, ends)]
        for table, log_probability_S in token_scores(
            ngrams, windows.ids_NT.numpy(), scored_NT
        ).items()
    }
