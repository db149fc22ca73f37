"""The objectives against a reference made of transformers, and each trap of its loss."""

import io
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lab.config import trial as spec
from lab.config.architecture import EncoderConfig
from lab.config.budget import Budget
from lab.config.data import DataConfig
from lab.config.flops import masked_slots
from lab.config.objectives import AnyObjectiveConfig
from lab.config.objectives.electra import ElectraConfig
from lab.config.objectives.mlm import MlmConfig
from lab.config.optimizer import AdamConfig
from lab.data.batches import Batch
from lab.data.vocabulary import CLS, FIRST_WORD, MASK, PAD, SEP
from lab.evaluation import scores
from lab.evaluation.corruption import HeldOut
from lab.training import optimizer as optim
from lab.training.objectives import Electra, Mlm, build_objective
from lab.training.objectives import generator as module
from lab.training.objectives.base import Objective
from lab.training.objectives.masking import MaskedBatch, mask_batch

VOCAB, LENGTH, SEED = 64, 16, 3
PAPER = EncoderConfig(layers=2, hidden=16, ffn=32, heads=2, embedding=8, init_std=0.2, dropout=0)
PRE = replace(PAPER, norm="pre")
COUNTS_V = torch.arange(VOCAB)
ELECTRA = ElectraConfig(kind="electra")
MLM = MlmConfig(kind="mlm")
Model = Callable[..., Any]


def trial(objective: AnyObjectiveConfig = ELECTRA, encoder: EncoderConfig = PRE) -> spec.Trial:
    return spec.Trial(
        encoder=encoder,
        objective=objective,
        data=DataConfig(vocab=VOCAB, length=LENGTH),
        batch=8,
        budget=Budget(kind="tokens", amount=1e6),
        seeds=spec.Seeds(init=1, mask=SEED),
    )


def made(objective: AnyObjectiveConfig = ELECTRA, encoder: EncoderConfig = PRE) -> Any:
    return build_objective(trial(objective, encoder), COUNTS_V)


def text(rows: int = 8, vocab: int = VOCAB) -> Batch:
    """Return windows of 14, 13, … words."""
    draw = np.random.default_rng(0)
    ids_BT = np.full((rows, LENGTH), PAD)
    for place, row in enumerate(ids_BT):
        n = LENGTH - 2 - place % 8
        row[: n + 2] = [CLS, *draw.integers(FIRST_WORD, vocab, n), SEP]
    return Batch(torch.from_numpy(ids_BT), torch.arange(rows) + 100)


def fed(objective: Electra, batch: Batch, step: int = 0) -> Tensor:
    """Return what the discriminator is given to read."""
    seen: list[Tensor] = []
    handle = objective.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    objective(batch, step)
    handle.remove()
    (ids_BT,) = seen
    return ids_BT


def write_by(objective: Electra, law_V: Tensor) -> None:
    """Make the generator draw from one law, whatever it reads."""
    with torch.no_grad():
        objective.generator.vocabulary.norm.weight.zero_()
        objective.generator.vocabulary.norm.bias.zero_()
        objective.generator.vocabulary.bias.copy_(law_V.log())


def answer_always(objective: Electra, logit: float) -> None:
    """Make the discriminator give every token the same logit."""
    with torch.no_grad():
        objective.detection.dense_prediction.weight.zero_()
        objective.detection.dense_prediction.bias.fill_(logit)


