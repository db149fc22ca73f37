"""Minimal pairs: scores by hand and by transformers, windows, ties, look-up tables."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from objectives_by_kind import LENGTH, SHAPE, VOCAB, make_objective, plain
from prepared_text import PreparedText
from torch import Tensor
from torch.nn import functional as F

from lab.config.objectives import AnyObjectiveConfig
from lab.config.objectives.electra import ElectraConfig
from lab.config.objectives.mlm import MlmConfig
from lab.config.objectives.predictors import AllTokensMlmConfig, ReplaceMlmConfig
from lab.config.objectives.random import RandomReplacementConfig
from lab.data.vocabulary import CLS, MASK, PAD, SEP, Encoded
from lab.evaluation import lookup, minimal_pairs, prepared_pairs
from lab.evaluation.minimal_pairs import (
    PairWindows,
    accuracies,
    pair_windows,
    score_pairs,
    score_sentences,
)
from lab.tasks.minimal_pairs import MinimalPair, embedded_pairs

Model = Callable[..., Any]
OBJECTIVES: list[AnyObjectiveConfig] = [
    ElectraConfig(kind="electra"),
    RandomReplacementConfig(kind="random"),
    MlmConfig(kind="mlm"),
    ReplaceMlmConfig(kind="replace_mlm"),
    AllTokensMlmConfig(kind="all_tokens_mlm"),
]
kinds = pytest.mark.parametrize("settings", OBJECTIVES, ids=lambda settings: settings.kind)
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
PAIRS = embedded_pairs()[::60]

# Three sentences: the second word of the first has two tokens, the last sentence is the longest.
WINDOWS = PairWindows(
    ids_NT=torch.tensor(
        [
            [CLS, 7, 9, 20, 11, SEP, PAD],
            [CLS, 5, 6, SEP, PAD, PAD, PAD],
            [CLS, 30, 8, 8, 31, 7, SEP],
        ]
    ),
    word_NT=torch.tensor(
        [[-1, 0, 1, 1, 2, -1, -1], [-1, 0, 1, -1, -1, -1, -1], [-1, 0, 1, 2, 3, 4, -1]]
    ),
)


def plain_model(objective: Any, head: Any, transformers_model: Model) -> Any:
    model = transformers_model(plain(objective.encoder), head, SHAPE, VOCAB, LENGTH)
    return lambda ids_BT: model(ids_BT, attention_mask=(ids_BT != PAD).long()).logits


def scores_of(objective: Any) -> Tensor:
    scores_N = score_sentences(objective.eval(), WINDOWS)
    assert scores_N is not None
    return scores_N


@torch.no_grad()
def test_score_of_a_discriminator_is_the_sum_of_transformers_log_probabilities_of_original(
    transformers_model: Model,
) -> None:
    objective = make_objective(ElectraConfig(kind="electra"))
    logits_NT = plain_model(objective, objective.detection, transformers_model)(WINDOWS.ids_NT)
    expected = [
        sum(math.log(1 - torch.sigmoid(logits_NT[n, t].double()).item()) for t in range(1, end))
        for n, end in enumerate((5, 3, 6))
    ]
    torch.testing.assert_close(scores_of(objective), torch.tensor(expected).double(), **CLOSE)


@torch.no_grad()
def test_score_of_mlm_is_the_sum_of_transformers_log_probabilities_of_masked_words(
    transformers_model: Model,
) -> None:
    objective = make_objective(MlmConfig(kind="mlm"))
    model = plain_model(objective, objective.vocabulary, transformers_model)
    words: list[list[list[int]]] = [
        [[1], [2, 3], [4]],
        [[1], [2]],
        [[1], [2], [3], [4], [5]],
    ]
    expected = torch.zeros(3, dtype=torch.float64)
    for n, positions_of_words in enumerate(words):
        for positions in positions_of_words:
            masked_1T = WINDOWS.ids_NT[n : n + 1].clone()
            masked_1T[0, positions] = MASK
            log_TV = model(masked_1T)[0].log_softmax(-1)
            expected[n] += sum(log_TV[t, WINDOWS.ids_NT[n, t]].item() for t in positions)
    torch.testing.assert_close(scores_of(objective), expected, **CLOSE)


@torch.no_grad()
def test_score_of_replace_mlm_is_the_sum_of_transformers_log_probabilities_of_the_tokens(
    transformers_model: Model,
) -> None:
    objective = make_objective(ReplaceMlmConfig(kind="replace_mlm"))
    model = plain_model(objective, objective.vocabulary, transformers_model)
    log_NT = -F.cross_entropy(model(WINDOWS.ids_NT).mT, WINDOWS.ids_NT, reduction="none")
    expected = (log_NT * (WINDOWS.word_NT >= 0)).double().sum(1)
    torch.testing.assert_close(scores_of(objective), expected, **CLOSE)


def test_score_of_all_tokens_mlm_is_the_probability_of_its_copy_mechanism() -> None:
    """p = D + (1 - D) softmax, with D = .75, and a softmax with equal logits: 1/V."""
    objective = make_objective(AllTokensMlmConfig(kind="all_tokens_mlm"))
    with torch.no_grad():
        for parameter in (*objective.vocabulary.parameters(), *objective.gate.parameters()):
            parameter.zero_()
        objective.gate.bias.fill_(math.log(3))
    p = 0.75 + 0.25 / VOCAB
    expected = torch.tensor([4, 2, 5]).double() * math.log(p)
    torch.testing.assert_close(scores_of(objective), expected, **CLOSE)


def test_accuracies_by_hand() -> None:
    """Of a: one right, one tie, one wrong; of b: one right. The mean is of the categories."""
    pairs = [MinimalPair("x", "y", category) for category in ("a", "b", "a", "a")]
    scores_N = torch.tensor([1.0, -2.0, 3.0, 0.0, 0.5, -3.0, 3.0, 0.1])
    assert accuracies(scores_N, pairs) == {
        "pairs/accuracy": 0.75,
        "pairs/a/accuracy": 0.5,
        "pairs/b/accuracy": 1.0,
    }


def test_score_that_is_nan_makes_its_category_and_the_mean_nan() -> None:
    pairs = [MinimalPair("x", "y", "a"), MinimalPair("x", "y", "b")]
    row = accuracies(torch.tensor([1.0, math.nan, 0.0, 0.0]), pairs)
    assert row["pairs/a/accuracy"] == 1
    assert math.isnan(row["pairs/b/accuracy"])
    assert math.isnan(row["pairs/accuracy"])


def test_objective_without_word_probabilities_has_no_score(prepared_text: PreparedText) -> None:
    class Silent(minimal_pairs.Objective):
        def mask(self, *_: Any) -> Any: ...
        def forward(self, *_: Any) -> Any: ...
        def networks(self) -> Any: ...

    mlm = make_objective(MlmConfig(kind="mlm"), vocab=400)
    silent = Silent.__new__(Silent)
    torch.nn.Module.__init__(silent)
    silent.encoder = mlm.encoder
    assert score_pairs(silent, prepared_text.corpus.vocabulary, PAIRS) == {}


@kinds
def test_scoring_changes_no_state_and_does_not_depend_on_the_batches(
    settings: AnyObjectiveConfig, prepared_text: PreparedText, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = make_objective(settings, vocab=400)
    weights = {name: value.clone() for name, value in objective.state_dict().items()}
    rng_state, vocabulary = torch.get_rng_state(), prepared_text.corpus.vocabulary
    row = score_pairs(objective, vocabulary, PAIRS)
    windows = pair_windows(vocabulary, PAIRS, LENGTH)
    whole_N = score_sentences(objective.eval(), windows)
    monkeypatch.setattr(minimal_pairs, "_ROWS", 7)
    torch.testing.assert_close(score_sentences(objective, windows), whole_N, **CLOSE)
    monkeypatch.setattr(minimal_pairs, "_LOGITS", 1)
    torch.testing.assert_close(score_sentences(objective, windows), whole_N, **CLOSE)
    objective.train()
    assert score_pairs(objective, vocabulary, PAIRS) == row
    assert objective.training
    assert torch.get_rng_state().equal(rng_state)
    assert all(value.equal(weights[name]) for name, value in objective.state_dict().items())
    assert all(parameter.grad is None for parameter in objective.parameters())


# Windows.

tokens = st.lists(st.integers(5, 9), max_size=12)


def encoded(ids: list[int]) -> Encoded:
    return Encoded(np.array(ids, np.int64), np.arange(len(ids)), np.zeros((len(ids), 2), np.int64))


@given(before=tokens, good=tokens, bad=tokens, after=tokens, room=st.integers(6, 20))
@settings(deadline=None)
def test_cut_sentences_keep_the_difference_and_equal_contexts(
    before: list[int], good: list[int], bad: list[int], after: list[int], room: int
) -> None:
    sentences = [[*before, *middle, *after] for middle in (good, bad)]
    (good_ids, good_words), (bad_ids, bad_words) = minimal_pairs._cut_to_difference(
        *map(encoded, sentences), room
    )
    assert len(good_ids) == len(good_words) <= room
    assert len(bad_ids) == len(bad_words) <= room
    if max(map(len, sentences)) <= room:
        assert [good_ids, bad_ids] == sentences
    elif max(len(good), len(bad)) < room:
        assert (good_ids == bad_ids) == (sentences[0] == sentences[1])
        assert max(len(good_ids), len(bad_ids)) == room
        assert len(good_ids) - len(bad_ids) == len(sentences[0]) - len(sentences[1])


def test_sentence_is_cut_around_the_difference_by_hand() -> None:
    good, bad = [10, 11, 12, 13, 14, 15, 16, 17, 18], [10, 11, 12, 13, 99, 15, 16, 17, 18]
    cut = minimal_pairs._cut_to_difference(encoded(good), encoded(bad), 5)
    assert cut == (([12, 13, 14, 15, 16], [0, 1, 2, 3, 4]), ([12, 13, 99, 15, 16], [0, 1, 2, 3, 4]))
    at_end = minimal_pairs._cut_to_difference(encoded(good), encoded([*good[:8], 99]), 4)
    assert at_end[0][0] == [15, 16, 17, 18]


def test_windows_hold_the_text_with_words_numbered(prepared_text: PreparedText) -> None:
    vocabulary = prepared_text.corpus.vocabulary
    pair = MinimalPair("The unbelievable men are here.", "The unbelievable men is here.", "a")
    windows = pair_windows(vocabulary, (pair,), 64)
    for ids_T, word_T, text in zip(windows.ids_NT, windows.word_NT, pair[:2], strict=True):
        (whole,) = vocabulary.spans([text])
        kept = ids_T != PAD
        assert ids_T[kept].tolist() == [CLS, *whole.ids_T, SEP]
        assert word_T[kept].tolist() == [-1, *whole.word_T, -1]
        assert len(whole.ids_T) > whole.word_T.max() + 1  # a word has several tokens


def test_token_outside_of_words_is_a_word_of_its_own() -> None:
    assert minimal_pairs._number_words(np.array([0, 0, -1, -1, 1, 1, 2])) == [0, 0, 1, 2, 3, 3, 4]


# Look-up tables.


@pytest.mark.parametrize("length", [16, 64])
def test_unigram_table_is_right_in_half_of_the_pairs_although_windows_cut_sentences(
    length: int, prepared_text: PreparedText
) -> None:
    corpus = prepared_text.corpus
    windows = pair_windows(corpus.vocabulary, embedded_pairs(), length)
    scores = prepared_pairs.lookup_scores(lookup.count_ngrams(corpus), windows)
    row = accuracies(torch.tensor(scores["unigram"]), embedded_pairs())
    assert set(row.values()) == {0.5}


def test_look_up_tables_sum_over_the_tokens_of_the_words() -> None:
    train_NT = np.array([[CLS, 5, 6, SEP], [CLS, 5, 6, SEP], [CLS, 5, 7, SEP]])
    ngrams = lookup.NgramTable(train_NT, 8)
    windows = PairWindows(
        ids_NT=torch.tensor([[CLS, 5, 6, SEP], [CLS, 7, 5, SEP]]),
        word_NT=torch.tensor([[-1, 0, 1, -1], [-1, 0, -1, -1]]),
    )
    scores = prepared_pairs.lookup_scores(ngrams, windows)
    tokens = {"unigram": [5, 6, 7], "bigram": [(CLS, 5, 6), (5, 6, SEP), (CLS, 7, 5)]}
    unigrams = ngrams.unigram(np.array(tokens["unigram"]))
    bigrams = [ngrams.between(*(np.array([each]) for each in at)).item() for at in tokens["bigram"]]
    for table, (five, six, seven) in (("unigram", unigrams), ("bigram", bigrams)):
        assert scores[table] == pytest.approx([five + six, seven])


def test_prepared_pairs_are_read_as_written_and_named_by_content(
    prepared_text: PreparedText, tmp_path: Path
) -> None:
    corpus = prepared_text.corpus
    file = prepared_pairs.prepare_pairs(corpus, PAIRS, tmp_path)
    read = prepared_pairs.open_pairs(file)
    assert read.pairs == PAIRS
    assert read.baselines["baseline/unigram/pairs/accuracy"] == pytest.approx(0.5, abs=0.2)
    assert read.baselines["baseline/bigram/pairs/accuracy"] > 0.5
    assert prepared_pairs.pairs_file(corpus, PAIRS[:-1], tmp_path) != file
    assert prepared_pairs.pairs_file(corpus, PAIRS, tmp_path) == file
