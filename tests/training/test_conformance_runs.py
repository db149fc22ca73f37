"""What every objective promises of a run: it repeats, learns, resumes, and keeps its turns."""

import io
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
import torch
from members import (
    GROWING,
    MEMBERS,
    Falls,
    Member,
    Run,
    each,
    made,
    matches,
    same,
    state,
    text,
    trial,
)
from torch import Tensor, nn

from lab.config import trial as spec
from lab.config.objectives.adversarial import AlternationConfig, ReinforceConfig
from lab.config.objectives.electra import ElectraConfig
from lab.config.objectives.two_stage import TwoStageConfig
from lab.config.optimizer import AdamConfig, MuonConfig
from lab.config.phases import UpdatedNetworks
from lab.data.vocabulary import PAD
from lab.evaluation import scores
from lab.evaluation.corruption import HeldOut
from lab.training import optimizer as optim
from lab.training.loop import CompletedStep
from lab.training.objectives.base import Objective

RULES = [ReinforceConfig(kind="reinforce"), AlternationConfig(kind="alternation")]


def reports(steps: list[CompletedStep]) -> list[dict[str, float]]:
    return [{name: value.item() for name, value in step.parts.items()} for step in steps]


# Chance.


@each()
def test_training_is_bitwise_equal_under_a_seed(member: Member) -> None:
    first = Run(trial(member))
    expected = reports(list(islice(first.steps(), 6)))
    torch.manual_seed(99)  # what else happens in a process
    second, found = Run(trial(member)), []
    for step in islice(second.steps(), 6):
        torch.rand(3)
        found.append(step)
    assert reports(found) == expected
    assert same(state(first.objective), state(second.objective))


@each()
@pytest.mark.parametrize("seed", ["init", "order", "mask"])
def test_every_seed_matters(member: Member, seed: str) -> None:
    base = trial(member)
    runs = [Run(base), Run(replace(base, seeds=replace(base.seeds, **{seed: 50})))]
    starts = [state(run.objective) for run in runs]
    assert same(*starts) is (seed != "init")
    for run in runs:
        list(islice(run.steps(), 3))
    assert not same(*(state(run.objective) for run in runs))


# Learning.


def fit(member: Member, steps: int) -> list[dict[str, float]]:
    """Return what each of so many steps on one batch, one masking and one chance reported."""
    objective, batch, settings = made(member), text(), AdamConfig(lr=5e-3)
    optimizer = optim.build_optimizer(objective, settings)
    seen = []
    for n in range(steps):
        learns = member.objective.phase_at(n, n / steps).learns
        objective.begin(learns, objective.now)
        torch.manual_seed(n)
        loss = objective(batch, 0, learns)
        optimizer.zero_grad()
        loss.total.backward()
        optim.clip_gradients(objective, settings)
        optimizer.step()
        parts = objective.health(loss.parts)
        seen.append({name: value.item() for name, value in parts.items()})
    return seen


def fallen(seen: list[Mapping[str, float]], promise: Falls) -> float:
    """Return the part's mean over its last steps, as a share of what it is promised to be below."""
    told = [step for step in seen if promise.part in step]
    last = sum(step[promise.part] for step in told[-10:]) / 10
    if not promise.of:
        return last / told[0][promise.part]
    other = sum(step[promise.of] for step in told[-10:]) / 10
    assert other > 0.02  # there is still something to tell
    return last / other


@each()
def test_one_batch_is_learned_by_heart(member: Member) -> None:
    seen = fit(member, 50)
    for promise in member.learns:
        assert fallen(seen, promise) < promise.share, promise.part


# Evaluation.


def evaluate(objective: Any, member: Member) -> None:
    batch = text()
    text_BT = batch.ids_BT != PAD
    objective.eval()
    with torch.no_grad():
        for learns in member.turns:
            objective(batch, 7, learns)
        objective.encoder.every_layer(batch.ids_BT, text_BT)
        if "discriminator" in member.objective.networks:
            objective.detect(batch.ids_BT, text_BT)
    objective.train()
    corrupted_BT = batch.ids_BT.where(batch.ids_BT != batch.ids_BT[0, 1], batch.ids_BT[0, 2])
    row = scores.score_detection(
        objective, HeldOut(original_NT=batch.ids_BT, corrupted_NT={"": corrupted_BT})
    )
    assert bool(row) is ("discriminator" in member.objective.networks)