@pytest.mark.parametrize("how", ["paper", "code"])
@pytest.mark.parametrize("weight", [50.0, 1.0])
def test_loss_is_the_reference_of_transformers(
    how: Literal["paper", "code"],
    weight: float,
    transformers_model: Model,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = ElectraConfig(kind="electra", mask_prob=0.3, masking=how, disc_weight=weight)
    objective, batch = made(settings, PAPER), text(vocab=FIRST_WORD + 4)
    with torch.no_grad():
        objective.generator.vocabulary.bias[FIRST_WORD + 4 :] -= 3  # so that some samples are lucky
    drawn: list[Tensor] = []

    def spied(*given: Any, **named: Any) -> Tensor:
        drawn.append(sample(*given, **named))
        return drawn[-1]

    sample = module.sample
    monkeypatch.setattr(module, "sample", spied)
    loss = objective(batch, 5)

    masked = mask_batch(batch, mask_prob=0.3, how=how, seed=SEED, step=5)
    small = settings.generator.of(PAPER)
    ours = objective.generator
    generator = transformers_model(ours.encoder, ours.vocabulary, small, VOCAB, LENGTH)
    discriminator = transformers_model(objective.encoder, objective.detection, PAPER, VOCAB, LENGTH)
    text_BT = batch.ids_BT != PAD
    logits_BTV = generator(masked.ids_BT, attention_mask=text_BT.long()).logits.detach()
    corrupted_BT, errors = batch.ids_BT.clone(), []
    for b, k in masked.used_BK.nonzero().tolist():
        place = masked.slots_BK[b, k]
        errors.append(-logits_BTV[b, place].log_softmax(-1)[batch.ids_BT[b, place]])
        corrupted_BT[b, place] = drawn[0][b, k]
    generator_loss = torch.stack(errors).mean()
    labels_BT = (corrupted_BT != batch.ids_BT).float()
    assert 0 < labels_BT.sum() < len(errors)
    found_BT = discriminator(corrupted_BT, attention_mask=text_BT.long()).logits.detach()
    found_BT = torch.where(labels_BT > 0, found_BT, -found_BT)
    discriminator_loss = -F.logsigmoid(found_BT)[text_BT].sum() / text_BT.sum()
    close = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(loss.parts["train/generator_loss"], generator_loss, **close)
    torch.testing.assert_close(loss.parts["train/discriminator_loss"], discriminator_loss, **close)
    torch.testing.assert_close(
        loss.total.detach(), generator_loss + weight * discriminator_loss, **close
    )


def test_mlm_loss_is_the_reference_of_transformers(transformers_model: Model) -> None:
    objective, batch = made(MLM, PAPER), text()
    masked = mask_batch(batch, mask_prob=0.15, how="paper", seed=SEED, step=5)
    model = transformers_model(objective.encoder, objective.vocabulary, PAPER, VOCAB, LENGTH)
    labels_BT = torch.full_like(batch.ids_BT, -100)
    for b, k in masked.used_BK.nonzero().tolist():
        labels_BT[b, masked.slots_BK[b, k]] = masked.labels_BK[b, k]
    expected = model(
        masked.ids_BT, attention_mask=(batch.ids_BT != PAD).long(), labels=labels_BT
    ).loss
    torch.testing.assert_close(objective(batch, 5).total, expected, atol=1e-5, rtol=1e-5)


# Trap 3, four variants. The generator's law is 3/4 for one token and 1/4 for another, and the
# original text has neither or only one of them.
LIKELY, UNLIKELY = 20, 21
LAW_V = torch.zeros(VOCAB).index_fill(0, torch.tensor([LIKELY]), 0.75)
LAW_V[UNLIKELY] = 0.25


def test_replacements_are_sampled_and_not_the_likeliest() -> None:
    objective, batch = made(), text(1_000)
    batch = Batch(batch.ids_BT.where(batch.ids_BT < 20, 19), batch.example_B)
    write_by(objective, LAW_V)
    corrupted_BT = fed(objective, batch)
    replaced = corrupted_BT[corrupted_BT != batch.ids_BT]
    assert set(replaced.tolist()) == {LIKELY, UNLIKELY}
    share = (replaced == UNLIKELY).double().mean().item()
    assert share == pytest.approx(0.25, abs=5 * 0.43 / len(replaced) ** 0.5)


@pytest.mark.parametrize("how", ["paper", "code"])
def test_discriminator_reads_the_original_with_samples_and_no_masks(
    how: Literal["paper", "code"],
) -> None:
    objective, batch = made(ElectraConfig(kind="electra", masking=how)), text()
    write_by(objective, LAW_V)
    masked = mask_batch(batch, mask_prob=0.15, how=how, seed=SEED, step=0)
    chosen_BT = torch.zeros_like(batch.ids_BT).scatter_add(
        1, masked.slots_BK, masked.used_BK.long()
    )
    corrupted_BT = fed(objective, batch)
    assert (corrupted_BT != MASK).all()
    assert corrupted_BT[chosen_BT == 0].equal(batch.ids_BT[chosen_BT == 0])
    assert torch.isin(corrupted_BT[chosen_BT > 0], torch.tensor([LIKELY, UNLIKELY])).all()


def test_labels_say_where_the_text_differs_from_the_original() -> None:
    objective, batch = made(), text()
    answer_always(objective, 2.0)
    fake_BT = fed(objective, batch) != batch.ids_BT
    share = fake_BT.sum() / (batch.ids_BT != PAD).sum()
    assert 0 < share < 0.15
    parts = objective(batch, 0).parts
    expected = share * math.log1p(math.exp(-2)) + (1 - share) * math.log1p(math.exp(2))
    torch.testing.assert_close(parts["train/discriminator_loss"], expected)
    torch.testing.assert_close(parts["health/replacement_rate"], share)


def test_samples_that_hit_the_original_count_as_original() -> None:
    objective, batch = made(), text()
    write_by(objective, LAW_V)
    answer_always(objective, -2.0)
    words_BT = torch.where(batch.ids_BT >= FIRST_WORD, LIKELY, batch.ids_BT)
    lucky = Batch(words_BT, batch.example_B)
    unlucky_BT = fed(objective, lucky) == UNLIKELY
    parts = objective.health(objective(lucky, 0).parts)
    rate = unlucky_BT.sum() / (words_BT != PAD).sum()
    torch.testing.assert_close(parts["health/replacement_rate"], rate)
    expected = rate * math.log1p(math.exp(2)) + (1 - rate) * math.log1p(math.exp(-2))
    torch.testing.assert_close(parts["train/discriminator_loss"], expected)


def test_generator_that_always_hits_leaves_nothing_to_find() -> None:
    objective, batch = made(), text()
    write_by(objective, torch.eye(VOCAB)[LIKELY])
    lucky = Batch(torch.where(batch.ids_BT >= FIRST_WORD, LIKELY, batch.ids_BT), batch.example_B)
    parts = objective.health(objective(lucky, 0).parts)
    assert fed(objective, lucky).equal(lucky.ids_BT)
    assert parts["health/replacement_rate"] == parts["health/majority_loss"] == 0
    assert parts["health/generator_accuracy"] == 1
    assert parts["health/recall_replaced"] == 0


def gradients(weight: float) -> dict[str, dict[str, Tensor]]:
    """Return the gradient by network and name; that of a shared table under `shared`."""
    objective = made(ElectraConfig(kind="electra", disc_weight=weight), PAPER)
    objective(text(), 0).total.backward()
    shared = {id(p) for p in objective.encoder.embeddings.parameters()}
    found: dict[str, dict[str, Tensor]] = {"shared": {}, "generator": {}, "discriminator": {}}
    for name, parameter in objective.named_parameters():
        owner = "generator" if name.startswith("generator.") else "discriminator"
        found["shared" if id(parameter) in shared else owner][name] = parameter.grad
    return found


# total = generator + weight x discriminator, and only the total can be asked for its gradient:
# so the loss of each network is told from the other's by the weight.
def test_each_loss_reaches_its_own_network_and_the_shared_tables() -> None:
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


def test_sampling_leaves_no_path_for_a_gradient() -> None:
    objective = made()
    generator = objective.generator
    generator.vocabulary.register_forward_hook(lambda *given: given[2].detach().requires_grad_())
    objective(text(), 0).total.backward()
    assert all(p.grad is None for p in generator.encoder.layers.parameters())
    assert all(p.grad is not None for p in objective.encoder.layers.parameters())


# Trap 4.
def test_networks_share_one_object_for_each_table() -> None:
    objective = made(encoder=PAPER)
    ours, theirs = objective.encoder.embeddings, objective.generator.encoder.embeddings
    for table in ("word_embeddings", "position_embeddings", "token_type_embeddings", "norm"):
        assert getattr(ours, table).weight is getattr(theirs, table).weight
    generator = objective.generator.encoder
    assert objective.encoder.embeddings_project is not generator.embeddings_project


def predicted(objective: Electra, ids_BT: Tensor, slots_BK: Tensor) -> Tensor:
    """Return the generator's logits at the slots of a text that is taken as it is."""
    shown = MaskedBatch(ids_BT, slots_BK, torch.ones_like(slots_BK, dtype=torch.bool), slots_BK)
    return objective.generator.predict(shown, ids_BT != PAD)[1].detach()


def test_vocabulary_head_reads_the_shared_table_as_it_is_now() -> None:
    objective, batch = made(), text()
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
    built = made(objective, encoder)
    every = [id(p) for p in built.parameters()]
    listed = [id(p) for parameters in built.networks().values() for p in parameters]
    groups = optim.build_optimizer(built, AdamConfig()).param_groups
    optimised = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(optimised) == sorted(every)
    assert len(set(every)) == len(every)
    of_encoder = [id(p) for p in built.encoder.parameters()]
    assert listed[: len(of_encoder)] == of_encoder


# Trap 5.
@pytest.mark.parametrize("objective", [ELECTRA, MLM], ids=["electra", "mlm"])
def test_vocabulary_logits_exist_at_the_slots_only(objective: AnyObjectiveConfig) -> None:
    built, K = made(objective), masked_slots(LENGTH, 0.15)
    shapes: list[torch.Size] = []
    head = built.vocabulary if objective is MLM else built.generator.vocabulary
    head.register_forward_hook(lambda *given: shapes.append(given[2].shape))
    built(text(), 0)
    assert shapes == [(8, K, VOCAB)]


def test_logits_at_a_slot_are_those_of_its_position() -> None:
    objective, batch = made(), text()
    every_BT = torch.arange(LENGTH).expand(8, -1)
    whole_BTV = predicted(objective, batch.ids_BT, every_BT)
    some_BKV = predicted(objective, batch.ids_BT, torch.tensor([[9, 2]]).expand(8, -1))
    torch.testing.assert_close(some_BKV, whole_BTV[:, [9, 2]])


# Trap 6: the losses too.
@pytest.mark.parametrize(
    ("objective", "name"),
    [(ELECTRA, "train/generator_loss"), (MLM, "train/mlm_loss")],
    ids=["electra", "mlm"],
)
def test_losses_are_single_precision_under_bf16(objective: AnyObjectiveConfig, name: str) -> None:
    built = made(objective)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = built(text(), 0)
    assert loss.total.dtype == torch.float32
    assert all(loss.parts[n].dtype == torch.float32 for n in loss.parts)
    torch.testing.assert_close(loss.parts[name], built(text(), 0).parts[name], atol=0.1, rtol=0)


# Trap 8.
@pytest.mark.parametrize("mask_prob", [0.15, 0.4])
def test_majority_loss_is_the_entropy_of_the_replacement_rate(mask_prob: float) -> None:
    objective, batch = made(ElectraConfig(kind="electra", mask_prob=mask_prob)), text()
    fake = (fed(objective, batch) != batch.ids_BT).sum().item()
    rate = fake / (batch.ids_BT != PAD).sum().item()
    entropy = -rate * math.log(rate) - (1 - rate) * math.log(1 - rate)
    answer_always(objective, math.log(rate / (1 - rate)))
    parts = objective.health(objective(batch, 0).parts)
    assert parts["health/majority_loss"].item() == pytest.approx(entropy, abs=1e-6)
    # ... which is what a discriminator pays that knows the rate and nothing else.
    assert parts["train/discriminator_loss"].item() == pytest.approx(entropy, abs=1e-6)


def test_health_counts_what_its_names_say() -> None:
    objective, batch = made(), text()
    for logit, recall in ((1.0, 1.0), (-1.0, 0.0)):
        answer_always(objective, logit)
        parts = objective.health(objective(batch, 0).parts)
        assert parts["health/recall_replaced"] == recall
    masked = mask_batch(batch, mask_prob=0.15, how="paper", seed=SEED, step=0)
    write_by(objective, LAW_V)
    right = (masked.labels_BK[masked.used_BK] == LIKELY).float().mean()
    assert objective(batch, 0).parts["health/generator_accuracy"] == right


def state(objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
    return torch.get_rng_state(), {n: v.clone() for n, v in objective.state_dict().items()}


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_changes_nothing(training: bool) -> None:
    objective, batch = made(encoder=replace(PRE, dropout=0.1)), text()
    objective.train(training)
    chance, weights = state(objective)
    held_out = HeldOut(original_NT=batch.ids_BT, corrupted_NT={"own": fed(objective, batch)})
    torch.set_rng_state(chance)
    first = scores.score_detection(objective, held_out)
    assert scores.score_detection(objective, held_out) == first
    assert objective.training is training
    after_chance, after = state(objective)
    assert after_chance.equal(chance)
    assert all(after[name].equal(weights[name]) for name in weights)
    assert all(p.grad is None for p in objective.parameters())


def test_forward_in_evaluation_can_be_repeated() -> None:
    objective, batch = made(encoder=replace(PRE, dropout=0.1)).eval(), text()
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
    seen = []
    for _ in range(steps):
        loss = objective(text(), 0)
        optimizer.zero_grad()
        loss.total.backward()
        optim.clip_gradients(objective, AdamConfig(clip=1.0))
        optimizer.step()
        parts = objective.health(loss.parts)
        seen.append({name: value.item() for name, value in parts.items()})
    return seen


def test_electra_overfits_one_batch() -> None:
    objective = made(ElectraConfig(kind="electra", mask_prob=0.3))
    seen = fit(objective, 80)
    assert seen[-1]["train/generator_loss"] < 0.5 * seen[0]["train/generator_loss"]
    # Replacements change while the generator learns: below the majority is what can be learned.
    late = [step["train/discriminator_loss"] / step["health/majority_loss"] for step in seen[-10:]]
    assert np.mean(late) < 0.8


def test_mlm_overfits_one_batch() -> None:
    seen = fit(made(MLM), 80)
    assert seen[-1]["train/loss"] < 0.3 * seen[0]["train/loss"]


@pytest.mark.parametrize("objective", [ELECTRA, MLM], ids=["electra", "mlm"])
def test_training_is_bitwise_equal_under_a_seed(objective: AnyObjectiveConfig) -> None:
    first = made(objective)
    one = fit(first, 5)
    torch.manual_seed(99)
    np.random.default_rng().random(3)
    torch.rand(11)
    second = made(objective)
    assert fit(second, 5) == one
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert a.equal(b)


@pytest.mark.parametrize("objective", [ELECTRA, MLM], ids=["electra", "mlm"])
def test_seeds_of_weights_and_masks_are_apart(objective: AnyObjectiveConfig) -> None:
    base = trial(objective)
    masks = build_objective(replace(base, seeds=replace(base.seeds, mask=77)), COUNTS_V)
    weights = build_objective(replace(base, seeds=replace(base.seeds, init=77)), COUNTS_V)
    reference = build_objective(base, COUNTS_V)
    same = masks.state_dict()
    assert all(same[n].equal(v) for n, v in reference.state_dict().items())
    assert not all(weights.state_dict()[n].equal(v) for n, v in reference.state_dict().items())
    assert not masks(text(), 0).total.equal(reference(text(), 0).total)
    assert not reference(text(), 1).total.equal(reference(text(), 0).total)


# Trap 11.
@pytest.mark.parametrize("objective", [ELECTRA, MLM], ids=["electra", "mlm"])
@pytest.mark.parametrize("encoder", [PAPER, PRE], ids=["post", "pre"])
def test_saved_and_loaded_objective_is_the_same(
    objective: AnyObjectiveConfig, encoder: EncoderConfig
) -> None:
    trained, file = made(objective, encoder), io.BytesIO()
    fit(trained, 3)
    torch.save(trained.state_dict(), file)
    file.seek(0)
    loaded = build_objective(
        replace(trial(objective, encoder), seeds=spec.Seeds(init=9, mask=SEED)), COUNTS_V
    )
    loaded.load_state_dict(torch.load(file, weights_only=True))
    if isinstance(loaded, Electra):
        assert loaded.generator.encoder.embeddings is loaded.encoder.embeddings
    assert loaded(text(), 7).total.equal(trained(text(), 7).total)


def test_build_gives_what_the_trial_names() -> None:
    assert isinstance(made(ELECTRA), Electra)
    assert isinstance(made(MLM), Mlm)
    torch.testing.assert_close(
        made(MLM).vocabulary.bias.detach().exp(), (COUNTS_V + 1) / (COUNTS_V + 1).sum()
    )
