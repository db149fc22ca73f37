"""Probes and detection: scikit-learn's regression, the choice of the penalty, longer windows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from prepared_text import PreparedText
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from lab.config.architecture import EncoderConfig
from lab.config.budget import Budget
from lab.config.metrics import CORRUPTIONS
from lab.config.objectives.electra import ElectraConfig
from lab.config.trial import Trial
from lab.data import batches, preparation
from lab.evaluation import corruption, probes, scores
from lab.evaluation.probes import evaluate_probe, probe_windows
from lab.tasks import embedded
from lab.tasks.embedded import UNSEEN
from lab.training.initialization import initialize_weights
from lab.training.model import Encoder
from lab.training.objectives import build_objective

SHAPE = EncoderConfig(
    layers=1, hidden=16, ffn=32, heads=2, embedding=16, init_std=0.1, dropout=0, norm="pre"
)
pytestmark = pytest.mark.usefixtures("few_sentences")


def make_encoder(length: int = 16) -> Encoder:
    encoder = Encoder(SHAPE, 400, length)
    initialize_weights(encoder, SHAPE, 0)
    return encoder.eval()


def standardised_features(
    encoder: Encoder, text: PreparedText, layer: int
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return features and labels of the training and of the test split of `pos`."""
    vocabulary = text.corpus.vocabulary
    train, test = (
        probe_windows(vocabulary, "pos", split, encoder.length) for split in ("train", "test")
    )
    x, y = (probes._features(encoder, part)[layer] for part in (train, test))
    mean, std = x.mean(0), x.std(0)
    return ((x - mean) / std, train.labels_N), ((y - mean) / std, test.labels_N)


@pytest.mark.parametrize("penalty", [1e-2, 1e-1])
def test_probe_equals_sklearns_logistic_regression(
    prepared_text: PreparedText, monkeypatch: pytest.MonkeyPatch, penalty: float
) -> None:
    monkeypatch.setattr(probes, "_PENALTIES", (penalty,))
    monkeypatch.setattr(probes, "_STEPS", 400)
    encoder = make_encoder()
    actual = evaluate_probe(encoder, prepared_text.corpus.vocabulary, "pos", layer=1)
    (x, labels), (test_x, tests) = standardised_features(encoder, prepared_text, layer=1)
    # scikit-learn minimises C times the sum of the losses plus half the squared weights.
    reference = LogisticRegression(C=1 / (2 * penalty * len(labels)), tol=1e-8, max_iter=2_000)
    reference.fit(x.double().numpy(), labels.numpy())
    log_shares = reference.predict_log_proba(test_x.double().numpy())
    known = (tests != UNSEEN).numpy()
    assert not known.all()
    nats = -log_shares[known, tests.numpy()[known]].mean()
    assert actual.nats == pytest.approx(nats, abs=2e-3)
    right = reference.predict(test_x.double().numpy()) == tests.numpy()
    assert actual.accuracy == pytest.approx(right.mean(), abs=3e-3)


def make_rows(noise: float, rows: int = 400) -> tuple[Tensor, Tensor]:
    """Return features of one layer and labels, of which a share `noise` is random."""
    generator = torch.Generator().manual_seed(0)
    x_LNh = torch.randn(1, rows, 20, generator=generator)
    labels_N = (x_LNh[0, :, 0] > 0).long()
    random_N = torch.randint(0, 2, (rows,), generator=generator)
    drawn_N = torch.rand(rows, generator=generator) < noise
    return x_LNh, torch.where(drawn_N, random_N, labels_N)


def test_penalty_is_larger_for_noisier_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "_SEARCH_STEPS", 100)
    chosen = [probes._choose_penalty(*make_rows(noise), 2) for noise in (0.0, 0.3, 1.0)]
    assert chosen == sorted(chosen)
    assert chosen[0] < chosen[-1]