@each()
def test_evaluation_changes_nothing(member: Member) -> None:
    plain, watched = Run(trial(member)), Run(trial(member))
    for one, other in zip(plain.steps(), watched.steps(), strict=True):
        assert reports([one]) == reports([other])
        before, chance = state(watched.objective), torch.get_rng_state()
        learned = [(p.requires_grad, p.grad) for p in watched.objective.parameters()]
        gradients = [None if grad is None else grad.clone() for _, grad in learned]
        evaluate(watched.objective, member)
        assert torch.get_rng_state().equal(chance)
        assert same(state(watched.objective), before)
        for p, (requires, grad), kept in zip(
            watched.objective.parameters(), learned, gradients, strict=True
        ):
            assert p.requires_grad is requires
            assert p.grad is grad
            assert grad is None or grad.equal(kept)
    assert same(state(plain.objective), state(watched.objective))


@each()
def test_evaluation_can_be_repeated(member: Member) -> None:
    objective, batch = made(member).eval(), text()
    for learns in member.turns:
        first = objective(batch, 3, learns)
        torch.rand(5)
        second = objective(batch, 3, learns)
        assert first.total.equal(second.total)
        assert same(first.parts, second.parts)


# Saving.


def saved(value: Any) -> Any:
    """Return `value` as it comes back from a file."""
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def each_cut(members: tuple[Member, ...]) -> pytest.MarkDecorator:
    """Return a parametrisation by member and number of steps before the break."""
    cases = [(member, cut) for member in members for cut in member.cuts]
    ids = [f"{member.id}-{cut}" for member, cut in cases]
    return pytest.mark.parametrize(("member", "cut"), cases, ids=ids)


@each_cut((*MEMBERS, *GROWING))
def test_run_goes_on_from_its_saved_state_as_if_never_stopped(member: Member, cut: int) -> None:
    assert_goes_on(trial(member), cut)


@each_cut(MEMBERS)
def test_run_under_muon_goes_on_from_its_saved_state_as_if_never_stopped(
    member: Member, cut: int
) -> None:
    assert_goes_on(trial(member, optim=MuonConfig(kind="muon", lr=1e-3)), cut)


def assert_goes_on(settings: spec.Trial, cut: int) -> None:
    """A run of `settings` that is broken off after `cut` steps ends as one that was not."""
    whole, first, second = Run(settings), Run(settings), Run(settings, init=9)
    expected = list(whole.steps())
    *_, stopped = islice(first.steps(), cut)
    second.objective.load_state_dict(saved(first.objective.state_dict()))
    second.optimizer.load_state_dict(saved(first.optimizer.state_dict()))
    torch.rand(50)  # what a new process would have done
    found = list(second.steps(stopped.spent))
    assert reports(found) == reports(expected[cut:])
    assert [step.spent for step in found] == [step.spent for step in expected[cut:]]
    assert same(state(second.objective), state(whole.objective))


# Sharing.


def assert_sharing(member: Member, objective: Any) -> None:
    """The promised parameters are one object in both networks, and no others."""
    if not hasattr(objective, "generator"):
        assert not member.common
        return
    theirs = {id(p) for p in objective.generator.parameters()}
    common = {name for name, p in objective.encoder.named_parameters("encoder") if id(p) in theirs}
    every = [name for name, _ in objective.encoder.named_parameters("encoder")]
    assert common == {name for name in every if matches(name, member.common)}
    assert bool(common) is bool(member.common)
    values = {p.data_ptr(): id(p) for p in objective.parameters()}
    assert len(values) == len({id(p) for p in objective.parameters()})  # nor is there a copy


@each()
def test_networks_share_the_promised_tables_as_one_object(member: Member) -> None:
    objective = made(member)
    assert_sharing(member, objective)
    objective.load_state_dict(saved(made(member).state_dict()))
    assert_sharing(member, objective)
    assert_sharing(member, objective.to(torch.float64))
    assert_sharing(member, objective.to("cpu"))


@each()
def test_every_parameter_is_owned_and_optimised_once(member: Member) -> None:
    objective = made(member)
    every = sorted(id(p) for p in objective.parameters() if p.requires_grad)
    owned = [id(p) for parameters in objective.networks().values() for p in parameters]
    groups = optim.build_optimizer(objective, AdamConfig()).param_groups
    optimised = [id(p) for group in groups for p in group["params"]]
    assert sorted(owned) == every
    assert sorted(optimised) == every


@each()
def test_what_is_shared_belongs_to_the_kept_network_unless_it_only_reads(member: Member) -> None:
    objective = made(member)
    first, *others = objective.networks()
    generates = hasattr(objective, "generator") and not member.objective.frozen_generator
    assert others == (["generator"] if generates else [])
    of_first = {id(p) for p in objective.networks()[first]}
    base = "encoder.embeddings.base"
    for name, p in objective.encoder.named_parameters("encoder"):
        assert (id(p) in of_first) is not name.startswith(base), name


# The frozen generator.


