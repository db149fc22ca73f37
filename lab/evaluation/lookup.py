"""Scores of look-up tables on the held-out corruptions, minimal pairs and the probes' tasks.

The tables are counted from the training text and from the training rows of the probes. They use no
encoder, so that their scores depend on text, vocabulary and window length only.

Letters: N windows or units, T positions, V vocabulary, S scored positions.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from lab.config.lookups import baseline_name
from lab.data.batches import Corpus, Windows
from lab.data.vocabulary import FIRST_WORD, PAD, Vocabulary
from lab.tasks.embedded import TaggedSentences, read_embedded

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
    """Return the AUROC of the unigram and the bigram detector on each corruption.

    The detectors score a position by minus the log probability of its token in the corrupted text:
    the frequency of the token, or its probability between the two neighbors. They do not know how
    the text was corrupted; the ratio to the probability of the token as a replacement would score
    higher. The scored positions are those of `scores.score_detection`.

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
        scores |= {
            baseline_name(detector, f"detect/{name}/auroc"): float(
                roc_auc_score(replaced_S, -log_probability_S)
            )
            for detector, log_probability_S in token_scores(table, corrupted_NT, words_NT).items()
        }
    return scores


def score_task_tables(vocabulary: Vocabulary) -> dict[str, float]:
    """Return the accuracies of look-up tables on the tasks of the probes.

    For `pos`: the most frequent tag, in the training rows, of the lower-cased word and of its first
    token. For `sentiment`: the most frequent label, and naive Bayes on the lower-cased words.
    """
    tagged, labelled = (
        [read_embedded(task, split) for split in ("train", "test")] for task in ("pos", "sentiment")
    )
    words = [[word.lower() for word in chain.from_iterable(each.words)] for each in tagged]
    tokens = [_first_tokens(sentences, vocabulary) for sentences in tagged]
    tags, classes = (
        [list(chain.from_iterable(sentences.labels)) for sentences in each]
        for each in (tagged, labelled)
    )
    texts = [sentences.words for sentences in labelled]
    return {
        baseline_name("word", "probe/pos/accuracy"): _table_accuracy(words, tags),
        baseline_name("first_token", "probe/pos/accuracy"): _table_accuracy(tokens, tags),
        baseline_name("majority", "probe/sentiment/accuracy"): _table_accuracy(
            [[0] * len(labels) for labels in classes], classes
        ),
        baseline_name("bag_of_words", "probe/sentiment/accuracy"): _naive_bayes_accuracy(
            texts, classes
        ),
    }


def _first_tokens(sentences: TaggedSentences, vocabulary: Vocabulary) -> list[int]:
    """Return the first token of each word; [PAD] for a word without a token."""
    first = []
    for words, encoded in zip(sentences.words, vocabulary.words(sentences.words), strict=True):
        by_word = dict(
            zip(encoded.word_T[::-1].tolist(), encoded.ids_T[::-1].tolist(), strict=True)
        )
        first += [by_word.get(word, PAD) for word in range(len(words))]
    return first


def _table_accuracy(keys: Sequence[Sequence[Hashable]], labels: Sequence[Sequence[int]]) -> float:
    """Return the test accuracy of the most frequent training label of each key.

    A key that the training rows lack gets the most frequent label of all. Of equally frequent
    labels, the one that occurs first is taken.

    Args:
        keys: keys of the training and of the test units.
        labels: labels of these units.
    """
    counts: dict[Hashable, Counter[int]] = {}
    for key, label in zip(keys[0], labels[0], strict=True):
        counts.setdefault(key, Counter())[label] += 1
    table = {key: counter.most_common(1)[0][0] for key, counter in counts.items()}
    ((default, _),) = Counter(labels[0]).most_common(1)
    predicted = [table.get(key, default) for key in keys[1]]
    return float(np.mean(np.array(predicted) == np.array(labels[1])))


def _naive_bayes_accuracy(
    texts: Sequence[Iterable[Sequence[str]]], labels: Sequence[Sequence[int]]
) -> float:
    """Return the test accuracy of multinomial naive Bayes with add-one smoothing.

    Args:
        texts: words of the training and of the test sentences; lower-cased before they are counted.
        labels: labels of these sentences.
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    classifier = make_pipeline(CountVectorizer(analyzer=_lower_cased), MultinomialNB(alpha=1.0))
    classifier.fit(texts[0], labels[0])
    return float(classifier.score(texts[1], labels[1]))


def _lower_cased(words: Sequence[str]) -> list[str]:
    return [word.lower() for word in words]
