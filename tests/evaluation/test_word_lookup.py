"""Look-up tables of hidden words: complete codes, which equal references by hand."""

import itertools
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from prepared_text import PreparedText
from scipy.optimize import minimize
from scipy.special import softmax

from lab.config.data import ByteLevelTokenizer, TrainedTokenizer
from lab.data.batches import Corpus
from lab.data.passages import Passage
from lab.data.tokenizers import build_vocabulary
from lab.data.vocabulary import CLS, FIRST_WORD, PAD, SEP
from lab.evaluation import lookup, word_lookup
from lab.evaluation.hidden_words import hide_words
from lab.evaluation.word_lookup import WordTokens, predict_by_neighbors, score_word_tables

READOUT = "mlm/nats_per_character"
V, CLASSES, N = 14, 4, 60
FITTED = torch.arange(N) % 3 > 0


@pytest.fixture(scope="module")
def table(prepared_text: PreparedText) -> lookup.NgramTable:
    return lookup.count_ngrams(prepared_text.corpus)


# Scores of a text.


@pytest.mark.parametrize(
    "tokenizer", [TrainedTokenizer(cased=True), ByteLevelTokenizer(kind="byte_level")]
)
@pytest.mark.parametrize("length", [8, 64])
def test_tokens_beside_the_word_make_the_code_shorter_in_other_windows_and_vocabularies(
    prepared_text: PreparedText, tokenizer: TrainedTokenizer | ByteLevelTokenizer, length: int
) -> None:
    corpus = prepared_text.corpus
    texts = [passage.text for passage in corpus.passages]
    vocabulary = build_vocabulary(tokenizer, 700, lambda: texts)
    tokens = np.concatenate(vocabulary.encode(texts))
    inner_NT = tokens[: len(tokens) // (length - 2) * (length - 2)].reshape(-1, length - 2)
    windows_NT = np.pad(inner_NT, ((0, 0), (1, 1)), constant_values=((0, 0), (CLS, SEP)))
    other = replace(corpus, vocabulary=vocabulary, train_NT=windows_NT.astype(np.uint16))
    scores = score_word_tables(lookup.count_ngrams(other), other)
    assert scores[f"baseline/bigram/{READOUT}"] < 0.97 * scores[f"baseline/unigram/{READOUT}"]


@pytest.mark.parametrize("text", ["a few words of text", "1 2 3"])
def test_text_with_few_words_has_no_scores(
    prepared_text: PreparedText, table: lookup.NgramTable, text: str
) -> None:
    few = replace(prepared_text.corpus, passages=(Passage(0, text),))
    assert score_word_tables(table, few) == {}


def make_corpus(corpus: Corpus, sentences: list[str]) -> Corpus:
    """Return a text of these sentences, the same for training and for the hidden words."""
    passages = tuple(Passage(n, " ".join(sentences[n::8])) for n in range(8))
    encoded = corpus.vocabulary.encode(sentences)
    windows = [np.concatenate([[CLS], ids, [SEP]]) for ids in encoded]
    longest = max(map(len, windows))
    train_NT = np.array([np.pad(w, (0, longest - len(w)), constant_values=PAD) for w in windows])
    return replace(corpus, passages=passages, train_NT=train_NT)


@pytest.mark.parametrize("is_told", [True, False])
def test_bigram_code_is_short_only_if_the_neighbors_tell_the_word(
    prepared_text: PreparedText, is_told: bool
) -> None:
    rng = np.random.default_rng(0)
    following = {"apple": "zoo", "brook": "yarn", "cloud": "wax", "dream": "vine", "eagle": "unit"}
    names = list(following)
    drawn = rng.choice(names, (400, 6))
    sentences = [
        " ".join(f"{name} {following[name if is_told else rng.choice(names)]}" for name in row)
        for row in drawn
    ]
    corpus = make_corpus(prepared_text.corpus, sentences)
    scores = score_word_tables(lookup.count_ngrams(corpus), corpus)
    bigram, unigram = (scores[f"baseline/{name}/{READOUT}"] for name in ("bigram", "unigram"))
    assert bigram < 0.3 * unigram if is_told else 0.6 * unigram < bigram < 1.02 * unigram


# The prediction of classes.


Shares, Ints = npt.NDArray[np.float64], npt.NDArray[np.int64]


@pytest.fixture
def tokens() -> WordTokens:
    """Return words of one or two tokens; the first token depends on the token before the word."""
    rng = np.random.default_rng(0)
    first_N = rng.integers(FIRST_WORD, V, N)
    before_N = np.where(rng.random(N) < 0.6, first_N, rng.integers(FIRST_WORD, V, N))
    last_N = np.where(rng.random(N) < 0.5, first_N, FIRST_WORD)
    known_N = np.arange(N) != 7
    return WordTokens(
        before_N=before_N, first_N=first_N, last_N=last_N,
        after_N=rng.integers(FIRST_WORD, V, N), known_N=known_N,
    )  # fmt: skip


@pytest.fixture
def windows() -> Ints:
    """Return a text in which most tokens occur several times in a row."""
    rng = np.random.default_rng(1)
    runs = rng.integers(FIRST_WORD, V - 1, 600).repeat(rng.integers(1, 5, 600))
    return np.asarray(runs[:1_200].reshape(-1, 12))


@pytest.fixture
def small_table(windows: Ints) -> lookup.NgramTable:
    return lookup.NgramTable(windows, V)


@pytest.fixture
def labels(tokens: WordTokens) -> torch.Tensor:
    return torch.from_numpy(np.minimum(tokens.first_N - FIRST_WORD, CLASSES - 1))


def predict_by_hand(windows: Ints, tokens: WordTokens, labels_N: list[int]) -> Shares:
    """Return the probability of each class at each scored word, by counting in Python."""
    every = windows.flatten().tolist()
    frequency = [(every.count(token) + 1) / (len(every) + V) for token in range(V)]
    pairs = Counter(pair for row in windows.tolist() for pair in itertools.pairwise(row))

    def next_probability(before: int, after: int) -> float:
        followers = [pairs[before, token] for token in range(V) if pairs[before, token]]
        kinds = len(followers)
        if not kinds:
            return frequency[after]
        return (pairs[before, after] + kinds * frequency[after]) / (sum(followers) + kinds)

    fitted = FITTED.nonzero()[:, 0].tolist()
    counts = [sum(labels_N[n] == c for n in fitted) for c in range(CLASSES)]
    prior = [math.log((count + 0.5) / (len(fitted) + 0.5 * CLASSES)) for count in counts]

    def evidence(n: int, label: int) -> float:
        if not tokens.known_N[n]:
            return 0.0
        a, c = tokens.before_N[n], tokens.after_N[n]
        ratios = [
            next_probability(a, tokens.first_N[m])
            * next_probability(tokens.last_N[m], c)
            / (frequency[tokens.first_N[m]] * frequency[c])
            for m in fitted
            if labels_N[m] == label and tokens.known_N[m]
        ]
        return math.log(sum(ratios) / len(ratios))

    evidence_NC = np.array([[evidence(n, c) for c in range(CLASSES)] for n in range(N)])

    def loss(power: Shares) -> float:
        shares = softmax(prior + power * evidence_NC[fitted], axis=1)
        return -float(np.log(shares[np.arange(len(fitted)), np.array(labels_N)[fitted]]).mean())

    power = minimize(loss, [1.0], method="Nelder-Mead", options={"xatol": 1e-8}).x
    assert 0 < power[0] < 4
    scored = (~FITTED).nonzero()[:, 0].tolist()
    return np.asarray(softmax(prior + power * evidence_NC[scored], axis=1))


def test_classes_have_the_probabilities_of_the_reference(
    windows: Ints, tokens: WordTokens, labels: torch.Tensor
) -> None:
    expected = predict_by_hand(windows, tokens, labels.tolist())
    found = predict_by_neighbors(lookup.NgramTable(windows, V), tokens, labels, ~FITTED, CLASSES)
    rows = torch.arange(len(found))
    assert found.neg().exp().numpy() == pytest.approx(expected[rows, labels[~FITTED]], rel=1e-3)


def test_probabilities_of_all_classes_add_up_to_1_and_scored_words_are_not_fitted_on(
    small_table: lookup.NgramTable, tokens: WordTokens, labels: torch.Tensor
) -> None:
    total = torch.zeros(int((~FITTED).sum()), dtype=torch.float64)
    for label in range(CLASSES):
        claimed = torch.where(FITTED, labels, label)
        total += predict_by_neighbors(small_table, tokens, claimed, ~FITTED, CLASSES).neg().exp()
    assert total.numpy() == pytest.approx(np.ones(len(total)))


def test_number_of_words_at_once_does_not_change_the_code(
    small_table: lookup.NgramTable, tokens: WordTokens, labels: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    whole = predict_by_neighbors(small_table, tokens, labels, ~FITTED, CLASSES)
    monkeypatch.setattr(word_lookup, "_CHUNK", 7)
    torch.testing.assert_close(
        predict_by_neighbors(small_table, tokens, labels, ~FITTED, CLASSES), whole
    )


def test_word_without_a_token_has_the_code_of_its_frequency(
    small_table: lookup.NgramTable, tokens: WordTokens, labels: torch.Tensor
) -> None:
    none = replace(tokens, known_N=np.zeros(N, dtype=bool))
    torch.testing.assert_close(
        predict_by_neighbors(small_table, none, labels, ~FITTED, CLASSES),
        word_lookup.predict_by_frequency(labels, ~FITTED, CLASSES),
    )


@pytest.mark.parametrize("length", [8, 16])
def test_tokens_are_those_of_the_words_and_beside_them(
    prepared_text: PreparedText, length: int
) -> None:
    vocabulary, text = prepared_text.corpus.vocabulary, prepared_text.corpus.passages[0].text
    passages = (Passage(0, text),)
    single, each = (hide_words(vocabulary, passages, length, masks) for masks in ("one", "each"))
    tokens = word_lookup.word_tokens(single, each)
    whole = {n: [] for n in range(len(single.words))}
    for word, token in zip(each.word_WT.flatten().tolist(), each.token_WT.flatten().tolist(),
                           strict=True):  # fmt: skip
        if word >= 0:
            whole[word].append(token)
    assert tokens.known_N.tolist() == [bool(ids) for ids in whole.values()]
    assert tokens.first_N.tolist() == [ids[0] for ids in whole.values()]
    assert tokens.last_N.tolist() == [ids[-1] for ids in whole.values()]
    assert max(map(len, whole.values())) > 1
    for w, t in (single.word_WT >= 0).nonzero().tolist():
        n = single.word_WT[w, t]
        beside = (tokens.before_N[n], tokens.after_N[n])
        assert beside == (single.ids_WT[w, t - 1], single.ids_WT[w, t + 1])
