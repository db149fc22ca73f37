"""Scores: AUROC, held-out corruptions and probes; scoring changes no state."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared_text import PreparedText
from scipy import stats
from sklearn.metrics import roc_auc_score
from torch import Tensor

from lab.config.architecture import EncoderConfig
from lab.config.budget import Budget
from lab.config.metrics import CORRUPTIONS, METRICS
from lab.config.objectives import AnyObjectiveConfig
from lab.config.objectives.electra import ElectraConfig
from lab.config.objectives.mlm import MlmConfig
from lab.config.objectives.random import RandomReplacementConfig
from lab.config.results import MetricRow
from lab.config.trial import Trial
from lab.data.vocabulary import CLS, FIRST_WORD, MASK, PAD, SEP
from lab.evaluation import corruption, probes, scores
from lab.evaluation.corruption import HeldOut, open_held_out
from lab.evaluation.scores import auroc
from lab.tasks import embedded
from lab.training.initialization import initialize_weights
from lab.training.model import Encoder
from lab.training.objectives import build_objective
from lab.training.objectives.base import Detector, StepLoss

SHAPE = EncoderConfig(
    layers=2, hidden=48, ffn=64, heads=2, embedding=32, init_std=0.1, dropout=0.1, norm="pre"
)
sources = pytest.mark.parametrize("source", CORRUPTIONS)
few = pytest.mark.usefixtures("few_sentences")


def objective(text: PreparedText, settings: AnyObjectiveConfig) -> Any:
    trial = Trial(
        encoder=SHAPE, objective=settings, data=text.data, budget=Budget(kind="tokens", amount=1)
    )
    return build_objective(trial, torch.from_numpy(text.corpus.counts_V))


@given(
    answers=st.lists(
        st.tuples(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 3.0]), st.booleans()), min_size=2
    ).filter(lambda answers: len({label for _, label in answers}) == 2)
)
@settings(deadline=None)
def test_auroc_with_ties_equals_sklearns(answers: list[tuple[float, bool]]) -> None:
    scores_N, labels_N = (torch.tensor(column) for column in zip(*answers, strict=True))
    expected = roc_auc_score(labels_N.numpy(), scores_N.numpy())
    assert auroc(scores_N, labels_N) == pytest.approx(expected, abs=1e-12)


def test_auroc_of_distinct_scores_equals_sklearns() -> None:
    generator = torch.Generator().manual_seed(0)
    scores_N = torch.randn(5_000, generator=generator, dtype=torch.float64)
    labels_N = torch.rand(5_000, generator=generator) < 0.15
    expected = roc_auc_score(labels_N.numpy(), scores_N.numpy())
    assert auroc(scores_N, labels_N) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("label", [True, False])
def test_auroc_of_one_class_raises(label: bool) -> None:
    with pytest.raises(ValueError, match="both replaced and original"):
        auroc(torch.arange(3.0), torch.full((3,), label))


@sources
def test_special_tokens_are_never_corrupted_and_ngrams_write_words(
    source: str, held_out: Path
) -> None:
    read = open_held_out(held_out)
    changed_NT = read.corrupted_NT[source] != read.original_NT
    special = torch.tensor([PAD, CLS, SEP, MASK])
    assert changed_NT.any()
    assert not torch.isin(read.original_NT[changed_NT], special).any()
    if source != "mlm":  # a language model may write anything
        assert (read.corrupted_NT[source][changed_NT] >= FIRST_WORD).all()


def test_about_15_percent_of_words_are_corrupted(held_out: Path) -> None:
    read = open_held_out(held_out)
    slots_NT = torch.stack([x != read.original_NT for x in read.corrupted_NT.values()]).any(0)
    share = slots_NT.sum() / (read.original_NT > SEP).sum()
    # A slot that all three sources refill with the original token is not counted.
    assert 0.11 < share < 0.16
    # 14 words have round(2.1) slots, and all sources refill the same slots.
    assert slots_NT.sum(1).max() <= 2


def test_held_out_windows_are_windows_of_the_corpus(
    held_out: Path, prepared_text: PreparedText
) -> None:
    rows = {tuple(row) for row in prepared_text.corpus.held_out_NT.tolist()}
    assert {tuple(row) for row in open_held_out(held_out).original_NT.tolist()} <= rows


def test_second_preparation_makes_the_same_corruptions(
    held_out: Path, prepared_text: PreparedText, tmp_path: Path
) -> None:
    torch.manual_seed(4)
    torch.rand(9)
    again = corruption.prepare_held_out(prepared_text.corpus, prepared_text.data, tmp_path)
    first, second = open_held_out(held_out), open_held_out(again)
    assert again.name == held_out.name
    assert again != held_out
    assert first.original_NT.equal(second.original_NT)
    for source in CORRUPTIONS:
        assert first.corrupted_NT[source].equal(second.corrupted_NT[source])


def test_prepared_corruptions_are_not_made_again(
    held_out: Path, prepared_text: PreparedText, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corruption, "_frozen_model", None)
    assert (
        corruption.prepare_held_out(prepared_text.corpus, prepared_text.data, held_out.parent)
        == held_out
    )
    assert [file.name for file in held_out.parent.glob("*.npz")] == [held_out.name]


def grid(points: int) -> npt.NDArray[np.float64]:
    """Return uniform numbers that select each of `points` occurrences exactly once."""
    return (np.arange(points) + 0.5) / points


def test_unigram_draws_follow_the_training_counts(prepared_text: PreparedText) -> None:
    counts_V = prepared_text.corpus.counts_V.copy()  # other tests read it too
    counts_V[:FIRST_WORD] = 0
    uniform = grid(counts_V.sum())
    sampler = corruption._NgramSampler(prepared_text.corpus)
    drawn = sampler.unigram(uniform, uniform.astype(np.int64))
    assert np.bincount(drawn, minlength=400).tolist() == counts_V.tolist()


def test_bigram_draws_follow_the_preceding_token(prepared_text: PreparedText) -> None:
    corpus = prepared_text.corpus
    sampler, train_NT = corruption._NgramSampler(corpus), np.asarray(corpus.train_NT)
    counts_W = np.bincount(train_NT.flatten(), minlength=400)[FIRST_WORD:]
    most_frequent = counts_W.argsort()[-9:] + FIRST_WORD
    for before in (CLS, *most_frequent):
        after = train_NT[:, 1:][train_NT[:, :-1] == before]
        words = after[after >= FIRST_WORD]
        drawn = sampler.bigram(grid(len(words)), np.full(len(words), before))
        assert np.sort(drawn).tolist() == np.sort(words).tolist()


def test_bigram_draw_after_a_token_that_no_word_follows_is_a_unigram_draw(
    prepared_text: PreparedText,
) -> None:
    sampler = corruption._NgramSampler(prepared_text.corpus)
    drawn = sampler.bigram(grid(50), np.full(50, MASK))
    assert drawn.tolist() == sampler.unigram(grid(50), np.zeros(50, np.int64)).tolist()


def test_bigram_replacements_follow_the_original_preceding_token(
    held_out: Path, prepared_text: PreparedText
) -> None:
    read, train_NT = open_held_out(held_out), np.asarray(prepared_text.corpus.train_NT)
    pairs = set(zip(train_NT[:, :-1].flatten(), train_NT[:, 1:].flatten(), strict=True))
    with_followers = {before for before, after in pairs if after >= FIRST_WORD}
    corrupted_NT = read.corrupted_NT["bigram"]
    for n, t in (corrupted_NT != read.original_NT).nonzero().tolist():
        before = read.original_NT[n, t - 1].item()
        assert (before, corrupted_NT[n, t].item()) in pairs or before not in with_followers


class RuleDetector(Detector):
    """A detector that computes its logits from the tokens by a given function."""

    def __init__(self, rule: Callable[[Tensor], Tensor]) -> None:
        budget = Budget(kind="tokens", amount=1)
        settings = RandomReplacementConfig(kind="random")
        super().__init__(Trial(encoder=SHAPE, objective=settings, budget=budget))
        self.rule, self.unused = rule, torch.nn.Parameter(torch.zeros(1))

    def mask(self, batch: Any, step: int) -> Any:
        raise NotImplementedError

    def forward(self, batch: Any, step: int, *_: Any) -> StepLoss:
        raise NotImplementedError

    def networks(self) -> dict[str, list[torch.nn.Parameter]]:
        return {}

    def detect(self, ids_BT: Tensor, text_BT: Tensor, offset: int = 0) -> Tensor:  # noqa: ARG002
        assert (text_BT > 0).equal(ids_BT != PAD)
        return self.rule(ids_BT).float()


def perfect_detector(held_out: HeldOut, scale: float) -> RuleDetector:
    """Return a detector with logits `scale` at replaced and `-scale` at original tokens."""
    replaced = {}
    for corrupted_NT in held_out.corrupted_NT.values():
        for row, original in zip(corrupted_NT, held_out.original_NT, strict=True):
            replaced[tuple(row.tolist())] = row != original

    def rule(ids_BT: Tensor) -> Tensor:
        return scale * torch.stack([replaced[tuple(row.tolist())] * 2.0 - 1 for row in ids_BT])

    return RuleDetector(rule)


def test_perfect_detector_has_auroc_one(held_out: Path) -> None:
    read = open_held_out(held_out)
    row = scores.score_detection(perfect_detector(read, 20.0), read)
    for source in CORRUPTIONS:
        assert row[f"detect/{source}/auroc"] == 1
        assert row[f"detect/{source}/calibrated_loss"] < 1e-6
    row = scores.score_detection(perfect_detector(read, -20.0), read)
    assert all(row[f"detect/{source}/auroc"] == 0 for source in CORRUPTIONS)


def test_constant_detector_has_auroc_one_half(held_out: Path) -> None:
    read = open_held_out(held_out)
    row = scores.score_detection(RuleDetector(torch.zeros_like), read)
    assert {row[f"detect/{source}/auroc"] for source in CORRUPTIONS} == {0.5}
    words_NT = read.original_NT >= FIRST_WORD
    replaced_N = (read.corrupted_NT["mlm"] != read.original_NT)[words_NT]
    entropy = stats.entropy(np.bincount(replaced_N) / len(replaced_N))
    assert row["detect/mlm/calibrated_loss"] == pytest.approx(entropy, abs=1e-3)


def test_logits_at_special_tokens_are_not_scored(held_out: Path) -> None:
    read = open_held_out(held_out)
    generator = torch.Generator().manual_seed(0)
    noise_NT = torch.randn(read.original_NT.shape, generator=generator)

    def row(at_special: float) -> MetricRow:
        return scores.score_detection(
            RuleDetector(lambda ids: noise_NT[: len(ids)].where(ids >= FIRST_WORD, at_special)),
            HeldOut(
                original_NT=read.original_NT,
                corrupted_NT={"unigram": read.corrupted_NT["unigram"]},
                document_N=read.document_N,
            ),
        )

    assert row(-50.0) == row(50.0)


def test_detection_does_not_depend_on_the_number_of_windows_encoded_at_once(
    held_out: Path, prepared_text: PreparedText, monkeypatch: pytest.MonkeyPatch
) -> None:
    built, read = objective(prepared_text, ElectraConfig(kind="electra")), open_held_out(held_out)
    whole = scores.score_detection(built, read)
    monkeypatch.setattr(scores, "_WINDOWS", 7)
    assert scores.score_detection(built, read) == pytest.approx(whole, abs=1e-6)


def test_objective_without_discriminator_has_no_detection_score(
    held_out: Path, prepared_text: PreparedText
) -> None:
    assert (
        scores.score_detection(
            objective(prepared_text, MlmConfig(kind="mlm")), open_held_out(held_out)
        )
        == {}
    )


@few
@pytest.mark.parametrize("settings", [ElectraConfig(kind="electra"), MlmConfig(kind="mlm")])
def test_probing_changes_no_state_and_returns_named_metrics(
    settings: AnyObjectiveConfig, prepared_text: PreparedText
) -> None:
    built = objective(prepared_text, settings)
    rng_state = torch.get_rng_state()
    weights = {name: value.clone() for name, value in built.state_dict().items()}
    row = scores.score_probe(built, prepared_text.corpus.vocabulary, "pos")
    assert set(row) == {"probe/pos/accuracy", "probe/pos/nats"} <= set(METRICS)
    assert built.training
    assert torch.get_rng_state().equal(rng_state)
    assert all(value.equal(weights[name]) for name, value in built.state_dict().items())
    assert all(p.grad is None for p in built.parameters())


def encoder(seed: int = 0) -> Encoder:
    built = Encoder(SHAPE, 400, 16)
    initialize_weights(built, SHAPE, seed)
    return built.eval()


def majority(task: embedded.Task) -> float:
    """Return the test accuracy of the most frequent training label."""
    train = [label for labels in embedded.read_embedded(task, "train").labels for label in labels]
    test = [label for labels in embedded.read_embedded(task, "test").labels for label in labels]
    return float(np.mean(np.array(test) == stats.mode(train).mode))


@few
@pytest.mark.parametrize("layer", [None, 0, 1, 2])
def test_part_of_speech_probe_is_deterministic_and_beats_the_majority(
    layer: int | None, prepared_text: PreparedText
) -> None:
    tokenizer = prepared_text.corpus.vocabulary
    torch.manual_seed(1)
    first = probes.evaluate_probe(encoder(), tokenizer, "pos", layer)
    torch.manual_seed(2)
    again = probes.evaluate_probe(encoder(), tokenizer, "pos", layer)
    assert (again.accuracy, again.nats) == (first.accuracy, first.nats)
    assert first.accuracy > majority("pos") + 0.1


@few
def test_sentiment_probe_is_deterministic_and_beats_the_majority(
    prepared_text: PreparedText,
) -> None:
    first, second = (
        probes.evaluate_probe(encoder(), prepared_text.corpus.vocabulary, "sentiment") for _ in "ab"
    )
    assert (first.accuracy, first.nats) == (second.accuracy, second.nats)
    assert first.accuracy > majority("sentiment")


@few
@pytest.mark.parametrize("task", ["pos", "sentiment"])
def test_features_do_not_depend_on_the_order_of_the_windows(
    task: embedded.Task, prepared_text: PreparedText
) -> None:
    read = probes.probe_windows(prepared_text.corpus.vocabulary, task, "test", 16)
    order_W = torch.randperm(len(read.ids_WT), generator=torch.Generator().manual_seed(0))
    other = probes.ProbeWindows(
        ids_WT=read.ids_WT[order_W],
        unit_WT=read.unit_WT[order_W],
        labels_N=read.labels_N,
        classes=read.classes,
    )
    whole, shuffled = probes._features(encoder(), read), probes._features(encoder(), other)
    torch.testing.assert_close(shuffled, whole, atol=1e-5, rtol=1e-5)


@few
@pytest.mark.parametrize("task", ["pos", "sentiment"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_unit_of_a_task_is_in_the_windows_once(
    task: embedded.Task, split: embedded.Split, prepared_text: PreparedText
) -> None:
    tokenizer = prepared_text.corpus.vocabulary
    read, sentences = (
        probes.probe_windows(tokenizer, task, split, 16),
        embedded.read_embedded(task, split),
    )
    counts_N = torch.bincount(read.unit_WT[read.unit_WT >= 0], minlength=len(read.labels_N))
    assert len(read.labels_N) == sum(map(len, sentences.labels)) == len(counts_N)
    if task == "pos":
        units = [word for words in sentences.words for word in words]
        first = {
            read.unit_WT[w, t].item(): read.ids_WT[w, t].item()
            for w, t in (read.unit_WT >= 0).nonzero().tolist()
        }
        assert counts_N.max() == 1
        assert all(tokenizer.encode([units[unit]])[0][0] == token for unit, token in first.items())
    assert (counts_N > 0).double().mean() > 0.99
    assert int(read.labels_N.max()) < read.classes
