"""Conformance of every objective on one batch: updated parameters, inputs, samples and losses."""

from dataclasses import replace
from itertools import chain
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from members import (
    ABSENT,
    COUNTS_V,
    DETECTORS,
    MEMBERS,
    SAMPLERS,
    VOCAB,
    WRITERS,
    LossTerm,
    Member,
    always,
    candidates,
    chosen,
    drawn_once,
    each,
    each_turn,
    make_objective,
    masked,
    only,
    promised,
    reading_turn,
    reads,
    text,
    wanted,
    watched,
    write_by,
)
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from lab.config.objectives import AnyObjectiveConfig
from lab.config.objectives.adversarial import AdversarialConfig
from lab.config.objectives.base import MaskedObjectiveConfig
from lab.config.objectives.electra import DetectionConfig
from lab.config.objectives.generators import JointObjectiveConfig, SamplingConfig
from lab.config.objectives.masking import BERT, InputShares
from lab.config.objectives.mlm import MlmConfig
from lab.config.objectives.predictors import AllTokensMlmConfig
from lab.config.objectives.random import RandomReplacementConfig
from lab.config.objectives.update_rules import TurnsConfig
from lab.config.optimizer import AdamConfig, AdamWConfig, AnyOptimizerConfig, MuonConfig
from lab.config.schedules.phases import UpdatedNetworks
from lab.data.batches import Batch
from lab.data.vocabulary import CLS, FIRST_WORD, MASK, PAD, SEP
from lab.training import optimizer as optim
from lab.training.objectives.base import Objective

# A distribution over all tokens, special ones included; the last is four times as likely as the
# first.
PROBABILITIES_V = torch.linspace(1, 4, VOCAB) / torch.linspace(1, 4, VOCAB).sum()
LIKELY = ABSENT - 1


def objective_and_loss(
    member: Member, updates: UpdatedNetworks, batch: Batch, step: int = 0
) -> tuple[Objective, Any]:
    objective = make_objective(member)
    objective.begin(updates, objective.step_settings)
    torch.manual_seed(0)
    return objective, objective(batch, step, updates)


# Completeness of the table of members.


def test_every_objective_kind_has_a_member() -> None:
    assert {type(member.objective) for member in MEMBERS} == set(get_args(AnyObjectiveConfig))
    assert len({member.id for member in MEMBERS}) == len(MEMBERS)


def alternatives(hint: Any) -> set[Any]:
    """Return the words and the classes that values of a type may be."""
    if get_origin(hint) is Literal:
        return set(get_args(hint))
    inner = get_args(hint)
    return set(chain.from_iterable(map(alternatives, inner))) if inner else {hint}


def values_of(objects: list[Any], name: str) -> set[Any]:
    """Return the words, and the classes of the other values, of an attribute."""
    values = (getattr(each, name) for each in objects)
    return {value if isinstance(value, str) else type(value) for value in values}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (JointObjectiveConfig, "sharing"),
        (MaskedObjectiveConfig, "masking"),
        (RandomReplacementConfig, "masking"),
        (RandomReplacementConfig, "replacement_distribution"),
        (DetectionConfig, "auxiliary"),
        (AdversarialConfig, "reward"),
        (AdversarialConfig, "rule"),
    ],
)
def test_every_value_of_an_option_has_a_member(kind: type, name: str) -> None:
    objectives = [m.objective for m in MEMBERS if isinstance(m.objective, kind)]
    assert values_of(objectives, name) == alternatives(get_type_hints(kind)[name])


def test_every_named_masking_of_mlm_has_a_member() -> None:
    objectives = [m.objective for m in MEMBERS if isinstance(m.objective, MlmConfig)]
    names = alternatives(get_type_hints(MlmConfig)["masking"]) - {InputShares}
    assert values_of(objectives, "masking") == names


def test_either_network_is_updated_first_by_a_member() -> None:
    rules = [getattr(member.objective, "rule", None) for member in MEMBERS]
    turns = [rule for rule in rules if isinstance(rule, TurnsConfig)]
    assert values_of(turns, "first") == alternatives(get_type_hints(TurnsConfig)["first"])


@each()
def test_members_describe_all_phases_of_their_objective(member: Member) -> None:
    assert set(member.turns) == set(member.objective.phase_shares())


# Losses and metrics of a step.


