"""Look-up tables: probabilities are exact and sum to 1, and scores need no encoder."""

import itertools
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from lab.config.lookups import LOOKUPS, baseline_name
from lab.config.metrics import CORRUPTIONS, METRICS
from lab.data.vocabulary import CLS, FIRST_WORD, PAD, SEP
from lab.evaluation import lookup
from lab.evaluation.calibration import alternate_halves
from lab.evaluation.corruption import open_held_out

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


def test_lift_of_a_pair_is_its_probability_over_that_of_independent_tokens(
    table: lookup.NgramTable,
) -> None:
    before, after = np.array([5, CLS, 11, 6]), np.array([7, 6, 6, 11, SEP])
    expected = [
        [next_probability(a, b) / math.exp(table.unigram(np.array([b]))[0]) for b in after]
        for a in before
    ]
    assert table.lifts.of_all_pairs(before, after) == pytest.approx(np.array(expected))


@pytest.fixture
def corrupted_text() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return windows in which each word is followed by the next one in most cases, and copies.

    A copy has other words, drawn with equal probabilities, in 15 % of the positions.
    """
    rng = np.random.default_rng(0)
    steps_NT = np.where(rng.random((200, 12)) < 0.7, 1, rng.integers(0, 3, (200, 12)))
    words_NT = FIRST_WORD + steps_NT.cumsum(1) % (V - FIRST_WORD - 1)
    words_NT[:, 0], words_NT[:, -1] = CLS, SEP
    replaced_NT = (rng.random(words_NT.shape) < 0.15) & (words_NT >= FIRST_WORD)
    return words_NT, np.where(replaced_NT, rng.integers(FIRST_WORD, V, words_NT.shape), words_NT)


@pytest.mark.parametrize("detector", ["unigram", "bigram"])
def test_detectors_score_the_words_of_the_corrupted_text(
    detector: str, corrupted_text: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
) -> None:
    """The loss is that of scikit-learn's logistic regression on the other half."""
    words_NT, corrupted_NT = corrupted_text
    table = lookup.NgramTable(words_NT, V)
    scores = lookup.score_detection_tables(table, words_NT, {"own": corrupted_NT})
    replaced, surprise = [], []
    for n, t in zip(*np.nonzero(words_NT >= FIRST_WORD), strict=True):
        token, sides = corrupted_NT[n, [t]], (corrupted_NT[n, [t - 1]], corrupted_NT[n, [t + 1]])
        replaced.append(token[0] != words_NT[n, t])
        surprise.append(
            -table.unigram(token)[0]
            if detector == "unigram"
            else -table.between(sides[0], token, sides[1])[0]
        )
    auroc = roc_auc_score(replaced, surprise)
    assert scores[f"baseline/{detector}/detect/own/auroc"] == pytest.approx(auroc)
    assert auroc > 0.55
    total, x, y = 0.0, np.array(surprise)[:, None], np.array(replaced)
    half = alternate_halves(len(y)).numpy()
    for scored in (half, ~half):
        reference = LogisticRegression(C=np.inf, tol=1e-10).fit(x[~scored], y[~scored])
        total += log_loss(y[scored], reference.predict_proba(x[scored])) * scored.sum()
    loss = scores[f"baseline/{detector}/detect/own/calibrated_loss"]
    assert loss == pytest.approx(total / len(y), abs=1e-6)


def test_held_out_file_holds_the_baselines_of_all_scores_except_those_of_minimal_pairs(
    held_out: Path,
) -> None:
    read = open_held_out(held_out)
    by_ngrams = [f"detect/{name}/{kind}" for name in CORRUPTIONS
                 for kind in ("auroc", "calibrated_loss")]  # fmt: skip
    by_ngrams += ["mlm/nats_per_character", "mlm/own_head/nats_per_character"]
    tables = {metric: {"unigram", "bigram"} for metric in by_ngrams}
    tables |= {f"probe/pos/{kind}": {"word", "first_token"} for kind in ("accuracy", "nats")}
    tables["probe/sentiment/accuracy"] = {"majority", "bag_of_words"}
    tables["probe/sentiment/nats"] = {"frequencies", "bag_of_words"}
    expected = {baseline_name(name, metric) for metric in tables for name in tables[metric]}
    assert set(read.baselines) == expected
    not_pairs = {name for name in METRICS if name.startswith(("detect/", "probe/", "mlm/"))}
    assert set(tables) == not_pairs
    assert set(read.corrupted_NT) == set(CORRUPTIONS)
    assert all(0 < score < math.inf for score in read.baselines.values())
    for name in read.baselines:
        _, table, metric = name.split("/", 2)
        assert table in LOOKUPS
        assert metric in METRICS