def test_penalty_does_not_depend_on_the_test_split(
    prepared_text: PreparedText, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = []
    fit = probes._fit_probe

    def recording(features_LNh: Tensor, labels_N: Tensor, *rest: object) -> object:
        fitted.append(len(labels_N))
        return fit(features_LNh, labels_N, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(probes, "_fit_probe", recording)
    evaluate_probe(make_encoder(), prepared_text.corpus.vocabulary, "pos")
    rows = len(probe_windows(prepared_text.corpus.vocabulary, "pos", "train", 16).labels_N)
    assert fitted.pop() == rows
    assert all(part in (rows // 2, rows - rows // 2) for part in fitted)
    assert len(fitted) % 2 == 0


@pytest.mark.parametrize("task", ["pos", "sentiment"])
def test_every_unit_of_a_task_is_in_longer_windows_once(
    task: embedded.Task, prepared_text: PreparedText
) -> None:
    vocabulary = prepared_text.corpus.vocabulary
    short, long = (probe_windows(vocabulary, task, "test", length) for length in (16, 128))
    assert long.labels_N.equal(short.labels_N)
    assert len(long.ids_WT) < len(short.ids_WT)
    for windows in (short, long):
        units = set(windows.unit_WT[windows.unit_WT >= 0].tolist())
        assert len(units) > 0.99 * len(windows.labels_N)
    assert (long.ids_WT == 0).double().mean() < 0.9


@pytest.mark.parametrize("task", ["pos", "sentiment"])
def test_probe_of_an_encoder_with_longer_windows_beats_the_majority(
    task: embedded.Task, prepared_text: PreparedText
) -> None:
    score = evaluate_probe(make_encoder(length=64), prepared_text.corpus.vocabulary, task)
    train = embedded.read_embedded(task, "train").labels
    test = [label for labels in embedded.read_embedded(task, "test").labels for label in labels]
    counts = np.bincount([label for labels in train for label in labels])
    assert score.accuracy > np.mean(np.array(test) == counts.argmax())
    if task == "sentiment":  # 200 rows do not suffice for calibrated probabilities
        return
    shares = counts / counts.sum()
    assert score.nats < -np.log(shares[[label for label in test if label != UNSEEN]]).mean()


def test_all_scores_are_taken_at_windows_of_64(
    prepared_text: PreparedText, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("long")
    data = replace(prepared_text.data, length=64)
    corpus = batches.open_corpus(preparation.prepare_text(data, folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corruption, "_FROZEN_TOKENS", 16_384)
        patch.setattr(corruption, "_TOKENS", 4_096)
        held_out = corruption.open_held_out(corruption.prepare_held_out(corpus, data, folder))
    assert held_out.original_NT.shape[1] == 64
    trial = Trial(
        encoder=SHAPE,
        objective=ElectraConfig(kind="electra"),
        data=data,
        budget=Budget(kind="tokens", amount=1),
    )
    objective = build_objective(trial, torch.from_numpy(corpus.counts_V))
    row = scores.score_detection(objective, held_out)
    for source in CORRUPTIONS:
        words_NT = held_out.original_NT > 4
        share = (held_out.corrupted_NT[source] != held_out.original_NT)[words_NT].double().mean()
        assert 0.08 < share < 0.16
        assert 0.4 < row[f"detect/{source}/auroc"] < 0.6
        entropy = -(share * share.log() + (1 - share) * (1 - share).log()).item()
        assert row[f"detect/{source}/calibrated_loss"] == pytest.approx(entropy, abs=0.01)
    words = scores.score_hidden_words(objective, corpus)
    short = scores.score_hidden_words(
        build_objective(replace(trial, data=prepared_text.data), torch.zeros(400)),
        prepared_text.corpus,
    )
    # Both read the same words, and untrained encoders know little but their frequencies.
    assert words["mlm/nats_per_character"] == pytest.approx(
        short["mlm/nats_per_character"], rel=0.1
    )
