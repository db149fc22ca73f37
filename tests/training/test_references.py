"""Every objective compared with independent implementations: electra_pytorch and transformers.

Letters: B examples, T positions, V vocabulary.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from objectives_by_kind import (
    LENGTH,
    SEED,
    SHAPE,
    VOCAB,
    Drawn,
    assert_same_gradients,
    gradient,
    make_objective,
    observed,
    only_masked,
    placed,
    plain,
    text,
)
from torch import Tensor, nn
from torch.nn import functional as F

from lab.config.architecture import EncoderConfig, GeneratorConfig
from lab.config.objectives.adversarial import AdversarialConfig
from lab.config.objectives.electra import AuxiliaryMlmConfig, Electra15Config, ElectraConfig
from lab.config.objectives.mlm import MlmConfig
from lab.config.objectives.predictors import AllTokensMlmConfig, ReplaceMlmConfig
from lab.config.objectives.random import RandomReplacementConfig
from lab.config.objectives.two_stage import TwoStageConfig
from lab.config.schedules.phases import UpdatedNetworks
from lab.data.vocabulary import FIRST_WORD, MASK, PAD
from lab.training.objectives import random as random_module
from lab.training.objectives.masking import choose_distinct, choose_independently, mask_batch

Model = Callable[..., Any]
Sharing = Literal["none", "tokens", "all", "gdes"]
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
FULL = GeneratorConfig(width=1)
TEXT = text()
SEEN_BT = (TEXT.ids_BT != PAD).long()
sharings = pytest.mark.parametrize("sharing", ["none", "tokens", "all", "gdes"])


@pytest.fixture
def reference(transformers_model: Model) -> Model:
    """Return a function that builds transformers' model from an encoder, its head and its shape."""

    def build(encoder: Any, head: nn.Module, shape: EncoderConfig = SHAPE) -> Any:
        model = transformers_model(plain(encoder), head, shape, VOCAB, LENGTH)
        # `padding_idx` would suppress the gradient of the embedding of a sampled [PAD].
        model.electra.embeddings.word_embeddings.padding_idx = None
        return model

    return build


def pair(objective: Any, settings: Any, reference: Model) -> tuple[Any, Any]:
    """Return transformers' models of the generator and of the encoder with its head."""
    small = settings.generator.derive_shape(SHAPE)
    generator = reference(objective.generator.encoder, objective.generator.vocabulary, small)
    head = objective.detection if hasattr(objective, "detection") else objective.vocabulary
    return generator, reference(objective.encoder, head)


def detection_loss(discriminator: Any, drawn: Drawn, where_BT: Tensor) -> Tensor:
    logits_BT = discriminator(drawn.written_BT, attention_mask=SEEN_BT).logits
    fake_BT = (drawn.written_BT != TEXT.ids_BT).float()
    return F.binary_cross_entropy_with_logits(logits_BT[where_BT], fake_BT[where_BT])


def mlm_loss(model: Any, ids_BT: Tensor, drawn: Drawn) -> Tensor:
    return model(ids_BT, attention_mask=SEEN_BT, labels=drawn.labels_BT).loss


def samples_some_originals(drawn: Drawn) -> bool:
    """Return whether some samples, but not all, equal the original token."""
    hit_BT = (drawn.written_BT == TEXT.ids_BT)[drawn.chosen_BT]
    return bool(hit_BT.any() and not hit_BT.all())


