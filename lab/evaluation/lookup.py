"""Frequencies of tokens and of pairs of tokens, and their scores on the held-out corruptions.

The tables are counted from the training text. They use no encoder, so that their scores depend on
text, vocabulary and window length only.

Letters: N windows, T positions, V vocabulary, S scored positions, U tokens.
"""

from collections.abc import Callable, Mapping
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
_LARGEST_POWER = 4.0
_COUNTED_TOKENS = 2**24  # training positions that frequencies are counted on, at most
_CHUNK = 1_024  # positions of one product of sparse rows


class NgramTable:
    """Smoothed frequencies of tokens and of pairs of neighboring tokens.

    The unigram distribution has add-one smoothing. The distribution of the token after a token is
    interpolated with it as by Witten and Bell (1991): p(b|a) = (c(a, b) + t(a) p(b)) / (c(a) +
    t(a)), where c(a) is the number of pairs that begin with a, and t(a) the number of different
    tokens after a. After a token that begins no pair, it is the unigram distribution.

    Args:
        windows_NT: training windows; special tokens are counted like all others.
        size: number of tokens of the vocabulary.

    Attributes:
        unigram_V: probability of each token.
        lifts: ratios of the probabilities of pairs to those of independent tokens.
    """

    def __init__(self, windows_NT: Windows, size: int) -> None:
        counts_V = np.bincount(windows_NT.reshape(-1), minlength=size)
        self.unigram_V: Floats = (counts_V + 1) / (counts_V.sum() + size)
        before, after = windows_NT[:, :-1].reshape(-1), windows_NT[:, 1:].reshape(-1)
        ones = np.ones(len(before))
        pairs_VV = sparse.coo_array((ones, (before, after)), shape=(size, size)).tocsr()
        followers_V = np.diff(pairs_VV.indptr).astype(float)
        total_V = np.asarray(pairs_VV.sum(1)).reshape(-1) + followers_V
        backoff_V = np.divide(followers_V, total_V, out=np.ones(size), where=total_V > 0)
        scale_V = np.divide(1.0, total_V, out=np.zeros(size), where=total_V > 0)
        excess_VV = sparse.csr_array(
            sparse.diags_array(scale_V) @ pairs_VV @ sparse.diags_array(1 / self.unigram_V)
        )
        self.lifts = PairLifts(backoff_V, excess_VV)

    def unigram(self, token_S: Ints) -> Floats:
        """Return the log probability of each token."""
        return np.asarray(np.log(self.unigram_V[token_S]))

    def between(self, before_S: Ints, token_S: Ints, after_S: Ints) -> Floats:
        """Return the log probability of each token given the tokens before and after it.

        p(b | a, c) = p(b|a) p(c|b) / sum over all tokens b' of p(b'|a) p(c|b').
        """
        return NeighborModel(self.unigram_V, self.lifts).predict(before_S, token_S, after_S)


class PairLifts:
    """The lift of each pair of neighboring tokens: how much more frequent it is than by chance.

    The lift of a and b is p(b|a) / p(b) = base_a + excess_ab. The excess is 0 for most pairs.

    Args:
        base_V: lift of the pairs that begin with each token and are not counted.
        excess_VV: what counted pairs have in addition.
    """

    def __init__(self, base_V: Floats, excess_VV: sparse.csr_array) -> None:
        self.base_V = base_V
        self.excess_VV = excess_VV

    def of_pairs(self, before_S: Ints, after_S: Ints) -> Floats:
        """Return the lift of each token a = `before_S` with the token b = `after_S`."""
        excess_S = np.asarray(self.excess_VV[before_S, after_S]).reshape(-1)
        return np.asarray(self.base_V[before_S] + excess_S)

    def of_all_pairs(self, before_S: Ints, after_U: Ints) -> Floats:
        """Return the lift of each token a = `before_S` with each token b = `after_U`, (S, U)."""
        excess_SU = self.excess_VV[before_S][:, after_U].toarray()
        return np.asarray(self.base_V[before_S][:, None] + excess_SU)

    def raise_to(self, power: float) -> "PairLifts":
        """Return the lifts raised to a power."""
        base_V, excess_VV = self.base_V**power, self.excess_VV.copy()
        counted = np.diff(excess_VV.indptr)
        lifts = excess_VV.data + self.base_V.repeat(counted)
        excess_VV.data = lifts**power - base_V.repeat(counted)
        return PairLifts(base_V, excess_VV)


class NeighborModel:
    """Distribution of a token given its neighbors: their lifts times a distribution without them.

    p(b | a, c) = p(b) lift(a, b) lift(b, c) / sum over all tokens b' of the same. Without a token
    before or after, its lift is left out.

    Args:
        prior_V: distribution p of a token without neighbors.
        lifts: lifts of pairs, or powers of them.
    """

    def __init__(self, prior_V: Floats, lifts: PairLifts) -> None:
        self._prior_V = prior_V
        self._lifts = lifts
        self._transposed_VV = sparse.csr_array(lifts.excess_VV.T)
        # Sums over b of parts of p(b) (base_a + excess_ab) (base_b + excess_bc).
        self._before_V: Floats = lifts.excess_VV @ prior_V
        self._both_V: Floats = lifts.excess_VV @ (prior_V * lifts.base_V)
        self._after_V: Floats = self._transposed_VV @ prior_V
        self._rest = float(prior_V @ lifts.base_V)

    def predict(self, before_S: Ints | None, token_S: Ints, after_S: Ints | None) -> Floats:
        """Return the log probability of each token given its neighbors.

        Args:
            before_S: token before each token; None if it is not known.
            token_S: tokens.
            after_S: token after each token; None if it is not known.
        """
        joint_S = self._prior_V[token_S]
        if before_S is not None:
            joint_S = joint_S * self._lifts.of_pairs(before_S, token_S)
        if after_S is not None:
            joint_S = joint_S * self._lifts.of_pairs(token_S, after_S)
        return np.asarray(np.log(joint_S / self._sum(before_S, after_S)))

    def _sum(self, before_S: Ints | None, after_S: Ints | None) -> Floats | float:
        """Return the sum over all tokens, without a table of S x V numbers."""
        if before_S is None:
            return 1.0 if after_S is None else np.asarray(self._after_V[after_S] + self._rest)
        base_S = self._lifts.base_V[before_S]
        if after_S is None:
            return np.asarray(self._before_V[before_S] + base_S)
        starts = range(0, len(before_S), _CHUNK)
        parts = [slice(start, start + _CHUNK) for start in starts]
        counted_S = np.concatenate(
            [np.empty(0), *(self._sum_counted(before_S[part], after_S[part]) for part in parts)]
        )
        return np.asarray(
            counted_S + self._both_V[before_S] + base_S * (self._after_V[after_S] + self._rest)
        )

    def _sum_counted(self, before_S: Ints, after_S: Ints) -> Floats:
        """Return the sum over b of p(b) excess_ab excess_bc."""
        excess_SV = self._lifts.excess_VV[before_S].multiply(self._transposed_VV[after_S])
        return np.asarray(excess_SV @ self._prior_V)


def fit_power(nats: Callable[[float], Floats]) -> float:
    """Return the power of evidence, from 0 to 4, with the lowest mean nats.

    Args:
        nats: function that returns the nats of examples with a power.
    """
    from scipy.optimize import minimize_scalar

    fit = minimize_scalar(
        lambda power: nats(power).mean(), bounds=(0.0, _LARGEST_POWER), method="bounded"
    )
    return float(fit.x)


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
