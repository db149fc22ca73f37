"""Codes of hidden words by look-up tables: word frequencies, and the tokens beside the word.

Both have the classes and the spelling of the read-out (`word_prediction.code_words`). They are
therefore no yardsticks of a vocabulary head, which states every word by its tokens: for rare words
it needs fewer nats even with the same probability for all tokens. Its yardsticks are in
`token_lookup`.

The first table states the class of a word by its frequency in the other half of the held-out text.
The second one multiplies this frequency by the evidence of the two tokens beside the word, counted
in the training text. The evidence for a word is p(f|a) p(c|l) / (p(f) p(c)), where a and c are the
tokens before and after it, and f and l its first and its last token. The evidence for a class is
the mean over the words of the class in the other half. Its power is fitted on the other half,
because a and c are not independent given the word.

Words of several tokens have evidence too. On the embedded text with 2,048 tokens and windows of 16
the powers are .93 and .94, and the code has 2.499 nats per character. With the probability of words
of one token between their neighbors, and the rest of it given to all other words by their
frequency, it had 2.512, and the frequencies alone have 2.730.

Letters: N hidden words, S those of them that are scored, W windows, T positions, C classes, U pairs
of a first and a last token.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from lab.config.lookups import baseline_name
from lab.data.batches import Corpus
from lab.data.vocabulary import PAD
from lab.evaluation.discriminant import log_frequencies
from lab.evaluation.hidden_words import HiddenWords, hide_words
from lab.evaluation.lookup import Bools, Floats, Ints, NgramTable, fit_power
from lab.evaluation.word_prediction import code_words

_METRIC = "mlm/nats_per_character"
_CHUNK = 1_024  # words in one matrix product of the evidence


@dataclass(frozen=True, kw_only=True, eq=False)
class WordTokens:
    """Tokens of hidden words and beside them.

    Attributes:
        before_N: token before each word; [PAD] for a word that the tokenizer gives no token.
        first_N: first token of each word; likewise.
        last_N: last token of each word; likewise.
        after_N: token after each word; likewise.
        known_N: whether each word has a token.
    """

    before_N: Ints
    first_N: Ints
    last_N: Ints
    after_N: Ints
    known_N: Bools


def score_word_tables(table: NgramTable, corpus: Corpus) -> dict[str, float]:
    """Return the nats per character of hidden words by each table.

    Args:
        table: frequencies in the training text.
        corpus: prepared text.

    Returns:
        `unigram`: by the frequency of the word. `bigram`: by the tokens beside it as well. Empty
        if one of the halves of the held-out text has no hidden word.
    """
    length = corpus.train_NT.shape[1]
    single = hide_words(corpus.vocabulary, corpus.passages, length, "one")
    tokens = word_tokens(single, hide_words(corpus.vocabulary, corpus.passages, length, "each"))

    def predict(labels_N: Tensor, scored_N: Tensor, classes: int) -> Tensor:
        return predict_by_neighbors(table, tokens, labels_N, scored_N, classes)

    codes = {
        "unigram": code_words(single, predict_by_frequency),
        "bigram": code_words(single, predict),
    }
    return {
        baseline_name(name, _METRIC): score.nats_per_character
        for name, score in codes.items()
        if score is not None
    }


def word_tokens(single: HiddenWords, each: HiddenWords) -> WordTokens:
    """Return the tokens of hidden words and those beside them.

    Args:
        single: windows in which a single [MASK] replaces each word.
        each: windows of the same words in which [MASK] replaces each of their tokens.
    """
    w, t = (single.word_WT >= 0).nonzero(as_tuple=True)
    word_M, token_M = (tensor[each.word_WT >= 0] for tensor in (each.word_WT, each.token_WT))

    def by_word(words: Tensor, tokens: Tensor) -> Ints:
        tokens_N = np.full(len(single.words), PAD)
        tokens_N[words.numpy()] = tokens.numpy()  # the last one of several
        return tokens_N

    known_N = np.zeros(len(single.words), dtype=bool)
    known_N[word_M.numpy()] = True
    return WordTokens(
        before_N=by_word(single.word_WT[w, t], single.ids_WT[w, t - 1]),
        first_N=by_word(word_M.flip(0), token_M.flip(0)),
        last_N=by_word(word_M, token_M),
        after_N=by_word(single.word_WT[w, t], single.ids_WT[w, t + 1]),
        known_N=known_N,
    )


def predict_by_frequency(labels_N: Tensor, scored_N: Tensor, classes: int) -> Tensor:
    """Return the nats of the class of each scored word by its frequency among the others, (S,)."""
    return -log_frequencies(labels_N[~scored_N], classes)[labels_N[scored_N]]


def predict_by_neighbors(
    table: NgramTable, tokens: WordTokens, labels_N: Tensor, scored_N: Tensor, classes: int
) -> Tensor:
    """Return the nats of the class of each scored word by the tokens beside it, shape (S,).

    Args:
        table: frequencies in the training text.
        tokens: tokens of the words and beside them.
        labels_N: class of each word.
        scored_N: whether each word is scored; the others are fitted on.
        classes: number of classes.
    """
    from scipy.special import log_softmax

    labels, scored = labels_N.numpy(), scored_N.numpy()
    prior_C = log_frequencies(labels_N[~scored_N], classes).numpy()
    evidence_NC = _evidence(table, tokens, labels, ~scored, classes)

    def nats(power: float, rows_N: Bools) -> Floats:
        log_shares_SC = log_softmax(prior_C + power * evidence_NC[rows_N], axis=1)
        return np.asarray(-np.take_along_axis(log_shares_SC, labels[rows_N, None], axis=1)[:, 0])

    return torch.from_numpy(nats(fit_power(lambda power: nats(power, ~scored)), scored))


def _evidence(
    table: NgramTable, tokens: WordTokens, labels_N: Ints, fitted_N: Bools, classes: int
) -> Floats:
    """Return the log of the evidence for each class at each word, shape (N, C).

    It is 0 for words without a token, and for classes of such words.
    """
    counted_N = fitted_N & tokens.known_N
    ends_N2 = np.stack([tokens.first_N, tokens.last_N], axis=1)
    ends_U2, pair_M = np.unique(ends_N2[counted_N], axis=0, return_inverse=True)
    ones = np.ones(len(pair_M))
    counts_CU = sparse.coo_array(
        (ones, (labels_N[counted_N], pair_M.reshape(-1))), shape=(classes, len(ends_U2))
    ).tocsr()
    words_C: Floats = np.asarray(counts_CU.sum(1)).reshape(-1)
    evidence_NC = np.zeros((len(labels_N), classes))
    rows = np.flatnonzero(tokens.known_N)
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        before_SU = table.lifts.of_all_pairs(tokens.before_N[part], ends_U2[:, 0])
        after_US = table.lifts.of_all_pairs(ends_U2[:, 1], tokens.after_N[part])
        summed_CS = np.asarray(counts_CU @ (before_SU.T * after_US))
        with np.errstate(divide="ignore", invalid="ignore"):
            evidence_NC[part] = np.where(words_C > 0, np.log(summed_CS.T / words_C), 0.0)
    return evidence_NC
