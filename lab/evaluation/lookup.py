"""Frequencies of tokens and of pairs of tokens, and their scores on the held-out corruptions.

The tables are counted from the training text. They use no encoder, so that their scores depend on
text, vocabulary and window length only.

Letters: N windows, T positions, V vocabulary, S scored positions, U tokens.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from lab.config.lookups import baseline_name
from lab.data.batches import Corpus, Windows
from lab.data.vocabulary import FIRST_WORD, PAD
from lab.evaluation.calibration import calibrated_losses

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
_COUNTED_TOKENS = 2**24  # training positions that frequencies are counted on, at most
_CHUNK = 1_024  # number of positions that `NgramTable.between` computes at once


class NgramTable:
    """Smoothed frequencies of tokens and of pairs of neighboring tokens.

    The unigram distribution has add-one smoothing. The distribution of the token after a token is
    interpolated with it as by Witten and Bell (1991): p(b|a) = (c(a, b) + t(a) p(b)) / (c(a) +
    t(a)), where c(a) is the number of pairs that begin with a, and t(a) the number of different
    tokens after a. After a token that begins no pair, it is the unigram distribution.

    Args:
        windows_NT: training windows; special tokens are counted like all others.
        size: number of tokens of the vocabulary.
    """

    def __init__(self, windows_NT: Windows, size: int) -> None:
        counts_V = np.bincount(windows_NT.reshape(-1), minlength=size)
        self._unigram_V: Floats = (counts_V + 1) / (counts_V.sum() + size)
        before, after = windows_NT[:, :-1].reshape(-1), windows_NT[:, 1:].reshape(-1)
        ones = np.ones(len(before))
        pairs_VV = sparse.coo_array((ones, (before, after)), shape=(size, size)).tocsr()
        followers_V = np.diff(pairs_VV.indptr).astype(float)
        total_V = np.asarray(pairs_VV.sum(1)).reshape(-1) + followers_V
        self._backoff_V: Floats = np.divide(
            followers_V, total_V, out=np.ones(size), where=total_V > 0
        )
        scale_V = np.divide(1.0, total_V, out=np.zeros(size), where=total_V > 0)
        self._counted_VV = sparse.csr_array(sparse.diags_array(scale_V) @ pairs_VV)
        self._transposed_VV = sparse.csr_array(self._counted_VV.T)

    def unigram(self, token_S: Ints) -> Floats:
        """Return the log probability of each token."""
        return np.asarray(np.log(self._unigram_V[token_S]))

    def between(self, before_S: Ints, token_S: Ints, after_S: Ints) -> Floats:
        """Return the log probability of each token given the tokens before and after it.

        p(b | a, c) = p(b|a) p(c|b) / sum over all tokens b' of p(b'|a) p(c|b').
        """
        joint_S = self._next(before_S, token_S) * self._next(token_S, after_S)
        parts = [slice(start, start + _CHUNK) for start in range(0, len(token_S), _CHUNK)]
        evidence_S = np.concatenate(
            [np.empty(0), *(self._evidence(before_S[part], after_S[part]) for part in parts)]
        )
        return np.asarray(np.log(joint_S / evidence_S))

    def lifts(self, before_S: Ints, after_U: Ints) -> Floats:
        """Return p(b|a) / p(b) of each token a = `before_S` and each token b = `after_U`, (S, U).

        It is 1 if the pair is as frequent as that of independent tokens.
        """
        counted_SU = self._counted_VV[before_S][:, after_U].toarray()
        return np.asarray(
            counted_SU / self._unigram_V[after_U] + self._backoff_V[before_S][:, None]
        )

    def _next(self, before_S: Ints, after_S: Ints) -> Floats:
        counted_S = np.asarray(self._counted_VV[before_S, after_S]).reshape(-1)
        return np.asarray(counted_S + self._backoff_V[before_S] * self._unigram_V[after_S])

    def _evidence(self, before_S: Ints, after_S: Ints) -> Floats:
        """Return sum_b (C_ab + w_a u_b) (C_bc + w_b u_c), without a table of S x V numbers.

        C are the counted parts of the interpolated probabilities, w the weights of the unigram
        distribution u.
        """
        row_SV, column_SV = self._counted_VV[before_S], self._transposed_VV[after_S]
        weight_S, unigram_S = self._backoff_V[before_S], self._unigram_V[after_S]
        both_S = np.asarray(row_SV.multiply(column_SV).sum(1)).reshape(-1)
        after_unigram_S = weight_S * (column_SV @ self._unigram_V)
        before_unigram_S = (row_SV @ self._backoff_V) * unigram_S
        unigrams_S = weight_S * unigram_S * (self._unigram_V @ self._backoff_V)
        return np.asarray(both_S + after_unigram_S + before_unigram_S + unigrams_S)


def counted_windows(corpus: Corpus) -> Windows:
    """Return the training windows that frequencies are counted on."""
    return evenly_spaced(corpus.train_NT, _COUNTED_TOKENS // corpus.train_NT.shape[1])


def evenly_spaced(windows_NT: npt.NDArray[Any], limit: int) -> npt.NDArray[Any]:
    """Return at most `limit` windows, or the values of as many windows, evenly spaced."""
    count = min(len(windows_NT), limit)
    return np.asarray(windows_NT[np.linspace(0, len(windows_NT) - 1, count).astype(int)])


def count_ngrams(corpus: Corpus) -> NgramTable:
    """Return the frequencies in the training text."""
    return NgramTable(counted_windows(corpus), corpus.vocabulary.size)


def token_scores(table: NgramTable, ids_NT: Windows, scored_NT: Bools) -> dict[str, Floats]:
    """Return the log probability of each scored token by each table, shape (S,).

    Args:
        table: frequencies in the training text.
        ids_NT: tokens.
        scored_NT: whether each token is scored.

    Returns:
        `unigram`: by the frequency of the token. `bigram`: by its probability between the tokens
        before and after it.
    """
    padded_NT = np.pad(ids_NT.astype(np.int64), ((0, 0), (1, 1)), constant_values=PAD)
    before_S, token_S, after_S = (
        neighbors_NT[scored_NT]
        for neighbors_NT in (padded_NT[:, :-2], padded_NT[:, 1:-1], padded_NT[:, 2:])
    )
    return {
        "unigram": table.unigram(token_S),
        "bigram": table.between(before_S, token_S, after_S),
    }


def score_detection_tables(
    table: NgramTable, original_NT: Windows, corrupted: Mapping[str, Windows]
) -> dict[str, float]:
    """Return AUROC and calibrated loss of the unigram and the bigram detector on each corruption.

    The detectors score a position by minus the log probability of its token in the corrupted text:
    the frequency of the token, or its probability between the two neighbors. They do not know how
    the text was corrupted; the ratio to the probability of the token as a replacement would score
    higher. The scored positions and the calibration are those of `scores.score_detection`.

    Args:
        table: frequencies in the training text.
        original_NT: held-out windows.
        corrupted: corrupted windows, by the name of the corruption.
    """
    from sklearn.metrics import roc_auc_score

    words_NT = original_NT >= FIRST_WORD
    scores: dict[str, float] = {}
    for name, corrupted_NT in corrupted.items():
        replaced_S = (corrupted_NT != original_NT)[words_NT]
        for detector, log_probability_S in token_scores(table, corrupted_NT, words_NT).items():
            losses_S = calibrated_losses(
                torch.from_numpy(-log_probability_S), torch.from_numpy(replaced_S)
            )
            scores |= {
                baseline_name(detector, f"detect/{name}/auroc"): float(
                    roc_auc_score(replaced_S, -log_probability_S)
                ),
                baseline_name(detector, f"detect/{name}/calibrated_loss"): losses_S.mean().item(),
            }
    return scores
