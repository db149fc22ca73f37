"""Scores of look-up tables on the tasks of the probes, counted from the probes' training rows.

Letters: N units (words or sentences), C classes.
"""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import chain

import numpy as np
import torch

from lab.config.lookups import baseline_name
from lab.data.vocabulary import PAD, Vocabulary
from lab.evaluation.calibration import fit_calibration, logistic_losses
from lab.evaluation.discriminant import log_frequencies
from lab.evaluation.lookup import Floats
from lab.tasks.embedded import UNSEEN, TaggedSentences, read_embedded

_FOLDS = 5  # of the training rows, in the calibration of naive Bayes


def score_task_tables(vocabulary: Vocabulary) -> dict[str, float]:
    """Return accuracies and losses in nats of look-up tables on the tasks of the probes.

    For `pos`: the tags, in the training rows, of the lower-cased word and of its first token. For
    `sentiment`: the frequencies of the labels, and naive Bayes on the lower-cased words.
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
    accuracy, loss = _score_naive_bayes([sentences.words for sentences in labelled], classes)
    scores = {
        baseline_name("majority", "probe/sentiment/accuracy"): _table_accuracy(
            [[0] * len(labels) for labels in classes], classes
        ),
        baseline_name("frequencies", "probe/sentiment/nats"): _frequency_nats(
            classes, labelled[0].classes
        ),
        baseline_name("bag_of_words", "probe/sentiment/accuracy"): accuracy,
        baseline_name("bag_of_words", "probe/sentiment/nats"): loss,
    }
    for table, keys in (("word", words), ("first_token", tokens)):
        scores |= {
            baseline_name(table, "probe/pos/accuracy"): _table_accuracy(keys, tags),
            baseline_name(table, "probe/pos/nats"): _table_nats(keys, tags, tagged[0].classes),
        }
    return scores


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


def _frequency_nats(labels: Sequence[Sequence[int]], classes: int) -> float:
    """Return the mean test loss of the label frequencies in the training rows.

    Args:
        labels: labels of the training and of the test units.
        classes: number of labels.
    """
    train_N, test_N = map(torch.tensor, labels)
    return -log_frequencies(train_N, classes)[test_N].mean().item()


def _table_nats(
    keys: Sequence[Sequence[Hashable]], labels: Sequence[Sequence[int]], classes: int
) -> float:
    """Return the mean test loss of the smoothed label frequencies of each key.

    The frequencies of a key are interpolated as by Witten and Bell (1991): p(c|k) = (n(k, c) +
    t(k) p(c)) / (n(k) + t(k)), where n(k) is the number of training units with the key, and t(k)
    that of their different labels. p(c) is the share of c among the different pairs of a key and a
    label (Kneser and Ney 1995), because unknown keys have the labels of rare keys. Test units with
    a label that the training rows lack are not scored, as in the probe's loss.

    Args:
        keys: keys of the training and of the test units.
        labels: labels of these units.
        classes: number of labels.
    """
    counts: dict[Hashable, Counter[int]] = {}
    for key, label in zip(keys[0], labels[0], strict=True):
        counts.setdefault(key, Counter())[label] += 1
    of_pairs = torch.tensor([label for counter in counts.values() for label in counter])
    share_C = log_frequencies(of_pairs, classes).exp().tolist()

    def share(key: Hashable, label: int) -> float:
        if key not in counts:
            return float(share_C[label])
        counter = counts[key]
        kinds = len(counter)
        return float((counter[label] + kinds * share_C[label]) / (counter.total() + kinds))

    units = zip(keys[1], labels[1], strict=True)
    return float(np.mean([-math.log(share(key, c)) for key, c in units if c != UNSEEN]))


def _score_naive_bayes(
    texts: Sequence[Sequence[Sequence[str]]], labels: Sequence[Sequence[int]]
) -> tuple[float, float]:
    """Return test accuracy and loss of multinomial naive Bayes with add-one smoothing.

    Naive Bayes counts the evidence of dependent words several times, so that its probabilities are
    nearer to 0 and 1 than they should be. For the loss, slope and bias of the log odds are fitted
    on the training rows, by cross-validation.

    Args:
        texts: words of the training and of the test sentences; lower-cased before they are counted.
        labels: labels of these sentences, 0 or 1.
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.model_selection import cross_val_predict
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    classifier = make_pipeline(CountVectorizer(analyzer=_lower_cased), MultinomialNB(alpha=1.0))
    left_out_N2 = cross_val_predict(
        classifier, texts[0], labels[0], cv=_FOLDS, method="predict_log_proba"
    )
    slope, bias = fit_calibration(*_log_odds(left_out_N2, labels[0]))
    classifier.fit(texts[0], labels[0])
    losses_N = logistic_losses(
        slope, bias, *_log_odds(classifier.predict_log_proba(texts[1]), labels[1])
    )
    return float(classifier.score(texts[1], labels[1])), float(losses_N.mean())


def _log_odds(log_shares_N2: Floats, labels_N: Sequence[int]) -> tuple[Floats, Floats]:
    """Return the log odds of label 1, and the labels as signs."""
    return log_shares_N2[:, 1] - log_shares_N2[:, 0], np.array(labels_N) * 2.0 - 1


def _lower_cased(words: Sequence[str]) -> list[str]:
    return [word.lower() for word in words]
