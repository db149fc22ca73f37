"""ELECTRA and masked language modelling: losses against transformers, and common errors."""

import io
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lab.config.architecture import EncoderConfig
from lab.config.budget import Budget
from lab.config.data import DataConfig
from lab.config.flops import masked_slots
from lab.config.objectives import AnyObjectiveConfig
from lab.config.objectives.electra import Electra15Config, ElectraConfig
from lab.config.objectives.mlm import MlmConfig
from lab.config.optimizer import AdamConfig
from lab.config.trial import Seeds, Trial
from lab.data.batches import Batch
from lab.data.vocabulary import CLS, FIRST_WORD, MASK, PAD, SEP
from lab.evaluation import scores
from lab.evaluation.corruption import HeldOut
from lab.training import optimizer as optim
from lab.training.objectives import Electra, Mlm, build_objective
from lab.training.objectives import generator as module
from lab.training.objectives.base import Objective, uninformed_loss
from lab.training.objectives.masking import MaskedBatch, choose_distinct, mask_batch

VOCAB, LENGTH, SEED = 64, 16, 3
PAPER = EncoderConfig(layers=2, hidden=16, ffn=32, heads=2, embedding=8, init_std=0.2, dropout=0)
PRE = replace(PAPER, norm="pre")
COUNTS_V = torch.arange(VOCAB)
ELECTRA = ElectraConfig(kind="electra")
MLM = MlmConfig(kind="mlm")
Model = Callable[..., Any]


def trial(objective: AnyObjectiveConfig = ELECTRA, encoder: EncoderConfig = PRE) -> Trial:
    return Trial(
        encoder=encoder,
        objective=objective,
        data=DataConfig(vocab=VOCAB, length=LENGTH),
        batch=8,
        budget=Budget(kind="tokens", amount=1e6),
        seeds=Seeds(init=1, mask=SEED),
    )


def make_objective(objective: AnyObjectiveConfig = ELECTRA, encoder: EncoderConfig = PRE) -> Any:
    return build_objective(trial(objective, encoder), COUNTS_V)


def text(rows: int = 8, vocab: int = VOCAB) -> Batch:
    """Return windows of 14, 13, … words."""
    draw = np.random.default_rng(0)
    ids_BT = np.full((rows, LENGTH), PAD)
    for index, row in enumerate(ids_BT):
        n = LENGTH - 2 - index % 8
        row[: n + 2] = [CLS, *draw.integers(FIRST_WORD, vocab, n), SEP]
    return Batch(torch.from_numpy(ids_BT), torch.arange(rows) + 100)


def discriminator_input(objective: Electra, batch: Batch, step: int = 0) -> Tensor:
    """Return the token ids that the discriminator reads."""
    inputs: list[Tensor] = []
    handle = objective.encoder.register_forward_pre_hook(
        lambda _, arguments: inputs.append(arguments[0])
    )
    objective(batch, step)
    handle.remove()
    (ids_BT,) = inputs
    return ids_BT


def fix_generator(objective: Electra, probabilities_V: Tensor) -> None:
    """Make the generator's output distribution independent of its input."""
    with torch.no_grad():
        objective.generator.vocabulary.norm.weight.zero_()
        objective.generator.vocabulary.norm.bias.zero_()
        objective.generator.vocabulary.bias.copy_(probabilities_V.log())


def fix_discriminator(objective: Electra, logit: float) -> None:
    """Make the discriminator return the same logit for every token."""
    with torch.no_grad():
        objective.detection.dense_prediction.weight.zero_()
        objective.detection.dense_prediction.bias.fill_(logit)


