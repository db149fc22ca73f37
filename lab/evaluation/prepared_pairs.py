"""Minimal pairs prepared for a text: the pairs, with the accuracies of look-up tables beside them.

A look-up table scores a sentence without an encoder, by frequencies in the training text:

- unigram: the sum of the logarithms of its tokens' frequencies;
- bigram: the sum of the logarithms of its tokens' frequencies after the preceding token.

Letters: N windows, T positions, V vocabulary.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path as File

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from lab.config.code_digest import TRIAL, code_digest
from lab.config.results import MetricRow
from lab.config.trial import content_hash
from lab.data.batches import Corpus
from lab.evaluation.minimal_pairs import PairWindows, accuracies, pair_windows
from lab.storage import atomic
from lab.tasks.minimal_pairs import MinimalPair, read_pairs

_COUNTED_TOKENS = 2**24  # training positions that bigrams are counted on, at most
BASELINE = "baseline"  # baseline/<table>/<metric>


@dataclass(frozen=True, kw_only=True)
class PreparedPairs:
    """Minimal pairs, and what look-up tables score on them.

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
        atomic.write_text(file, json.dumps(asdict(content)))
    return file


def pairs_file(corpus: Corpus, pairs: tuple[MinimalPair, ...], cache: File) -> File:
    """Return the path that `prepare_pairs` returns; the file may not exist yet."""
    identity = content_hash([corpus.fingerprint, pairs, code_digest(TRIAL)])
    return cache / f"pairs-{identity}.json"


def open_pairs(file: File | None) -> PreparedPairs:
    """Return the content of a file that `prepare_pairs` wrote.

    Args:
        file: the file; None for the pairs of the package without baselines.
    """
    if file is None:
        return PreparedPairs(pairs=read_pairs(None), baselines={})
    content = json.loads(file.read_text())
    pairs = tuple(MinimalPair(*pair) for pair in content["pairs"])
    return PreparedPairs(pairs=pairs, baselines=content["baselines"])


def lookup_accuracies(corpus: Corpus, pairs: tuple[MinimalPair, ...]) -> MetricRow:
    """Return the accuracies of the look-up tables, by the name of their metric entry."""
    windows = pair_windows(corpus.vocabulary, pairs, corpus.train_NT.shape[1])
    tables = {
        "unigram": _score_unigrams(corpus, windows),
        "bigram": _score_bigrams(corpus, windows),
    }
    return {
        f"{BASELINE}/{table}/{name}": value
        for table, scores in tables.items()
        for name, value in accuracies(torch.tensor(scores), pairs).items()
    }


def _unigram_V(corpus: Corpus) -> npt.NDArray[np.float64]:
    """Return the frequency of each token, with one added to each count."""
    counts_V = corpus.counts_V + 1
    return np.asarray(counts_V / counts_V.sum())


def _score_unigrams(corpus: Corpus, windows: PairWindows) -> list[float]:
    log_V = np.log(_unigram_V(corpus))
    rows = zip(windows.ids_NT.numpy(), windows.word_NT.numpy() >= 0, strict=True)
    # `fsum` does not depend on the order, so sentences of the same tokens have equal scores.
    return [math.fsum(log_V[ids_T[word_T]]) for ids_T, word_T in rows]


def _score_bigrams(corpus: Corpus, windows: PairWindows) -> list[float]:
    """Return log probabilities of sentences, interpolated as by Witten and Bell (1991).

    p(b|a) = (c(a, b) + t(a) p(b)) / (c(a) + t(a)), where c(a) is the number of pairs that begin
    with a, and t(a) the number of different tokens after a.
    """
    unigram_V, size = _unigram_V(corpus), corpus.vocabulary.size
    count = min(len(corpus.train_NT), max(1, _COUNTED_TOKENS // corpus.train_NT.shape[1]))
    chosen = np.linspace(0, len(corpus.train_NT) - 1, count).astype(int)
    train_NT = np.asarray(corpus.train_NT[chosen])
    before, after = train_NT[:, :-1].reshape(-1), train_NT[:, 1:].reshape(-1)
    counts_VV = sparse.coo_array((np.ones(len(before)), (before, after)), (size, size)).tocsr()
    different_V = np.maximum(np.diff(counts_VV.indptr), 1)
    total_V = np.asarray(counts_VV.sum(1)).reshape(-1) + different_V
    ids_NT = windows.ids_NT.numpy()
    one, next_ = ids_NT[:, :-1], ids_NT[:, 1:]
    pairs = np.asarray(counts_VV[one.reshape(-1), next_.reshape(-1)]).reshape(one.shape)
    log_NT = np.log((pairs + different_V[one] * unigram_V[next_]) / total_V[one])
    scores: list[float] = np.where(windows.word_NT.numpy()[:, 1:] >= 0, log_NT, 0).sum(1).tolist()
    return scores