@each_turn()
def test_loss_and_parts_are_finite_and_parts_are_detached_scalars(
    member: Member, updates: UpdatedNetworks
) -> None:
    _, step_loss = objective_and_loss(member, updates, text())
    assert step_loss.total.ndim == 0
    assert step_loss.total.requires_grad
    for name, part in {"total": step_loss.total, **step_loss.parts}.items():
        assert torch.isfinite(part), name
        assert part.ndim == 0, name
    assert not any(part.requires_grad or part.grad_fn for part in step_loss.parts.values())
    assert step_loss.parts["train/loss"].equal(step_loss.total.detach())


# Parameters with a gradient.


def names_with_gradient(objective: Objective) -> set[str]:
    return {name for name, p in objective.named_parameters() if p.grad is not None}


def assert_reaches(objective: Objective, lessons: tuple[LossTerm, ...]) -> None:
    """Assert that exactly the parameters of `lessons` have a gradient, and that it is not zero.

    The bias of the keys is an exception. It adds the same to all attention scores of a query, so
    its gradient is zero except for rounding.
    """
    expected = promised(objective, tuple(p for one in lessons for p in one.reaches))
    assert names_with_gradient(objective) == expected
    for name, parameter in objective.named_parameters():
        if name in expected and not name.endswith("key.bias"):
            assert parameter.grad.abs().max() > 0, name


@each_turn()
def test_gradients_reach_exactly_the_parameters_of_the_losses(
    member: Member, updates: UpdatedNetworks
) -> None:
    objective, step_loss = objective_and_loss(member, updates, text())
    step_loss.total.backward()
    assert_reaches(objective, member.turns[updates])


@each_turn()
def test_gradient_of_each_loss_reaches_only_its_parameters(
    member: Member, updates: UpdatedNetworks
) -> None:
    for lesson in member.turns[updates]:
        objective = make_objective(member)
        for other in member.turns[updates]:
            for head in other.heads if other is not lesson else ():
                objective.get_submodule(head).register_forward_hook(lambda *call: call[2].detach())
        objective(text(), 0, updates).total.backward()
        assert_reaches(objective, (lesson,))


@each_turn()
def test_second_token_type_gets_no_gradient(member: Member, updates: UpdatedNetworks) -> None:
    objective, step_loss = objective_and_loss(member, updates, text())
    step_loss.total.backward()
    tables = [
        p for name, p in objective.named_parameters() if "token_type" in name and p.grad is not None
    ]
    assert tables
    assert all(p.grad[0].abs().max() > 0 and p.grad[1].abs().max() == 0 for p in tables)


@each()
@pytest.mark.parametrize(
    "settings",
    [
        AdamConfig(weight_decay=0.5),
        AdamWConfig(kind="adamw", weight_decay=0.5),
        MuonConfig(kind="muon", weight_decay=0.5),
    ],
    ids=lambda settings: settings.kind,
)
def test_step_changes_exactly_the_weights_of_the_updated_networks(
    member: Member, settings: AnyOptimizerConfig
) -> None:
    objective = make_objective(member)
    optimizer = optim.build_optimizer(objective, settings)
    for updates in [*member.turns] * 2:  # in the second round all parameters have momentum
        objective.begin(updates, objective.step_settings)
        before = {name: p.detach().clone() for name, p in objective.named_parameters()}
        optimizer.zero_grad()
        objective(text(), 0, updates).total.backward()
        optim.clip_gradients(objective, settings)
        optimizer.step()
        changed = {name for name, p in objective.named_parameters() if not p.equal(before[name])}
        prefixes = tuple(p for lesson in member.turns[updates] for p in lesson.reaches)
        expected = promised(objective, prefixes)
        assert changed <= expected
        assert all(name.endswith("key.bias") for name in expected - changed)


# Inputs of the networks.


@each_turn()
def test_special_tokens_and_padding_are_neither_masked_nor_replaced(
    member: Member, updates: UpdatedNetworks
) -> None:
    batch = text(400)
    fixed_BT = ~candidates(batch.ids_BT)
    for network, ids_BT in reads(make_objective(member), batch, updates).items():
        assert ids_BT[fixed_BT].equal(batch.ids_BT[fixed_BT]), network
        assert not ids_BT[~fixed_BT].equal(batch.ids_BT[~fixed_BT]), network


@each(WRITERS)
def test_encoder_reads_the_original_text_with_samples_at_the_chosen_slots(member: Member) -> None:
    objective, batch = make_objective(member), text(400)
    write_by(objective, always(ABSENT))
    ids_BT = reads(objective, batch, reading_turn(member))["encoder"]
    assert ids_BT.equal(batch.ids_BT.where(~chosen(member, batch), ABSENT))


