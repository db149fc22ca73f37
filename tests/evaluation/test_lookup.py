"""Look-up tables: probabilities are exact and sum to 1, and scores need no encoder."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from prepared_text import PreparedText
from sklearn.metrics import roc_auc_score

from lab.config.lookups import LOOKUPS, baseline_name
from lab.config.metrics import CORRUPTIONS, METRICS
from lab.data.vocabulary import CLS, FIRST_WORD, PAD, SEP
from lab.evaluation import lookup
from lab.evaluation.corruption import open_held_out
from lab.tasks import embedded

V = 12
WINDOWS_NT = np.array(
    [[CLS, 5, 6, 7, SEP], [CLS, 5, 6, 8, SEP], [CLS, 9, 6, 7, SEP], [CLS, 5, 5, SEP, PAD]]
)


@pytest.fixture
def table() -> lookup.NgramTable:
    return lookup.NgramTable(WINDOWS_NT, V)


def next_probability(before: int, after: int) -> float:
    """Return p(after | before), interpolated as by Witten and Bell, by counting in Python."""
    flat = WINDOWS_NT.flatten().tolist()
    unigram = (flat.count(after) + 1) / (len(flat) + V)
    pairs = [pair for row in WINDOWS_NT.tolist() for pair in itertools.pairwise(row)]
    followers = [b for a, b in pairs if a == before]
    if not followers:
        return unigram
    kinds = len(set(followers))
    return (followers.count(after) + kinds * unigram) / (len(followers) + kinds)


def test_unigram_probabilities_have_add_one_smoothing(table: lookup.NgramTable) -> None:
    probability_V = np.exp(table.unigram(np.arange(V)))
    assert probability_V.sum() == pytest.approx(1)
    assert probability_V[6] == pytest.approx(4 / (20 + V))
    assert probability_V[11] == pytest.approx(1 / (20 + V))


@pytest.mark.parametrize(("before", "after"), [(5, 7), (CLS, SEP), (6, 6), (11, 5), (5, 11)])
def test_probability_between_neighbors_is_that_of_the_smoothed_pairs(
    table: lookup.NgramTable, before: int, after: int
) -> None:
    tokens = np.arange(V)
    actual = np.exp(table.between(np.full(V, before), tokens, np.full(V, after)))
    joint = np.array([next_probability(before, b) * next_probability(b, after) for b in tokens])
    assert actual == pytest.approx(joint / joint.sum())
    assert actual.sum() == pytest.approx(1)


def test_number_of_positions_at_once_does_not_change_probabilities(
    table: lookup.NgramTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, token, after = (np.arange(7) + shift for shift in (1, 5, 3))
    whole = table.between(before, token, after)
    monkeypatch.setattr(lookup, "_CHUNK", 2)
    assert table.between(before, token, after) == pytest.approx(whole)


def test_detectors_score_the_words_of_the_corrupted_text(table: lookup.NgramTable) -> None:
    corrupted_NT = WINDOWS_NT.copy()
    corrupted_NT[0, 2], corrupted_NT[3, 1] = 9, 8
    scores = lookup.score_detection_tables(table, WINDOWS_NT, {"own": corrupted_NT})
    words, replaced, surprise = [], [], []
    for n, t in zip(*np.nonzero(WINDOWS_NT >= FIRST_WORD), strict=True):
        words.append(corrupted_NT[n, t])
        replaced.append(corrupted_NT[n, t] != WINDOWS_NT[n, t])
        neighbors = (corrupted_NT[n, [t - 1]], corrupted_NT[n, [t]], corrupted_NT[n, [t + 1]])
        surprise.append(-table.between(*neighbors)[0])
    rarity = -table.unigram(np.array(words))
    assert scores == pytest.approx(
        {
            "baseline/unigram/detect/own/auroc": roc_auc_score(replaced, rarity),
            "baseline/bigram/detect/own/auroc": roc_auc_score(replaced, surprise),
        }
    )


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
    assert lookup._table_accuracy([keys, test_keys], [labels, test_labels]) == expected


@pytest.mark.usefixtures("few_sentences")
def test_task_tables_are_fitted_on_the_training_rows_of_the_probes(
    prepared_text: PreparedText,
) -> None:
    scores = lookup.score_task_tables(prepared_text.corpus.vocabulary)
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


def test_held_out_file_holds_the_baselines_of_all_its_scores(held_out: Path) -> None:
    read = open_held_out(held_out)
    detection = {
        baseline_name(table, f"detect/{source}/auroc")
        for source in CORRUPTIONS
        for table in ("unigram", "bigram")
    }
    tasks = {
        baseline_name("word", "probe/pos/accuracy"),
        baseline_name("first_token", "probe/pos/accuracy"),
        baseline_name("majority", "probe/sentiment/accuracy"),
        baseline_name("bag_of_words", "probe/sentiment/accuracy"),
    }
    assert set(read.baselines) == detection | tasks
    assert set(read.corrupted_NT) == set(CORRUPTIONS)
    assert all(0 < score < 1 for score in read.baselines.values())
    for name in read.baselines:
        _, table, metric = name.split("/", 2)
        assert table in LOOKUPS
        assert metric in METRICS
