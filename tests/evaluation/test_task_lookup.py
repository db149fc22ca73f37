"""Look-up tables of the probes' tasks: those of scikit-learn, and tables that are made by hand."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from prepared_text import PreparedText
from scipy import stats
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import cross_val_predict
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline

from lab.evaluation import task_lookup
from lab.tasks import embedded
from lab.tasks.embedded import UNSEEN


@pytest.mark.parametrize(
    ("keys", "labels", "expected"),
    [
        (["a", "a", "b"], [1, 1, 0], 1.0),
        (["a", "a", "a"], [0, 1, 1], 0.75),  # b is unknown: the most frequent label, 1
        (["b", "b", "a"], [0, 0, 1], 1.0),
    ],
)
def test_table_answers_with_the_most_frequent_training_label(
    keys: list[str], labels: list[int], expected: float
) -> None:
    test_keys, test_labels = ["a", "a", "a", "b"], [1, 1, 1, 0]
    assert task_lookup._table_accuracy([keys, test_keys], [labels, test_labels]) == expected


@pytest.mark.usefixtures("few_sentences")
def test_task_tables_are_fitted_on_the_training_rows_of_the_probes(
    prepared_text: PreparedText,
) -> None:
    scores = task_lookup.score_task_tables(prepared_text.corpus.vocabulary)
    train, test = (embedded.read_embedded("pos", split) for split in ("train", "test"))
    tags: dict[str, list[int]] = {}
    for word, tag in zip(
        itertools.chain(*train.words), itertools.chain(*train.labels), strict=True
    ):
        tags.setdefault(word.lower(), []).append(tag)
    every = [tag for each in tags.values() for tag in each]
    right = [
        max(dict.fromkeys(known), key=known.count) == tag
        for word, tag in zip(
            itertools.chain(*test.words), itertools.chain(*test.labels), strict=True
        )
        for known in (tags.get(word.lower(), every),)
    ]
    assert scores["baseline/word/probe/pos/accuracy"] == pytest.approx(np.mean(right), abs=0.005)
    first_token = scores["baseline/first_token/probe/pos/accuracy"]
    assert first_token < scores["baseline/word/probe/pos/accuracy"]
    assert 0.4 < scores["baseline/majority/probe/sentiment/accuracy"] < 0.6
    assert scores["baseline/bag_of_words/probe/sentiment/accuracy"] > 0.5


def smooth(keys: list[str], labels: list[int], classes: int) -> dict[str, list[float]]:
    """Return the interpolated label frequencies of each key, and of "" for an unknown one."""
    pairs = set(zip(keys, labels, strict=True))
    kinds = [sum(label == c for _, label in pairs) for c in range(classes)]
    table = {"": [(kinds[c] + 0.5) / (len(pairs) + 0.5 * classes) for c in range(classes)]}
    for key in set(keys):
        own = Counter(label for k, label in zip(keys, labels, strict=True) if k == key)
        table[key] = [
            (own[c] + len(own) * table[""][c]) / (own.total() + len(own)) for c in range(classes)
        ]
    return table


def test_loss_is_that_of_the_smoothed_label_frequencies_of_each_key() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 300)
    keys = [f"{'abc'[label % 3]}{rng.integers(0, 9)}" for label in labels]
    keys[250:] = ["new"] * 50
    train, test = slice(0, 200), slice(200, 300)
    table = smooth(keys[train], labels[train].tolist(), 4)
    assert all(sum(shares) == pytest.approx(1) for shares in table.values())
    expected = log_loss(labels[test], [table.get(key, table[""]) for key in keys[test]])
    answers = labels.tolist()
    found = task_lookup._table_nats([keys[train], keys[test]], [answers[train], answers[test]], 4)
    assert found == pytest.approx(expected)
    assert found == pytest.approx(
        task_lookup._table_nats(
            [keys[train], [*keys[test], "a1"]], [answers[train], [*answers[test], UNSEEN]], 4
        )
    )


@pytest.mark.usefixtures("few_sentences")
def test_label_frequencies_have_the_entropy_of_the_labels(prepared_text: PreparedText) -> None:
    scores = task_lookup.score_task_tables(prepared_text.corpus.vocabulary)
    train, test = (
        np.bincount(list(itertools.chain(*embedded.read_embedded("sentiment", split).labels)))
        for split in ("train", "test")
    )
    entropy, divergence = stats.entropy(test), stats.entropy(test, (train + 0.5) / (sum(train) + 1))
    found = scores["baseline/frequencies/probe/sentiment/nats"]
    assert found == pytest.approx(entropy + divergence)
    assert found == pytest.approx(math.log(2), abs=0.01)


@pytest.mark.usefixtures("few_sentences")
def test_naive_bayes_is_calibrated_on_training_rows_that_it_was_not_fitted_on(
    prepared_text: PreparedText,
) -> None:
    scores = task_lookup.score_task_tables(prepared_text.corpus.vocabulary)
    train, test = (embedded.read_embedded("sentiment", split) for split in ("train", "test"))
    texts = [[" ".join(words).lower() for words in each.words] for each in (train, test)]
    labels = [list(itertools.chain(*each.labels)) for each in (train, test)]
    bayes = make_pipeline(CountVectorizer(tokenizer=str.split, token_pattern=None), MultinomialNB())

    def odds(log_shares_N2: "np.ndarray[tuple[int, int], np.dtype[np.float64]]") -> object:
        return np.diff(log_shares_N2, axis=1)

    left_out = cross_val_predict(bayes, texts[0], labels[0], cv=5, method="predict_log_proba")
    calibration = LogisticRegression(C=np.inf, tol=1e-10).fit(odds(left_out), labels[0])
    bayes.fit(texts[0], labels[0])
    log_shares = bayes.predict_log_proba(texts[1])
    expected = log_loss(labels[1], calibration.predict_proba(odds(log_shares)))
    assert scores["baseline/bag_of_words/probe/sentiment/nats"] == pytest.approx(expected, abs=1e-5)
    accuracy = scores["baseline/bag_of_words/probe/sentiment/accuracy"]
    assert accuracy == pytest.approx(np.mean(log_shares.argmax(1) == labels[1]))
    assert expected < log_loss(labels[1], np.exp(log_shares))