class Logits(nn.Module):
    """A network in the form that electra_pytorch expects: returns logits at all positions."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids_BT: Tensor, **arguments: Any) -> Tensor:
        return self.model(ids_BT, **arguments).logits


def distinct_slots(objective: Any, settings: ElectraConfig) -> Drawn:
    """Return a step with distinct slots; electra_pytorch counts a position drawn twice once."""
    for step in range(5_000):
        masked = mask_batch(
            TEXT,
            mask_prob=settings.mask_prob,
            masking=settings.masking,
            vocab=VOCAB,
            seed=SEED,
            step=step,
        )
        slots = [s[u].tolist() for s, u in zip(masked.slots_BK, masked.used_BK, strict=True)]
        if all(len(set(positions)) == len(positions) for positions in slots):
            drawn = observed(objective, TEXT, step)
            if samples_some_originals(drawn):
                return drawn
    raise AssertionError("no step has distinct slots and samples some originals")


@pytest.mark.parametrize("sharing", ["none", "tokens", "gdes"])
@pytest.mark.parametrize("masking", ["paper", "code"])
@pytest.mark.parametrize("mask_prob", [0.15, 0.3])
@pytest.mark.parametrize("weight", [50.0, 1.0])
def test_joint_loss_and_its_gradients_equal_electra_pytorch(
    sharing: Sharing,
    masking: Literal["paper", "code"],
    mask_prob: float,
    weight: float,
    reference: Model,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from electra_pytorch import electra_pytorch as package

    settings = ElectraConfig(
        kind="electra", mask_prob=mask_prob, masking=masking, disc_weight=weight, sharing=sharing
    )
    objective = make_objective(settings)
    drawn = distinct_slots(objective, settings)
    masked_BT = drawn.shown_BT == MASK
    assert masked_BT.equal(drawn.chosen_BT) is (masking == "paper")
    drawn.loss.total.backward()

    generator, discriminator = pair(objective, settings, reference)
    if sharing == "tokens":
        generator.electra.embeddings = discriminator.electra.embeddings
        generator.generator_lm_head.weight = discriminator.electra.embeddings.word_embeddings.weight
    joint = package.Electra(
        Logits(generator),
        Logits(discriminator),
        mask_token_id=MASK,
        pad_token_id=PAD,
        disc_weight=weight,
    )
    injected = {
        "get_mask_subset_with_prob": drawn.chosen_BT,
        "prob_mask_like": masked_BT,
        "gumbel_sample": drawn.written_BT[drawn.chosen_BT],
    }
    for name, value in injected.items():
        monkeypatch.setattr(package, name, lambda *_, value=value, **__: value)
    expected = joint(TEXT.ids_BT, attention_mask=SEEN_BT)
    expected.loss.backward()

    parts = drawn.loss.parts
    torch.testing.assert_close(drawn.loss.total, expected.loss, **CLOSE)
    torch.testing.assert_close(parts["train/generator_loss"], expected.mlm_loss.detach(), **CLOSE)
    torch.testing.assert_close(
        parts["train/discriminator_loss"], expected.disc_loss.detach(), **CLOSE
    )
    ours = reference(
        gradient(objective.generator.encoder),
        gradient(objective.generator.vocabulary),
        settings.generator.derive_shape(SHAPE),
    )
    assert_same_gradients(ours, generator)
    ours = reference(gradient(objective.encoder), gradient(objective.detection))
    assert_same_gradients(ours, discriminator)


@sharings
def test_auxiliary_loss_equals_mlm_of_the_encoder_on_the_masked_input(
    sharing: Sharing, reference: Model
) -> None:
    settings = ElectraConfig(
        kind="electra",
        sharing=sharing,
        generator=FULL,
        disc_weight=7.0,
        masking="bert",
        auxiliary=AuxiliaryMlmConfig(kind="mlm", weight=0.3),
    )
    objective = make_objective(settings)
    drawn = observed(objective, TEXT, 1)
    shown, original = drawn.shown_BT[drawn.chosen_BT], TEXT.ids_BT[drawn.chosen_BT]
    assert ((shown != MASK) & (shown != original)).any()
    generator, discriminator = pair(objective, settings, reference)
    auxiliary = reference(objective.encoder, objective.auxiliary.vocabulary)
    expected_auxiliary = mlm_loss(auxiliary, drawn.shown_BT, drawn)
    expected = detection_loss(discriminator, drawn, SEEN_BT > 0) + 0.3 * expected_auxiliary
    expected = mlm_loss(generator, drawn.shown_BT, drawn) + 7 * expected
    torch.testing.assert_close(drawn.loss.total, expected, **CLOSE)
    torch.testing.assert_close(
        drawn.loss.parts["train/auxiliary_loss"], expected_auxiliary.detach(), **CLOSE
    )


@sharings
def test_electra_15_equals_detection_at_the_slots(sharing: Sharing, reference: Model) -> None:
    settings = Electra15Config(kind="electra_15", sharing=sharing, generator=FULL, disc_weight=7.0)
    objective = make_objective(settings)
    drawn = observed(objective, TEXT, 1)
    assert samples_some_originals(drawn)
    generator, discriminator = pair(objective, settings, reference)
    expected = mlm_loss(generator, drawn.shown_BT, drawn)
    expected = expected + 7 * detection_loss(discriminator, drawn, drawn.chosen_BT)
    torch.testing.assert_close(drawn.loss.total, expected, **CLOSE)


@sharings
def test_replace_mlm_equals_mlm_on_the_sampled_text(sharing: Sharing, reference: Model) -> None:
    settings = ReplaceMlmConfig(
        kind="replace_mlm", sharing=sharing, generator=FULL, mlm_weight=7.0, gen_weight=2.0
    )
    objective = make_objective(settings)
    drawn = observed(objective, TEXT, 1)
    assert samples_some_originals(drawn)
    generator, encoder = pair(objective, settings, reference)
    expected = 2 * mlm_loss(generator, drawn.shown_BT, drawn)
    expected = expected + 7 * mlm_loss(encoder, drawn.written_BT, drawn)
    torch.testing.assert_close(drawn.loss.total, expected, **CLOSE)


@sharings
def test_all_tokens_mlm_mixes_copy_and_softmax_by_the_gate(
    sharing: Sharing, reference: Model
) -> None:
    settings = AllTokensMlmConfig(
        kind="all_tokens_mlm", sharing=sharing, generator=FULL, mlm_weight=7.0
    )
    objective = make_objective(settings)
    drawn = observed(objective, TEXT, 1)
    assert samples_some_originals(drawn)
    generator, encoder = pair(objective, settings, reference)
    output = encoder(drawn.written_BT, attention_mask=SEEN_BT, output_hidden_states=True)
    gate_BT = objective.gate(output.hidden_states[-1]).double().sigmoid()[..., 0]
    softmax_BTV = output.logits.double().softmax(-1)
    copy_BTV = F.one_hot(drawn.written_BT, VOCAB)
    mixed_BTV = gate_BT[..., None] * copy_BTV + (1 - gate_BT[..., None]) * softmax_BTV
    original_BT = mixed_BTV.gather(-1, TEXT.ids_BT[..., None])[..., 0]
    prediction_loss = -original_BT[SEEN_BT > 0].log().mean()
    expected = mlm_loss(generator, drawn.shown_BT, drawn) + 7 * prediction_loss
    torch.testing.assert_close(drawn.loss.total.double(), expected, **CLOSE)
    torch.testing.assert_close(
        drawn.loss.parts["health/copy_gate"].double(), gate_BT[SEEN_BT > 0].mean(), **CLOSE
    )


@pytest.mark.parametrize("masking", ["paper", "bert"])
def test_mlm_equals_transformers_mlm_loss(
    masking: Literal["paper", "bert"], reference: Model
) -> None:
    objective = make_objective(MlmConfig(kind="mlm", masking=masking, mask_prob=0.3))
    read: list[Tensor] = []
    objective.encoder.register_forward_pre_hook(lambda _, arguments: read.append(arguments[0]))
    loss = objective(TEXT, 1)
    masked = choose_distinct(TEXT, mask_prob=0.3, seed=SEED, step=1)
    drawn = placed(loss, masked, masked.labels_BK, TEXT)
    shown = read[0][drawn.chosen_BT]
    original = TEXT.ids_BT[drawn.chosen_BT]
    kinds = ((shown == MASK).any(), (shown == original).any())
    assert kinds == (True, masking == "bert")
    assert ((shown != MASK) & (shown != original)).any() == (masking == "bert")
    assert read[0][~drawn.chosen_BT].equal(TEXT.ids_BT[~drawn.chosen_BT])
    model = reference(objective.encoder, objective.vocabulary)
    torch.testing.assert_close(loss.total, mlm_loss(model, read[0], drawn), **CLOSE)


def test_two_stage_equals_mlm_and_then_detection_from_its_weights(
    reference: Model,
) -> None:
    objective = make_objective(TwoStageConfig(kind="two_stage"))
    generator = reference(objective.generator.encoder, objective.generator.vocabulary)
    objective.begin(UpdatedNetworks.GENERATOR, objective.step_settings)
    masked = choose_distinct(TEXT, mask_prob=0.15, seed=SEED, step=1)
    drawn = only_masked(objective(TEXT, 1, UpdatedNetworks.GENERATOR), masked, TEXT)
    expected = mlm_loss(generator, drawn.shown_BT, drawn)
    torch.testing.assert_close(drawn.loss.total, expected, **CLOSE)

    objective.begin(UpdatedNetworks.DISCRIMINATOR, objective.step_settings)
    discriminator = reference(objective.generator.encoder, objective.detection)
    drawn = observed(objective, TEXT, 1, UpdatedNetworks.DISCRIMINATOR)
    assert samples_some_originals(drawn)
    expected = detection_loss(discriminator, drawn, SEEN_BT > 0)
    torch.testing.assert_close(drawn.loss.total, expected, **CLOSE)


@pytest.mark.parametrize("masking", ["paper", "bernoulli"])
@pytest.mark.parametrize("distribution", ["unigram", "uniform"])
def test_random_equals_detection_of_randomly_drawn_words(
    distribution: Literal["unigram", "uniform"],
    masking: Literal["paper", "bernoulli"],
    reference: Model,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    objective = make_objective(
        RandomReplacementConfig(
            kind="random", replacement_distribution=distribution, mask_prob=0.3, masking=masking
        )
    )
    sample, words = random_module.sample_from_cumulative, []

    def record(*arguments: Any, **options: Any) -> Tensor:
        words.append(sample(*arguments, **options))
        return words[-1]

    monkeypatch.setattr(random_module, "sample_from_cumulative", record)
    loss = objective(TEXT, 1)
    choose = choose_distinct if masking == "paper" else choose_independently
    masked = choose(TEXT, mask_prob=0.3, seed=SEED, step=1)
    drawn = placed(loss, masked, words[0], TEXT)
    assert samples_some_originals(drawn)
    assert (words[0] >= FIRST_WORD).all()
    discriminator = reference(objective.encoder, objective.detection)
    torch.testing.assert_close(
        loss.total, detection_loss(discriminator, drawn, SEEN_BT > 0), **CLOSE
    )


@sharings
def test_adversarial_discriminator_has_electras_losses(sharing: Sharing, reference: Model) -> None:
    settings = AdversarialConfig(kind="adversarial", sharing=sharing, generator=FULL)
    objective = make_objective(settings)
    drawn = observed(objective, TEXT, 1)
    assert samples_some_originals(drawn)
    generator, discriminator = pair(objective, settings, reference)
    expected = {
        "train/discriminator_loss": detection_loss(discriminator, drawn, SEEN_BT > 0),
        "train/generator_loss": mlm_loss(generator, drawn.shown_BT, drawn),
    }
    for name, value in expected.items():
        torch.testing.assert_close(drawn.loss.parts[name], value.detach(), **CLOSE)


# Behaviour of transformers that an export relies on or must guard against.
@torch.no_grad()
def test_networks_saved_by_transformers_reload_bit_equal_and_tied(
    reference: Model, tmp_path: Path
) -> None:
    from transformers import ElectraForMaskedLM, ElectraForPreTraining

    settings = ElectraConfig(kind="electra")
    kinds = {"generator": ElectraForMaskedLM, "discriminator": ElectraForPreTraining}
    saved = dict(zip(kinds, pair(make_objective(settings), settings, reference), strict=True))
    for name, kind in kinds.items():
        saved[name].save_pretrained(tmp_path / name)
        loaded, report = kind.from_pretrained(
            tmp_path / name, local_files_only=True, output_loading_info=True
        )
        assert not any(report[fault] for fault in ("missing_keys", "unexpected_keys"))
        actual_BT = loaded(TEXT.ids_BT, attention_mask=SEEN_BT).logits
        assert actual_BT.equal(saved[name](TEXT.ids_BT, attention_mask=SEEN_BT).logits)
        if name == "generator":
            table = loaded.electra.embeddings.word_embeddings.weight
            assert loaded.generator_lm_head.weight is table


def test_generator_loaded_from_a_discriminator_has_a_newly_initialized_head(
    reference: Model, tmp_path: Path
) -> None:
    from transformers import ElectraForMaskedLM

    settings = ElectraConfig(kind="electra")
    pair(make_objective(settings), settings, reference)[1].save_pretrained(tmp_path)
    loaded, report = ElectraForMaskedLM.from_pretrained(
        tmp_path, local_files_only=True, output_loading_info=True
    )
    fresh = {name for name, _ in loaded.named_parameters() if name.startswith("generator_")}
    assert set(report["missing_keys"]) >= fresh
    assert fresh