def expected_distinct(batch: Batch, draws_B: Tensor, share: float = 1.0) -> Tensor:
    """Return the expected number of distinct positions in draws with replacement, (B,).

    Args:
        batch: original text.
        draws_B: number of draws of each window.
        share: probability that a draw counts.
    """
    n_B = candidates(batch.ids_BT).sum(1).double()
    return n_B * (1 - (1 - share / n_B) ** draws_B)


@each(tuple(m for m in MEMBERS if m.reads_masks))
def test_share_of_masked_tokens(member: Member) -> None:
    batch = text(2_000)
    ids_BT = reads(make_objective(member), batch, next(iter(member.turns)))[member.reads_masks]
    masked_B = ((ids_BT == MASK) & (batch.ids_BT != MASK)).sum(1)
    wanted_B = wanted(member, batch)
    match member.objective.masking:
        case "paper":
            assert masked_B.equal(wanted_B)
        case "code":
            # Each slot writes [MASK] with probability .85: those that do are .85 of all.
            expected = expected_distinct(batch, wanted_B, 0.85).sum().item()
            assert masked_B.sum().item() == pytest.approx(expected, rel=0.03)
        case "bert" | InputShares() as shares:
            shares = BERT if shares == "bert" else shares
            n = wanted_B.sum().item()
            assert masked_B.sum().item() == pytest.approx(shares.mask * n, rel=0.03)
            changed = (ids_BT != batch.ids_BT).sum().item()
            kept = 1 - shares.mask - shares.random + shares.random / (VOCAB - FIRST_WORD)
            assert changed == pytest.approx((1 - kept) * n, rel=0.03)


@each(WRITERS)
def test_share_of_replaced_tokens(member: Member) -> None:
    objective, batch = make_objective(member), text(2_000)
    write_by(objective, always(ABSENT))
    written_B = (reads(objective, batch, reading_turn(member))["encoder"] == ABSENT).sum(1)
    wanted_B = wanted(member, batch)
    match member.objective.masking:
        case "code":
            expected = expected_distinct(batch, wanted_B).sum().item()
            assert written_B.sum().item() == pytest.approx(expected, rel=0.02)
        case "bernoulli":
            n_B = candidates(batch.ids_BT).sum(1).double()
            share = member.objective.mask_prob
            variance = share * (1 - share)
            assert written_B.sum().item() == pytest.approx(share * n_B.sum().item(), rel=0.02)
            deviations_B = (written_B - share * n_B) / (variance * n_B).sqrt()
            assert deviations_B.square().mean().item() == pytest.approx(1, abs=0.1)
        case _:
            assert written_B.equal(wanted_B)


# Positions of the losses.


@each_turn()
def test_each_loss_is_taken_at_its_tokens_only(member: Member, updates: UpdatedNetworks) -> None:
    objective, batch = make_objective(member).eval(), text()
    chosen_BT = chosen(member, batch)
    text_BT = batch.ids_BT != PAD
    kinds = {name: batch.ids_BT == token for name, token in (("CLS", CLS), ("SEP", SEP))}
    kinds |= {"MASK": batch.ids_BT == MASK, "not chosen": candidates(batch.ids_BT) & ~chosen_BT}
    kinds |= {"padding": ~text_BT, "chosen": chosen_BT}
    plain = objective(batch, 0, updates).total
    for lesson in member.turns[updates]:
        for name, where_BT in kinds.items():
            with watched(objective, lesson.of, where_BT):
                disturbed = objective(batch, 0, updates).total
            of_network = [one for one in member.turns[updates] if one.of == lesson.of]
            at_text = any(one.scores == "text" for one in of_network)
            scored = name == "chosen" or (at_text and name != "padding")
            assert where_BT.any(), name
            assert disturbed.equal(plain) is not scored, (lesson.of, name)


@each_turn()
def test_additional_padding_does_not_change_the_losses(
    member: Member, updates: UpdatedNetworks
) -> None:
    # With ten tokens the limits K of both lengths, 3 and 4, do not reduce the number of slots.
    objective, wide = make_objective(member).eval(), text(longest=8)
    narrow = Batch(wide.ids_BT[:, :12], wide.example_B)
    one, other = (objective(batch, 0, updates) for batch in (wide, narrow))
    torch.testing.assert_close(one.total, other.total)
    torch.testing.assert_close(one.parts, other.parts)


# Labels.


