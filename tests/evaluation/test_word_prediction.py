"""Hidden words: the same for all vocabularies and windows; scores equal independent references."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from prepared_text import PreparedText
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from lab.config.architecture import EncoderConfig
from lab.config.data import TrainedTokenizer
from lab.config.metrics import METRICS
from lab.data.passages import Passage
from lab.data.tokenizers import build_vocabulary
from lab.data.vocabulary import CLS, MASK, PAD, SEP, UNK, Vocabulary
from lab.evaluation import discriminant, word_prediction
from lab.evaluation.discriminant import Discriminant, predict_half
from lab.evaluation.hidden_words import HiddenWords, Masks, Spelling, hide_words
from lab.evaluation.lookup import count_ngrams
from lab.evaluation.word_lookup import score_word_tables
from lab.evaluation.word_prediction import score_head, score_readout
from lab.training.initialization import initialize_weights
from lab.training.model import Encoder, VocabularyHead

SHAPE = EncoderConfig(
    layers=1, hidden=24, ffn=32, heads=2, embedding=16, init_std=0.1, dropout=0, norm="post"
)
each_kind = pytest.mark.parametrize("masks", ["one", "each"])


@pytest.fixture(scope="module")
def other_vocabulary(prepared_text: PreparedText) -> Vocabulary:
    """Return a vocabulary of other pieces, which distinguishes case."""
    texts = [passage.text for passage in prepared_text.corpus.passages]
    return build_vocabulary(TrainedTokenizer(cased=True), 700, lambda: texts)


@pytest.fixture
def hide(prepared_text: PreparedText) -> Callable[..., HiddenWords]:
    def hide(masks: Masks, length: int = 16, vocabulary: Vocabulary | None = None) -> HiddenWords:
        corpus = prepared_text.corpus
        return hide_words(vocabulary or corpus.vocabulary, corpus.passages, length, masks)

    return hide


Hide = Callable[..., HiddenWords]


def make_encoder(length: int = 16, vocab: int = 400) -> Encoder:
    encoder = Encoder(SHAPE, vocab, length)
    initialize_weights(encoder, SHAPE, 0)
    return encoder.eval()


@each_kind
@pytest.mark.parametrize("length", [8, 16, 64])
def test_each_vocabulary_and_window_hides_the_same_words(
    hide: Hide, other_vocabulary: Vocabulary, masks: Masks, length: int
) -> None:
    expected = hide("one")
    for vocabulary in (None, other_vocabulary):
        actual = hide(masks, length, vocabulary)
        assert actual.words == expected.words
        assert actual.half_N.equal(expected.half_N)
        assert actual.ids_WT.shape[1] == length


@each_kind
@pytest.mark.parametrize("length", [16, 64])
def test_windows_are_framed_and_have_masks_at_hidden_words_only(
    hide: Hide, masks: Masks, length: int
) -> None:
    read = hide(masks, length)
    assert (read.ids_WT[:, 0] == CLS).all()
    assert ((read.ids_WT == SEP).sum(1) == 1).all()
    assert (read.ids_WT == MASK).equal(read.word_WT >= 0)
    after_WT = (read.ids_WT == SEP).cumsum(1) - (read.ids_WT == SEP).long()
    assert (read.ids_WT == PAD).equal(after_WT > 0)


def test_single_mask_does_not_tell_the_number_of_tokens(hide: Hide) -> None:
    read = hide("one")
    counts_N = torch.bincount(read.word_WT[read.word_WT >= 0], minlength=len(read.words))
    assert (counts_N == 1).all()


def test_masks_of_each_token_cover_the_word(hide: Hide, prepared_text: PreparedText) -> None:
    read, vocabulary = hide("each"), prepared_text.corpus.vocabulary
    tokens: dict[int, list[int]] = {}
    for word, token in zip(read.word_WT.flatten().tolist(), read.token_WT.flatten().tolist(),
                           strict=True):  # fmt: skip
        if word >= 0:
            tokens.setdefault(word, []).append(token)
    assert len(tokens) == len(read.words)
    for number, word in enumerate(read.words):
        if UNK not in tokens[number] and word.isascii():
            assert vocabulary.decode(tokens[number]).replace(" ##", "").removeprefix("##") == word


def test_rest_of_the_text_is_unchanged_by_hiding(hide: Hide, prepared_text: PreparedText) -> None:
    read, corpus = hide("each"), prepared_text.corpus
    written_WT = torch.where(read.word_WT >= 0, read.token_WT, read.ids_WT)
    encoded = corpus.vocabulary.encode([passage.text for passage in corpus.passages])
    special = torch.tensor([CLS, SEP, PAD])
    assert written_WT[~torch.isin(written_WT, special)].tolist() == np.concatenate(encoded).tolist()


def test_halves_share_no_passage(prepared_text: PreparedText) -> None:
    corpus = prepared_text.corpus
    alone = [
        len(hide_words(corpus.vocabulary, (passage,), 16, "one").words)
        for passage in corpus.passages
    ]
    half_N = hide_words(corpus.vocabulary, corpus.passages, 16, "one").half_N
    assert len(half_N) == sum(alone)
    assert 0.2 < half_N.double().mean() < 0.8


def code_of_frequencies(read: HiddenWords, classes: int) -> float:
    """Return the nats per character of the word frequencies of the other half, by hand."""
    total = 0.0
    halves = read.half_N.tolist()
    for scored in (True, False):
        fitted = [w for w, half in zip(read.words, halves, strict=True) if half != scored]
        ranked = sorted(Counter(fitted).items(), key=lambda item: (-item[1], item[0]))
        frequent = dict(ranked[: classes - 1])
        rare = [word for word in fitted if word not in frequent]
        letters = Counter("".join(rare))
        symbols = letters.total() + len(rare) + len(letters) + 2
        for word in (w for w, half in zip(read.words, halves, strict=True) if half == scored):
            count = frequent.get(word, len(rare))
            total -= math.log((count + 0.5) / (len(fitted) + 0.5 * (len(frequent) + 1)))
            if word not in frequent:
                total -= sum(math.log((letters[letter] + 1) / symbols) for letter in word)
                total -= math.log((len(rare) + 1) / symbols)
    return total / sum(map(len, read.words))


def readout(encoder: Encoder, read: HiddenWords) -> float:
    score = score_readout(encoder, read)
    assert score is not None
    return score.nats_per_character


def states(monkeypatch: pytest.MonkeyPatch, states_Nh: Tensor) -> None:
    monkeypatch.setattr(word_prediction, "_states_around_masks", lambda *_: states_Nh)


def test_states_without_information_have_the_code_of_the_word_frequencies(
    hide: Hide, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = hide("one")
    states(monkeypatch, torch.ones(len(read.words), 5))
    score = readout(make_encoder(), read)
    assert score == pytest.approx(code_of_frequencies(read, 256), abs=1e-6)


def test_unigram_table_has_the_code_of_the_word_frequencies(
    hide: Hide, prepared_text: PreparedText
) -> None:
    corpus = prepared_text.corpus
    scores = score_word_tables(count_ngrams(corpus), corpus)
    expected = code_of_frequencies(hide("one"), 256)
    assert scores["baseline/unigram/mlm/nats_per_character"] == pytest.approx(expected)


def test_states_that_name_the_word_leave_the_spelling_of_rare_words(
    hide: Hide, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = hide("one")
    uninformed = readout(make_encoder(), read)
    number = {word: index for index, (word, _) in enumerate(Counter(read.words).most_common(40))}
    labels_N = torch.tensor([number.get(word, 40) for word in read.words])
    states(monkeypatch, torch.nn.functional.one_hot(labels_N, 41).float())
    informed = readout(make_encoder(), read)
    assert informed < uninformed - 0.1


def test_score_is_bitwise_reproducible_and_changes_no_state(
    hide: Hide, prepared_text: PreparedText
) -> None:
    encoder, read = make_encoder(), hide("one")
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    first = readout(encoder, read)
    torch.manual_seed(5)
    assert readout(encoder, read) == first
    assert all(value.equal(before[name]) for name, value in encoder.state_dict().items())
    assert {"mlm/nats_per_character", "mlm/own_head/nats_per_character"} <= set(METRICS)


def test_state_that_is_not_finite_gives_nan(hide: Hide, monkeypatch: pytest.MonkeyPatch) -> None:
    read = hide("one")
    states_Nh = torch.zeros(len(read.words), 3)
    states_Nh[1, 1] = math.nan
    states(monkeypatch, states_Nh)
    assert math.isnan(readout(make_encoder(), read))


def test_text_with_a_single_passage_has_no_score(prepared_text: PreparedText) -> None:
    read = hide_words(
        prepared_text.corpus.vocabulary, (Passage(0, "a few words of text"),), 16, "one"
    )
    assert score_readout(make_encoder(), read) is None


def test_states_are_those_around_the_mask_however_many_windows_are_encoded_at_once(
    hide: Hide, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, encoder = hide("one"), make_encoder()
    whole_Nh = word_prediction._states_around_masks(encoder, read)
    monkeypatch.setattr(word_prediction, "_TOKENS", 7 * 16)
    torch.testing.assert_close(word_prediction._states_around_masks(encoder, read), whole_Nh)
    w, t = (read.word_WT == 3).nonzero()[0].tolist()
    ids_1T = read.ids_WT[w : w + 1]
    with torch.no_grad():
        expected_h = encoder(ids_1T, (ids_1T != PAD).long())[0, t - 1 : t + 2].flatten()
    torch.testing.assert_close(whole_Nh[3], expected_h, atol=1e-5, rtol=1e-5)


def make_classes() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels_N = torch.randint(0, 6, (600,), generator=generator)
    centers_Cd = torch.randn(6, 4, generator=generator)
    return centers_Cd[labels_N] + torch.randn(600, 4, generator=generator), labels_N


def test_discriminant_without_shrinkage_equals_sklearns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discriminant, "_PRIOR_COUNT", 0.0)
    x_Nd, labels_N = make_classes()
    counts = np.bincount(labels_N.numpy())
    reference = LinearDiscriminantAnalysis(solver="lsqr", priors=(counts + 0.5) / (600 + 3))
    reference.fit(x_Nd.double().numpy(), labels_N.numpy())
    expected = -reference.predict_log_proba(x_Nd.double().numpy())[np.arange(600), labels_N]
    actual_N = Discriminant(x_Nd, labels_N, 6, ridge=0.0).nats(x_Nd, labels_N, scale=1.0)
    # scikit-learn weights the covariance by the priors, which are not exactly the shares.
    np.testing.assert_allclose(actual_N.numpy(), expected, atol=1e-3)


def test_examples_that_are_scored_do_not_influence_the_fit() -> None:
    x_Nd, labels_N = make_classes()
    scored_N = torch.arange(600) % 2 == 0
    first_N = predict_half(x_Nd, labels_N, scored_N, 6)
    other_N = labels_N.clone()
    other_N[0] = (labels_N[0] + 1) % 6
    second_N = predict_half(x_Nd, other_N, scored_N, 6)
    assert first_N[1:].equal(second_N[1:])
    assert first_N.mean() < math.log(6) - 0.5


def test_spelling_is_a_code_of_words() -> None:
    """The probabilities of all words, by length, add up to less than 1."""
    spelling = Spelling(["ab", "b"])
    end = math.exp(-spelling.nats(""))
    letters = [math.exp(-spelling.nats(letter)) / end for letter in "abx"]
    assert end == pytest.approx(3 / 9)
    assert letters == pytest.approx([2 / 9, 3 / 9, 1 / 9])


def test_head_equals_the_loss_of_transformers_electra(
    hide: Hide, prepared_text: PreparedText, transformers_model: Callable[..., Any]
) -> None:
    read, encoder = hide("each"), make_encoder()
    head = VocabularyHead(SHAPE, 400)
    initialize_weights(head, SHAPE, 1)
    head.initialize_bias(torch.from_numpy(prepared_text.corpus.counts_V))
    model = transformers_model(encoder, head, SHAPE, 400, 16)
    labels_WT = torch.where(read.word_WT >= 0, read.token_WT, -100)
    with torch.no_grad():
        mean = model(
            read.ids_WT, attention_mask=(read.ids_WT != PAD).long(), labels=labels_WT
        ).loss.item()
    masked_WT = read.word_WT >= 0
    tokens = np.bincount(read.word_WT[masked_WT].numpy())
    shares = np.bincount(tokens) / len(tokens)
    shares = shares[shares > 0]
    spelling = Spelling(read.words)
    unknown = set(read.word_WT[masked_WT & (read.token_WT == UNK)].tolist())
    total = (
        mean * int(masked_WT.sum())
        - len(tokens) * float((shares * np.log(shares)).sum())
        + sum(spelling.nats(read.words[number]) for number in unknown)
    )
    actual = score_head(encoder, head, read)
    assert actual is not None
    assert actual.nats_per_character == pytest.approx(total / sum(map(len, read.words)), rel=1e-5)