@each(tuple(m for m in MEMBERS if m.objective.frozen_generator))
def test_frozen_generator_stays_as_it_is_while_the_kept_network_learns(member: Member) -> None:
    run = Run(trial(member))
    generator, encoder = run.objective.generator, run.objective.encoder
    before, began = state(generator), state(encoder)
    for _ in run.steps():
        assert all(p.grad is None for p in generator.parameters())
    assert same(state(generator), before)
    assert not same(state(encoder), began)
    optimized = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    assert not optimized & {id(p) for p in generator.parameters()}


@each(tuple(m for m in MEMBERS if m.objective.frozen_generator))
def test_frozen_generator_writes_without_dropout_while_the_kept_network_has_it(
    member: Member,
) -> None:
    objective, batch = made(replace(member, encoder=replace(member.encoder, dropout=0.3))), text()
    now = trial(member).at(0.0)
    for _ in range(2):
        objective.train()
        assert objective.encoder.training
        assert not any(part.training for part in objective.generator.modules())
        torch.manual_seed(0)
        trained = objective.generator(batch, 0, now)
        assert trained.ids_BT.equal(objective.eval().generator(batch, 0, now).ids_BT)
        assert not trained.law_BKV.requires_grad


# The adversarial game.


def adversarial(rule: Any, **settings: Any) -> Member:
    (member,) = (m for m in MEMBERS if m.id == "reinforce")
    sharing = "none" if isinstance(rule, AlternationConfig) else "tokens"
    settings = {"sharing": sharing, "rule": rule} | settings
    return replace(member, objective=replace(member.objective, **settings))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
def test_game_without_weight_is_electra(rule: Any) -> None:
    member = adversarial(rule, adversarial_weight=0.0)
    shared = {name: getattr(member.objective, name) for name in ("mask_prob", "sharing")}
    electra = replace(member, objective=ElectraConfig(kind="electra", **shared))
    game, plain = Run(trial(member)), Run(trial(electra))
    assert reports(list(islice(game.steps(), 5))) == reports(list(islice(plain.steps(), 5)))
    assert same(state(game.objective), state(plain.objective))


def own(objective: Objective) -> dict[str, dict[str, Tensor]]:
    """Return a copy of each network's weights."""
    return {
        network: {str(n): p.detach().clone() for n, p in enumerate(parameters)}
        for network, parameters in objective.networks().items()
    }


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_networks_alternate_and_the_discriminator_begins(steps: int) -> None:
    rule = AlternationConfig(kind="alternation", steps=steps)
    run = Run(trial(adversarial(rule)))
    before, movers = own(run.objective), []
    for step in run.steps():
        after = own(run.objective)
        movers.append([network for network in after if not same(before[network], after[network])])
        learned = movers[-1][0]
        assert ("health/grad_norm_generator" in step.parts) is (learned == "generator")
        before = after
    turns = [["discriminator"]] * steps + [["generator"]] * steps
    assert movers == (turns * 8)[:8]


# Two stages.


def two_stage(switch: float) -> Run:
    (member,) = (m for m in MEMBERS if m.id == "two_stage")
    return Run(trial(replace(member, objective=replace(member.objective, switch=switch))))


@pytest.mark.parametrize(("switch", "first"), [(0.25, 2), (0.5, 4), (0.7, 6)])
def test_discriminator_starts_from_the_generator_which_is_frozen_then(
    switch: float, first: int
) -> None:
    run = two_stage(switch)
    encoder, generator = run.objective.encoder, run.objective.generator
    started: list[bool] = []

    def note(*_: Any) -> None:
        started.append(same(encoder.state_dict(), generator.encoder.state_dict()))

    encoder.register_forward_pre_hook(note)
    ended = state(generator)
    for n, _ in enumerate(run.steps()):
        moved = not same(state(generator), ended)
        assert moved is (n < first)
        ended = state(generator)
    assert started == [True] + [False] * (8 - first - 1)


def test_discriminator_stays_as_it_was_until_the_switch() -> None:
    run = two_stage(0.5)
    parts = nn.ModuleList([run.objective.encoder, run.objective.detection])
    before = state(parts)
    list(islice(run.steps(), 4))
    assert same(state(parts), before)


@pytest.mark.parametrize("switch", [0.25, 0.5])
def test_each_stage_has_the_whole_schedule(switch: float) -> None:
    settings = TwoStageConfig(kind="two_stage", switch=switch)
    turns = [settings.phase_at(n, n / 80) for n in range(81)]
    first = round(80 * switch)
    for stage, learns in (
        (turns[:first], UpdatedNetworks.GENERATOR),
        (turns[first:], UpdatedNetworks.DISCRIMINATOR),
    ):
        assert {one.learns for one in stage} == {learns}
        assert stage[0].progress == 0
        steps = len(stage) if learns is UpdatedNetworks.GENERATOR else len(stage) - 1
        assert [one.progress for one in stage] == pytest.approx(
            [n / steps for n in range(len(stage))]
        )