@each(WRITERS)
def test_replacement_rate_counts_tokens_that_differ_from_the_original(member: Member) -> None:
    objective, batch, updates = make_objective(member).eval(), text(), reading_turn(member)
    ids_BT = reads(objective, batch, updates)["encoder"]
    rate = (ids_BT != batch.ids_BT).sum() / (batch.ids_BT != PAD).sum()
    assert rate > 0
    torch.testing.assert_close(objective(batch, 0, updates).parts["health/replacement_rate"], rate)


@each(WRITERS)
def test_samples_equal_to_the_original_do_not_count_as_replaced(member: Member) -> None:
    objective, batch, updates = make_objective(member).eval(), only(LIKELY), reading_turn(member)
    write_by(objective, always(LIKELY))
    assert reads(objective, batch, updates)["encoder"].equal(batch.ids_BT)
    assert objective(batch, 0, updates).parts["health/replacement_rate"] == 0


@each(DETECTORS)
def test_discriminators_labels_mark_tokens_that_differ_from_the_original(member: Member) -> None:
    objective, batch, updates = (
        make_objective(member).eval(),
        only(LIKELY, 100),
        reading_turn(member),
    )
    write_by(objective, (always(LIKELY) + always(ABSENT)) / 2)
    with torch.no_grad():
        objective.detection.dense_prediction.weight.zero_()
        objective.detection.dense_prediction.bias.fill_(2.0)
    replaced_BT = reads(objective, batch, updates)["encoder"] != batch.ids_BT
    (lesson,) = (one for one in member.turns[updates] if one.heads == ("detection",))
    scored_BT = batch.ids_BT != PAD if lesson.scores == "text" else chosen(member, batch)
    share = replaced_BT.sum() / scored_BT.sum()
    assert 0 < share < 0.7
    logit = torch.tensor(2.0)
    expected = share * F.softplus(-logit) + (1 - share) * F.softplus(logit)
    parts = objective(batch, 0, updates).parts
    torch.testing.assert_close(parts["train/discriminator_loss"], expected)


def test_copy_gate_loss_at_replaced_and_original_tokens() -> None:
    (member,) = (m for m in MEMBERS if isinstance(m.objective, AllTokensMlmConfig))
    objective, batch = make_objective(member).eval(), only(LIKELY, 100)
    write_by(objective, (always(LIKELY) + always(ABSENT)) / 2)
    with torch.no_grad():
        objective.gate.weight.zero_()
        objective.gate.bias.fill_(1.0)
        for parameter in objective.vocabulary.norm.parameters():
            parameter.zero_()
        objective.vocabulary.bias.zero_()
    replaced_BT = reads(objective, batch)["encoder"] != batch.ids_BT
    share = (replaced_BT.sum() / (batch.ids_BT != PAD).sum()).item()
    gate = 1 / (1 + np.exp(-1.0))
    p_original, p_replaced = gate + (1 - gate) / VOCAB, (1 - gate) / VOCAB
    expected = -share * np.log(p_replaced) - (1 - share) * np.log(p_original)
    parts = objective(batch, 0).parts
    assert 0.05 < share < 0.3
    assert parts["train/mlm_loss"].item() == pytest.approx(expected, rel=1e-5)
    assert parts["health/copy_gate"].item() == pytest.approx(gate, rel=1e-5)


# Distribution of the samples.


def sample_counts(
    member: Member, probabilities_V: Tensor | None, batch: Batch, **sampling: Any
) -> Tensor:
    """Return the number of occurrences of each token at the positions that are drawn once.

    Args:
        member: objective that replaces tokens.
        probabilities_V: output distribution to give the generator; None to leave it unchanged.
        batch: original text.
        sampling: changes to the objective's sampling settings.
    """
    if sampling:
        settings = replace(member.objective.sampling, **sampling)
        member = replace(member, objective=replace(member.objective, sampling=settings))
    objective = make_objective(member)
    if probabilities_V is not None:
        write_by(objective, probabilities_V)
    ids_BT = reads(objective, batch, reading_turn(member))["encoder"]
    return torch.bincount(ids_BT[drawn_once(masked(member, batch))], minlength=VOCAB)


def assert_drawn_from(counts_V: Tensor, probabilities_V: Tensor) -> None:
    """Assert by a chi-square test that the counts follow the distribution."""
    possible_V = probabilities_V > 0
    assert counts_V[~possible_V].sum() == 0
    observed = counts_V[possible_V].numpy()
    weights = probabilities_V[possible_V].double().numpy()
    expected = weights / weights.sum() * observed.sum()
    assert expected.min() > 5  # requirement of the chi-square test
    assert stats.chisquare(observed, expected).pvalue > 1e-4


