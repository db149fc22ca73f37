"""Look-up tables of hidden tokens: distributions, coded as by a vocabulary head."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from prepared_text import PreparedText
from scipy.optimize import minimize

from lab.config.architecture import SIZES, EncoderConfig
from lab.config.data import ByteLevelTokenizer, TrainedTokenizer
from lab.data.batches import Corpus
from lab.data.passages import Passage
from lab.data.tokenizers import build_vocabulary
from lab.data.vocabulary import CLS, FIRST_WORD, MASK, PAD, SEP, UNK
from lab.evaluation.hidden_words import hide_words
from lab.evaluation.lookup import Floats, NgramTable, count_ngrams
from lab.evaluation.token_lookup import (
    HiddenTokens,
    hidden_frequencies,
    hidden_tokens,
    predict_by_neighbors,
    score_token_tables,
    token_nats,
)
from lab.evaluation.word_prediction import score_head
from lab.training.initialization import initialize_weights
from lab.training.model import Encoder, VocabularyHead

UNIGRAM, BIGRAM = (
    f"baseline/{table}/mlm/own_head/nats_per_character" for table in ("unigram", "bigram")
)
SHAPE = EncoderConfig(
    layers=1, hidden=24, ffn=32, heads=2, embedding=16, init_std=0.02, dropout=0, norm="post"
)
V = 12
CAN_BE_HIDDEN = [UNK, *range(FIRST_WORD, V)]
NEIGHBORS = [(5, 7), (CLS, SEP), (6, 6), (11, 5), (5, 11), (5, MASK), (MASK, 7), (MASK, MASK)]


@pytest.fixture
def windows() -> npt.NDArray[np.int64]:
    """Return a text in which most tokens occur several times in a row; token 11 does not occur."""
    rng = np.random.default_rng(1)
    runs = rng.integers(FIRST_WORD, V - 1, 600).repeat(rng.integers(1, 4, 600))
    return np.pad(
        runs[:1_000].reshape(-1, 10), ((0, 0), (1, 1)), constant_values=((0, 0), (CLS, SEP))
    )


@pytest.fixture
def table(windows: npt.NDArray[np.int64]) -> NgramTable:
    return NgramTable(windows, V)


def each_token(before: int, after: int) -> HiddenTokens:
    """Return each token that can be hidden, between the same neighbors."""
    count = len(CAN_BE_HIDDEN)
    return HiddenTokens(
        token_M=np.array(CAN_BE_HIDDEN),
        before_M=np.full(count, before),
        after_M=np.full(count, after),
    )


def probabilities(table: NgramTable, before: int, after: int, power: float) -> list[float]:
    """Return the probability of each token that can be hidden."""
    nats_M = token_nats(hidden_frequencies(table), table.lifts, each_token(before, after), power)
    return np.exp(-nats_M).tolist()


# The distributions.


@pytest.mark.parametrize("power", [0.0, 0.6, 1.0, 2.5])
@pytest.mark.parametrize(("before", "after"), NEIGHBORS)
def test_probabilities_are_those_of_the_reference_and_add_up_to_1(
    windows: npt.NDArray[np.int64], table: NgramTable, before: int, after: int, power: float
) -> None:
    every = windows.flatten().tolist()
    pairs = Counter(pair for row in windows.tolist() for pair in itertools.pairwise(row))

    def frequency(token: int) -> float:
        return (every.count(token) + 1) / (len(every) + V)

    def lift(a: int, b: int) -> float:
        followers = [pairs[a, token] for token in range(V) if pairs[a, token]]
        if not followers:
            return 1.0
        kinds, total = len(followers), sum(followers)
        return (pairs[a, b] + kinds * frequency(b)) / (total + kinds) / frequency(b)

    def weight(token: int) -> float:
        left = 1.0 if before == MASK else lift(before, token)
        right = 1.0 if after == MASK else lift(token, after)
        return frequency(token) * (left * right) ** power

    weights = [weight(token) for token in CAN_BE_HIDDEN]
    found = probabilities(table, before, after, power)
    assert found == pytest.approx([each / sum(weights) for each in weights])
    assert sum(found) == pytest.approx(1)


def test_special_tokens_that_cannot_be_hidden_have_no_probability(table: NgramTable) -> None:
    frequencies_V = hidden_frequencies(table)
    assert frequencies_V.sum() == pytest.approx(1)
    assert np.flatnonzero(frequencies_V == 0).tolist() == sorted([PAD, CLS, SEP, MASK])


def random_tokens(windows: npt.NDArray[np.int64]) -> HiddenTokens:
    """Return the inner tokens of all windows; a third of the neighbors are hidden too."""
    rng = np.random.default_rng(2)
    before_M, after_M = (
        np.where(rng.random(beside_NT.size) < 1 / 3, MASK, beside_NT.flatten())
        for beside_NT in (windows[:, :-2], windows[:, 2:])
    )
    return HiddenTokens(token_M=windows[:, 1:-1].flatten(), before_M=before_M, after_M=after_M)


def test_nats_of_a_half_do_not_depend_on_its_other_tokens(
    windows: npt.NDArray[np.int64], table: NgramTable
) -> None:
    tokens, prior_V = random_tokens(windows), hidden_frequencies(table)
    half_M = np.arange(len(tokens.token_M)) % 3 == 0
    kept_M = half_M & (np.arange(len(half_M)) >= 300)
    changed = replace(tokens, token_M=np.where(half_M & ~kept_M, 11, tokens.token_M))
    first_M, second_M = (
        predict_by_neighbors(prior_V, table.lifts, those, half_M) for those in (tokens, changed)
    )
    assert first_M[kept_M].tolist() == second_M[kept_M].tolist()
    assert not np.allclose(first_M[~half_M], second_M[~half_M])  # the power is fitted on the others


def test_power_is_the_best_one_of_the_other_half(
    windows: npt.NDArray[np.int64], table: NgramTable
) -> None:
    tokens, prior_V = random_tokens(windows), hidden_frequencies(table)
    half_M = np.arange(len(tokens.token_M)) % 3 == 0
    found_M = predict_by_neighbors(prior_V, table.lifts, tokens, half_M)
    for scored_M in (half_M, ~half_M):
        fitted, scored = tokens.select(~scored_M), tokens.select(scored_M)

        def loss(power: Floats, fitted: HiddenTokens = fitted) -> float:
            return float(token_nats(prior_V, table.lifts, fitted, power[0]).mean())

        power = minimize(loss, [1.0], method="Nelder-Mead", options={"xatol": 1e-8}).x[0]
        assert 0.1 < power < 3.9
        expected_M = token_nats(prior_V, table.lifts, scored, power)
        assert found_M[scored_M] == pytest.approx(expected_M, rel=1e-3)


@pytest.mark.parametrize("length", [8, 16])
def test_neighbors_are_those_in_the_window_unless_they_are_hidden(
    prepared_text: PreparedText, length: int
) -> None:
    vocabulary, passages = prepared_text.corpus.vocabulary, prepared_text.corpus.passages[:2]
    hidden = hide_words(vocabulary, passages, length, "each")
    tokens = hidden_tokens(hidden)
    found = list(
        zip(tokens.before_M.tolist(), tokens.token_M.tolist(), tokens.after_M.tolist(), strict=True)
    )
    expected = []
    for ids, words, originals in zip(
        hidden.ids_WT.tolist(), hidden.word_WT.tolist(), hidden.token_WT.tolist(), strict=True
    ):
        for t, word in enumerate(words):
            if word >= 0:
                before = MASK if words[t - 1] >= 0 else ids[t - 1]
                after = MASK if words[t + 1] >= 0 else ids[t + 1]
                expected.append((before, originals[t], after))
    assert found == expected
    assert any(before == MASK for before, *_ in found)


# Scores of a text.


def head_of_frequencies(frequencies_V: Floats) -> VocabularyHead:
    """Return a head that predicts the token frequencies for every input."""
    head = VocabularyHead(SHAPE, len(frequencies_V))
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()
        head.bias.copy_(torch.from_numpy(np.log(np.maximum(frequencies_V, 1e-30))))
    return head


@pytest.mark.parametrize("length", [8, 16])
def test_head_that_states_the_frequencies_has_the_score_of_the_unigram_table(
    prepared_text: PreparedText, length: int
) -> None:
    corpus = cut(prepared_text.corpus, length)
    table = count_ngrams(corpus)
    head = head_of_frequencies(hidden_frequencies(table))
    encoder = Encoder(SHAPE, corpus.vocabulary.size, length).eval()
    score = score_head(
        encoder, head, hide_words(corpus.vocabulary, corpus.passages, length, "each")
    )
    assert score is not None
    expected = score_token_tables(table, corpus)[UNIGRAM]
    assert score.nats_per_character == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("size", ["nano32", "nano"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_untrained_head_has_more_nats_than_the_unigram_table(
    prepared_text: PreparedText, size: str, seed: int
) -> None:
    """Its bias is the frequencies, and its random weights are wrong more often than right."""
    corpus, shape = prepared_text.corpus, SIZES[size]
    encoder = Encoder(shape, corpus.vocabulary.size, 16).eval()
    head = VocabularyHead(shape, corpus.vocabulary.size)
    initialize_weights(encoder, shape, seed)
    initialize_weights(head, shape, seed)
    head.initialize_bias(torch.from_numpy(corpus.counts_V))
    score = score_head(encoder, head, hide_words(corpus.vocabulary, corpus.passages, 16, "each"))
    assert score is not None
    assert score.nats_per_character > score_token_tables(count_ngrams(corpus), corpus)[UNIGRAM]


def cut(corpus: Corpus, length: int) -> Corpus:
    """Return the text in windows of another length, encoded by its vocabulary."""
    tokens = np.concatenate(corpus.vocabulary.encode([each.text for each in corpus.passages]))
    inner_NT = tokens[: len(tokens) // (length - 2) * (length - 2)].reshape(-1, length - 2)
    windows_NT = np.pad(inner_NT, ((0, 0), (1, 1)), constant_values=((0, 0), (CLS, SEP)))
    return replace(corpus, train_NT=windows_NT.astype(np.uint16))


@pytest.mark.parametrize(
    "tokenizer", [TrainedTokenizer(cased=True), ByteLevelTokenizer(kind="byte_level")]
)
@pytest.mark.parametrize("length", [8, 64])
def test_visible_neighbors_make_the_code_shorter_in_other_windows_and_vocabularies(
    prepared_text: PreparedText, tokenizer: TrainedTokenizer | ByteLevelTokenizer, length: int
) -> None:
    corpus = prepared_text.corpus
    vocabulary = build_vocabulary(tokenizer, 700, lambda: [each.text for each in corpus.passages])
    other = cut(replace(corpus, vocabulary=vocabulary), length)
    scores = score_token_tables(count_ngrams(other), other)
    assert scores[BIGRAM] < 0.97 * scores[UNIGRAM]


def test_visible_neighbors_make_the_code_of_unread_text_shorter(
    prepared_text: PreparedText,
) -> None:
    scores = score_token_tables(count_ngrams(prepared_text.corpus), prepared_text.corpus)
    assert scores[BIGRAM] < 0.97 * scores[UNIGRAM]


@pytest.mark.parametrize("text", ["a few words of text", "1 2 3"])
def test_text_with_few_words_has_no_scores(prepared_text: PreparedText, text: str) -> None:
    few = replace(prepared_text.corpus, passages=(Passage(0, text),))
    assert score_token_tables(count_ngrams(few), few) == {}