@pytest.mark.parametrize("masking", ["paper", "code"])
@pytest.mark.parametrize("weight", [50.0, 1.0])
def test_loss_equals_the_reference_with_transformers(
    masking: Literal["paper", "code"],
    weight: float,
    transformers_model: Model,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = ElectraConfig(kind="electra", mask_prob=0.3, masking=masking, disc_weight=weight)
    objective, batch = make_objective(settings, PAPER), text(vocab=FIRST_WORD + 4)
    with torch.no_grad():
        # Some samples then equal the original token.
        objective.generator.vocabulary.bias[FIRST_WORD + 4 :] -= 3
    drawn: list[Tensor] = []

    def record(*arguments: Any, **options: Any) -> Tensor:
        drawn.append(sample(*arguments, **options))
        return drawn[-1]

    sample = module.sample_tokens
    monkeypatch.setattr(module, "sample_tokens", record)
    loss = objective(batch, 5)

    masked = mask_batch(batch, mask_prob=0.3, masking=masking, vocab=VOCAB, seed=SEED, step=5)
    small = settings.generator.derive_shape(PAPER)
    ours = objective.generator
    generator = transformers_model(ours.encoder, ours.vocabulary, small, VOCAB, LENGTH)
    discriminator = transformers_model(objective.encoder, objective.detection, PAPER, VOCAB, LENGTH)
    text_BT = batch.ids_BT != PAD
    logits_BTV = generator(masked.ids_BT, attention_mask=text_BT.long()).logits.detach()
    corrupted_BT, errors = batch.ids_BT.clone(), []
    sampled: dict[tuple[int, int], list[int]] = defaultdict(list)
    for b, k in masked.used_BK.nonzero().tolist():
        position = masked.slots_BK[b, k].item()
        errors.append(-logits_BTV[b, position].log_softmax(-1)[batch.ids_BT[b, position]])
        sampled[b, position].append(drawn[0][b, k].item())
    for place, tokens in sampled.items():
        corrupted_BT[place] = sum(tokens) // len(tokens)
    assert (max(map(len, sampled.values())) > 1) is (masking == "code")
    generator_loss = torch.stack(errors).mean()
    labels_BT = (corrupted_BT != batch.ids_BT).float()
    assert 0 < labels_BT.sum() < len(errors)
    detected_BT = discriminator(corrupted_BT, attention_mask=text_BT.long()).logits.detach()
    detected_BT = torch.where(labels_BT > 0, detected_BT, -detected_BT)
    discriminator_loss = -F.logsigmoid(detected_BT)[text_BT].sum() / text_BT.sum()
    close = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(loss.parts["train/generator_loss"], generator_loss, **close)
    torch.testing.assert_close(loss.parts["train/discriminator_loss"], discriminator_loss, **close)
    torch.testing.assert_close(
        loss.total.detach(), generator_loss + weight * discriminator_loss, **close
    )


def test_mlm_loss_equals_the_reference_with_transformers(transformers_model: Model) -> None:
    objective, batch = make_objective(MLM, PAPER), text()
    masked = choose_distinct(batch, mask_prob=0.15, seed=SEED, step=5)
    model = transformers_model(objective.encoder, objective.vocabulary, PAPER, VOCAB, LENGTH)
    labels_BT = torch.full_like(batch.ids_BT, -100)
    for b, k in masked.used_BK.nonzero().tolist():
        labels_BT[b, masked.slots_BK[b, k]] = masked.labels_BK[b, k]
    expected = model(
        masked.ids_BT, attention_mask=(batch.ids_BT != PAD).long(), labels=labels_BT
    ).loss
    torch.testing.assert_close(objective(batch, 5).total, expected, atol=1e-5, rtol=1e-5)


# Four common errors of other implementations: tokens taken by argmax instead of sampled, the masked
# text as the discriminator's input, labels that compare with the masked text, and samples equal to
# the original labelled as replaced. The generator samples one token with probability 3/4 and
# another with 1/4; the original text contains none or only the first of them.
LIKELY, UNLIKELY = 20, 21
PROBABILITIES_V = torch.zeros(VOCAB).index_fill(0, torch.tensor([LIKELY]), 0.75)
PROBABILITIES_V[UNLIKELY] = 0.25


def test_replacements_are_sampled_instead_of_the_most_likely_token() -> None:
    objective, batch = make_objective(), text(1_000)
    batch = Batch(batch.ids_BT.where(batch.ids_BT < 20, 19), batch.example_B)
    fix_generator(objective, PROBABILITIES_V)
    corrupted_BT = discriminator_input(objective, batch)
    replaced = corrupted_BT[corrupted_BT != batch.ids_BT]
    assert set(replaced.tolist()) == {LIKELY, UNLIKELY}
    share = (replaced == UNLIKELY).double().mean().item()
    assert share == pytest.approx(0.25, abs=5 * 0.43 / len(replaced) ** 0.5)


@pytest.mark.parametrize("masking", ["paper", "code"])
def test_discriminator_reads_the_original_text_with_samples_and_no_masks(
    masking: Literal["paper", "code"],
) -> None:
    objective, batch = make_objective(ElectraConfig(kind="electra", masking=masking)), text()
    fix_generator(objective, PROBABILITIES_V)
    masked = mask_batch(batch, mask_prob=0.15, masking=masking, vocab=VOCAB, seed=SEED, step=0)
    chosen_BT = torch.zeros_like(batch.ids_BT).scatter_add(
        1, masked.slots_BK, masked.used_BK.long()
    )
    corrupted_BT = discriminator_input(objective, batch)
    assert (corrupted_BT != MASK).all()
    assert corrupted_BT[chosen_BT == 0].equal(batch.ids_BT[chosen_BT == 0])
    assert torch.isin(corrupted_BT[chosen_BT > 0], torch.tensor([LIKELY, UNLIKELY])).all()


def test_labels_mark_tokens_that_differ_from_the_original() -> None:
    objective, batch = make_objective(), text()
    fix_discriminator(objective, 2.0)
    fake_BT = discriminator_input(objective, batch) != batch.ids_BT
    share = fake_BT.sum() / (batch.ids_BT != PAD).sum()
    assert 0 < share < 0.15
    parts = objective(batch, 0).parts
    expected = share * math.log1p(math.exp(-2)) + (1 - share) * math.log1p(math.exp(2))
    torch.testing.assert_close(parts["train/discriminator_loss"], expected)
    torch.testing.assert_close(parts["health/replacement_rate"], share)


def test_samples_equal_to_the_original_are_labelled_original() -> None:
    objective, batch = make_objective(), text()
    fix_generator(objective, PROBABILITIES_V)
    fix_discriminator(objective, -2.0)
    words_BT = torch.where(batch.ids_BT >= FIRST_WORD, LIKELY, batch.ids_BT)
    batch = Batch(words_BT, batch.example_B)
    replaced_BT = discriminator_input(objective, batch) == UNLIKELY
    parts = objective.health(objective(batch, 0).parts)
    rate = replaced_BT.sum() / (words_BT != PAD).sum()
    torch.testing.assert_close(parts["health/replacement_rate"], rate)
    expected = rate * math.log1p(math.exp(2)) + (1 - rate) * math.log1p(math.exp(-2))
    torch.testing.assert_close(parts["train/discriminator_loss"], expected)


def test_metrics_without_any_replaced_token() -> None:
    objective, batch = make_objective(), text()
    fix_generator(objective, torch.eye(VOCAB)[LIKELY])
    batch = Batch(torch.where(batch.ids_BT >= FIRST_WORD, LIKELY, batch.ids_BT), batch.example_B)
    parts = objective.health(objective(batch, 0).parts)
    assert discriminator_input(objective, batch).equal(batch.ids_BT)
    assert parts["health/replacement_rate"] == parts["health/majority_loss"] == 0
    assert parts["health/generator_accuracy"] == 1
    assert parts["health/recall_replaced"] == 0


def gradients(weight: float) -> dict[str, dict[str, Tensor]]:
    """Return the gradients by network and name; those of shared tables under `shared`."""
    objective = make_objective(ElectraConfig(kind="electra", disc_weight=weight), PAPER)
    objective(text(), 0).total.backward()
    shared = {id(p) for p in objective.encoder.embeddings.parameters()}
    by_network: dict[str, dict[str, Tensor]] = {"shared": {}, "generator": {}, "discriminator": {}}
    for name, parameter in objective.named_parameters():
        owner = "generator" if name.startswith("generator.") else "discriminator"
        by_network["shared" if id(parameter) in shared else owner][name] = parameter.grad
    return by_network


# total = generator + weight x discriminator. Only the total is differentiable, so two values of the
# weight separate the gradients of the two losses.
def test_gradient_of_each_loss_reaches_its_network_and_the_shared_tables() -> None:
    one, four = gradients(1.0), gradients(4.0)
    assert {n.split(".")[1] for n in one["generator"]} == {"encoder", "vocabulary"}
    for name, gradient in one["generator"].items():
        assert gradient.equal(four["generator"][name]), name
    for name, gradient in one["discriminator"].items():
        torch.testing.assert_close(4 * gradient, four["discriminator"][name])
    assert {n.split(".")[2] for n in one["shared"]} == {
        "word_embeddings",
        "position_embeddings",
        "token_type_embeddings",
        "norm",
    }
    for name, gradient in one["shared"].items():
        of_discriminator = (four["shared"][name] - gradient) / 3
        of_generator = gradient - of_discriminator
        assert of_discriminator.norm() > 1e-3, name
        assert of_generator.norm() > 1e-3, name


def test_sampling_passes_no_gradient_to_the_generator() -> None:
    objective = make_objective()
    generator = objective.generator
    generator.vocabulary.register_forward_hook(lambda *call: call[2].detach().requires_grad_())
    objective(text(), 0).total.backward()
    assert all(p.grad is None for p in generator.encoder.layers.parameters())
    assert all(p.grad is not None for p in objective.encoder.layers.parameters())


# Tied tables must be one parameter object: a copy goes out of date, or is updated separately.
def test_networks_share_each_table_as_one_object() -> None:
    objective = make_objective(encoder=PAPER)
    ours, theirs = objective.encoder.embeddings, objective.generator.encoder.embeddings
    for table in ("word_embeddings", "position_embeddings", "token_type_embeddings", "norm"):
        assert getattr(ours, table).weight is getattr(theirs, table).weight
    generator = objective.generator.encoder
    assert objective.encoder.embeddings_project is not generator.embeddings_project


def predicted(objective: Electra, ids_BT: Tensor, slots_BK: Tensor) -> Tensor:
    """Return the generator's logits at the slots of a text without masking it."""
    used_BK = torch.ones_like(slots_BK, dtype=torch.bool)
    masked = MaskedBatch(ids_BT, slots_BK, used_BK, labels_BK=slots_BK, draws_BK=slots_BK)
    return objective.generator.predict(masked, ids_BT != PAD)[1].detach()


def test_vocabulary_head_uses_the_current_values_of_the_shared_table() -> None:
    objective, batch = make_objective(), text()
    slots_BK = torch.tensor([[1, 2]]).expand(8, -1)
    table = objective.encoder.embeddings.word_embeddings.weight
    unseen = 63
    ids_BT = batch.ids_BT.where(batch.ids_BT != unseen, 5)
    before = predicted(objective, ids_BT, slots_BK)
    with torch.no_grad():
        table[unseen] *= 2
    after = predicted(objective, ids_BT, slots_BK)
    assert before[..., :unseen].equal(after[..., :unseen])
    assert (before[..., unseen] != after[..., unseen]).all()


@pytest.mark.parametrize("objective", [ELECTRA, MLM], ids=["electra", "mlm"])
@pytest.mark.parametrize("encoder", [PAPER, PRE], ids=["post", "pre"])
def test_every_parameter_is_listed_and_optimised_once(
    objective: AnyObjectiveConfig, encoder: EncoderConfig
) -> None:
    built = make_objective(objective, encoder)
    every = [id(p) for p in built.parameters()]
    listed = [id(p) for parameters in built.networks().values() for p in parameters]
    groups = optim.build_optimizer(built, AdamConfig()).param_groups
    optimised = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(optimised) == sorted(every)
    assert len(set(every)) == len(every)
    of_encoder = [id(p) for p in built.encoder.parameters()]
    assert listed[: len(of_encoder)] == of_encoder


# Logits at all positions would need several times the memory and about triple the compute.
@pytest.mark.parametrize("objective", [ELECTRA, MLM], ids=["electra", "mlm"])
def test_vocabulary_logits_exist_at_the_slots_only(objective: AnyObjectiveConfig) -> None:
    built, K = make_objective(objective), masked_slots(LENGTH, 0.15)
    shapes: list[torch.Size] = []
    head = built.vocabulary if objective is MLM else built.generator.vocabulary
    head.register_forward_hook(lambda *call: shapes.append(call[2].shape))
    built(text(), 0)
    assert shapes == [(8, K, VOCAB)]


def test_logits_at_a_slot_equal_those_at_its_position() -> None:
    objective, batch = make_objective(), text()
    every_BT = torch.arange(LENGTH).expand(8, -1)
    whole_BTV = predicted(objective, batch.ids_BT, every_BT)
    some_BKV = predicted(objective, batch.ids_BT, torch.tensor([[9, 2]]).expand(8, -1))
    torch.testing.assert_close(some_BKV, whole_BTV[:, [9, 2]])


# Losses in bf16 or fp16 would be too coarse.
@pytest.mark.parametrize(
    ("objective", "name"),
    [(ELECTRA, "train/generator_loss"), (MLM, "train/mlm_loss")],
    ids=["electra", "mlm"],
)
def test_losses_are_fp32_under_bf16_autocast(objective: AnyObjectiveConfig, name: str) -> None:
    built = make_objective(objective)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = built(text(), 0)
    assert loss.total.dtype == torch.float32
    assert all(loss.parts[n].dtype == torch.float32 for n in loss.parts)
    torch.testing.assert_close(loss.parts[name], built(text(), 0).parts[name], atol=0.1, rtol=0)


# A discriminator loss is low at a low replacement rate even if nothing is detected. It is recorded
# beside that of a discriminator that knows the rate, and that [CLS] and [SEP] cannot be replaced.
@pytest.mark.parametrize("mask_prob", [0.15, 0.4])
def test_uninformed_loss_is_that_of_the_base_rate_at_positions_that_can_be_replaced(
    mask_prob: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective, batch = make_objective(ElectraConfig(kind="electra", mask_prob=mask_prob)), text()
    fake = (discriminator_input(objective, batch) != batch.ids_BT).sum().item()
    words_BT, tokens = batch.ids_BT >= FIRST_WORD, (batch.ids_BT != PAD).sum().item()
    rate = fake / words_BT.sum().item()
    logits_BT = torch.where(words_BT, math.log(rate / (1 - rate)), -100.0)
    monkeypatch.setattr(objective, "detect", lambda *_: logits_BT)
    parts = objective.health(objective(batch, 0).parts)
    share = words_BT.sum().item() / tokens
    entropy = share * (-rate * math.log(rate) - (1 - rate) * math.log(1 - rate))
    assert parts["health/majority_loss"].item() == pytest.approx(entropy, abs=1e-6)
    assert parts["train/discriminator_loss"].item() == pytest.approx(entropy, abs=1e-6)
    assert "replaceable" not in parts


def test_uninformed_loss_at_chosen_tokens_is_the_entropy_of_their_rate() -> None:
    settings = Electra15Config(kind="electra_15", mask_prob=0.4)
    objective, batch = make_objective(settings), text()
    fix_generator(objective, PROBABILITIES_V)
    batch = batch._replace(ids_BT=torch.where(batch.ids_BT >= FIRST_WORD, LIKELY, batch.ids_BT))
    fake = (discriminator_input(objective, batch) != batch.ids_BT).sum().item()
    rate = fake / objective.token_counts(batch, 0).chosen.item()
    entropy = -rate * math.log(rate) - (1 - rate) * math.log(1 - rate)
    parts = objective.health(objective(batch, 0).parts)
    assert parts["health/majority_loss"].item() == pytest.approx(entropy, abs=1e-6)


@pytest.mark.parametrize(("replaced", "replaceable"), [(0.0, 0.875), (0.875, 0.875), (0.0, 0.0)])
def test_uninformed_loss_of_a_certain_answer_is_zero(replaced: float, replaceable: float) -> None:
    loss = uninformed_loss(torch.tensor(replaced), torch.tensor(replaceable))
    assert loss.item() == pytest.approx(0, abs=1e-7)


def test_recall_and_generator_accuracy() -> None:
    objective, batch = make_objective(), text()
    for logit, recall in ((1.0, 1.0), (-1.0, 0.0)):
        fix_discriminator(objective, logit)
        parts = objective.health(objective(batch, 0).parts)
        assert parts["health/recall_replaced"] == recall
    masked = choose_distinct(batch, mask_prob=0.15, seed=SEED, step=0)
    fix_generator(objective, PROBABILITIES_V)
    right = (masked.labels_BK[masked.used_BK] == LIKELY).float().mean()
    assert objective(batch, 0).parts["health/generator_accuracy"] == right


def state(objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
    return torch.get_rng_state(), {n: v.clone() for n, v in objective.state_dict().items()}


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_does_not_change_the_objective_or_random_state(training: bool) -> None:
    objective, batch = make_objective(encoder=replace(PRE, dropout=0.1)), text()
    objective.train(training)
    rng_state, weights = state(objective)
    held_out = HeldOut(
        original_NT=batch.ids_BT,
        corrupted_NT={"own": discriminator_input(objective, batch)},
        document_N=torch.arange(len(batch.ids_BT)),
    )
    torch.set_rng_state(rng_state)
    first = scores.score_detection(objective, held_out)
    assert scores.score_detection(objective, held_out) == first
    assert objective.training is training
    rng_state_after, after = state(objective)
    assert rng_state_after.equal(rng_state)
    assert all(after[name].equal(weights[name]) for name in weights)
    assert all(p.grad is None for p in objective.parameters())


def test_repeated_forward_in_evaluation_mode_gives_the_same_loss() -> None:
    objective, batch = make_objective(encoder=replace(PRE, dropout=0.1)).eval(), text()
    first = objective(batch, 3)
    torch.rand(5)
    second = objective(batch, 3)
    assert first.total.equal(second.total)
    assert all(first.parts[name].equal(second.parts[name]) for name in first.parts)
    assert not any(value.requires_grad for value in first.parts.values())


def fit(objective: Objective, steps: int) -> list[dict[str, float]]:
    optimizer = optim.build_optimizer(
        objective, AdamConfig(lr=3e-3, beta1=0.9, beta2=0.999, eps=1e-6)
    )
    metrics = []
    for _ in range(steps):
        loss = objective(text(), 0)
        optimizer.zero_grad()
        loss.total.backward()
        optim.clip_gradients(objective, AdamConfig(clip=1.0))
        optimizer.step()
        parts = objective.health(loss.parts)
        metrics.append({name: value.item() for name, value in parts.items()})
    return metrics


def test_electra_overfits_one_batch() -> None:
    objective = make_objective(ElectraConfig(kind="electra", mask_prob=0.3))
    steps = fit(objective, 80)
    assert steps[-1]["train/generator_loss"] < 0.5 * steps[0]["train/generator_loss"]
    # The discriminator's loss depends on the generator, so it is compared with the uninformed one.
    ratios = [
        step["train/discriminator_loss"] / step["health/majority_loss"] for step in steps[-10:]
    ]
    assert np.mean(ratios) < 0.8


def test_mlm_overfits_one_batch() -> None:
    steps = fit(make_objective(MLM), 80)
    assert steps[-1]["train/loss"] < 0.3 * steps[0]["train/loss"]


@pytest.mark.parametrize("objective", [ELECTRA, MLM], ids=["electra", "mlm"])
def test_training_is_bitwise_reproducible(objective: AnyObjectiveConfig) -> None:
    first = make_objective(objective)
    one = fit(first, 5)
    torch.manual_seed(99)
    np.random.default_rng().random(3)
    torch.rand(11)
    second = make_objective(objective)
    assert fit(second, 5) == one
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert a.equal(b)


@pytest.mark.parametrize("objective", [ELECTRA, MLM], ids=["electra", "mlm"])
def test_seeds_of_weights_and_masks_are_independent(objective: AnyObjectiveConfig) -> None:
    base = trial(objective)
    masks = build_objective(replace(base, seeds=replace(base.seeds, mask=77)), COUNTS_V)
    weights = build_objective(replace(base, seeds=replace(base.seeds, init=77)), COUNTS_V)
    reference = build_objective(base, COUNTS_V)
    same = masks.state_dict()
    assert all(same[n].equal(v) for n, v in reference.state_dict().items())
    assert not all(weights.state_dict()[n].equal(v) for n, v in reference.state_dict().items())
    assert not masks(text(), 0).total.equal(reference(text(), 0).total)
    assert not reference(text(), 1).total.equal(reference(text(), 0).total)


# Loading a checkpoint must keep the tie between the networks' tables.
@pytest.mark.parametrize("objective", [ELECTRA, MLM], ids=["electra", "mlm"])
@pytest.mark.parametrize("encoder", [PAPER, PRE], ids=["post", "pre"])
def test_reloaded_objective_has_the_same_loss_and_tied_tables(
    objective: AnyObjectiveConfig, encoder: EncoderConfig
) -> None:
    trained, file = make_objective(objective, encoder), io.BytesIO()
    fit(trained, 3)
    torch.save(trained.state_dict(), file)
    file.seek(0)
    loaded = build_objective(
        replace(trial(objective, encoder), seeds=Seeds(init=9, mask=SEED)), COUNTS_V
    )
    loaded.load_state_dict(torch.load(file, weights_only=True))
    if isinstance(loaded, Electra):
        assert loaded.generator.encoder.embeddings is loaded.encoder.embeddings
    assert loaded(text(), 7).total.equal(trained(text(), 7).total)


def test_build_objective_returns_the_trials_objective() -> None:
    assert isinstance(make_objective(ELECTRA), Electra)
    assert isinstance(make_objective(MLM), Mlm)
    torch.testing.assert_close(
        make_objective(MLM).vocabulary.bias.detach().exp(), (COUNTS_V + 1) / (COUNTS_V + 1).sum()
    )