@each(SAMPLERS)
def test_tokens_are_sampled_from_the_generators_softmax(member: Member) -> None:
    assert_drawn_from(sample_counts(member, PROBABILITIES_V, text(1_000)), PROBABILITIES_V)


@each(SAMPLERS)
@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature_divides_the_logits(member: Member, temperature: float) -> None:
    counts_V = sample_counts(member, PROBABILITIES_V, text(1_000), temperature=temperature)
    assert_drawn_from(counts_V, PROBABILITIES_V ** (1 / temperature))


@each(SAMPLERS)
def test_disallowed_original_is_never_sampled_and_others_stay_in_proportion(
    member: Member,
) -> None:
    batch = only(LIKELY, 1_000)
    counts_V = sample_counts(member, PROBABILITIES_V, batch, disallow_correct=True)
    assert_drawn_from(counts_V, PROBABILITIES_V * (1 - always(LIKELY)))
    assert sample_counts(member, PROBABILITIES_V, batch)[LIKELY] > 0


@each(SAMPLERS)
def test_each_slot_is_sampled_from_its_own_distribution(member: Member) -> None:
    objective, batch = make_objective(member), text(1_000)
    logits: list[Tensor] = []
    objective.generator.vocabulary.register_forward_hook(lambda *call: logits.append(call[2]))
    ids_BT = reads(objective, batch, reading_turn(member))["encoder"]
    slots_BK, chosen_BT = masked(member, batch).slots_BK, drawn_once(masked(member, batch))
    log_p_BKV = logits[0].double().log_softmax(-1)
    own_BK = log_p_BKV.gather(-1, ids_BT.gather(1, slots_BK)[..., None])[..., 0]
    mean_BK = (log_p_BKV.exp() * log_p_BKV).sum(-1)
    spread_BK = (log_p_BKV.exp() * log_p_BKV.square()).sum(-1) - mean_BK.square()
    deviation, variance = (
        torch.zeros_like(ids_BT, dtype=torch.float64).scatter(1, slots_BK, value)[chosen_BT].sum()
        for value in (own_BK - mean_BK, spread_BK)
    )
    assert abs(deviation) < 4 * variance.sqrt()
    likeliest_BK = log_p_BKV.max(-1).values
    assert (likeliest_BK - mean_BK).sum() > 20 * variance.sqrt()  # argmax would fail


@each(
    tuple(
        m
        for m in SAMPLERS
        if not isinstance(m.objective, AdversarialConfig) and not m.objective.frozen_generator
    )
)
def test_sampling_without_dropout_gives_the_samples_of_evaluation_mode(member: Member) -> None:
    encoder, batch, updates = replace(member.encoder, dropout=0.3), text(100), reading_turn(member)
    for dropout in (True, False):
        settings = replace(member.objective, sampling=SamplingConfig(dropout=dropout))
        objective = make_objective(replace(member, objective=settings, encoder=encoder))
        torch.manual_seed(0)
        trained = reads(objective.train(), batch, updates)["encoder"]
        assert objective.training
        assert all(part.training for part in objective.modules())
        evaluated = reads(objective.eval(), batch, updates)["encoder"]
        assert trained.equal(evaluated) is not dropout


@each(tuple(m for m in MEMBERS if isinstance(m.objective, RandomReplacementConfig)))
def test_random_words_follow_their_distribution_without_special_tokens(member: Member) -> None:
    counts_V = (
        COUNTS_V if member.objective.replacement_distribution == "unigram" else torch.ones(VOCAB)
    )
    probabilities_V = torch.where(torch.arange(VOCAB) >= FIRST_WORD, counts_V, 0).double()
    assert_drawn_from(sample_counts(member, None, text(1_000)), probabilities_V)


def test_random_words_of_bert_are_no_special_tokens() -> None:
    (member,) = (m for m in MEMBERS if m.id == "electra_auxiliary")
    batch = text(4_000)
    ids_BT = reads(make_objective(member), batch)["generator"]
    changed_BT = (ids_BT != batch.ids_BT) & (ids_BT != MASK)
    counts_V = torch.bincount(ids_BT[changed_BT], minlength=VOCAB)
    assert changed_BT.sum() > 500
    assert counts_V[:FIRST_WORD].sum() == 0
    assert (counts_V[FIRST_WORD:] > 0).all()
