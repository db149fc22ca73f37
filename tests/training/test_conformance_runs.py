"""Conformance of every objective over a run: reproducibility, learning, resumption and phases."""

import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

import pytest
import torch
from members import (
    GROWING,
    MEMBERS,
    ExpectedDecrease,
    Member,
    Run,
    each,
    make_objective,
    matches,
    same,
    state,
    text,
    trial,
)
from torch import Tensor, nn

from lab.config.architecture import GeneratorConfig
from lab.config.objectives.electra import ElectraConfig
from lab.config.objectives.two_stage import TwoStageConfig
from lab.config.objectives.update_rules import (
    AlternationConfig,
    EpochAlternationConfig,
    ReinforceConfig,
)
from lab.config.optimizer import AdamConfig, AdamWConfig, AnyOptimizerConfig, MuonConfig
from lab.config.schedules.phases import UpdatedNetworks
from lab.config.trial import Trial
from lab.data.vocabulary import PAD
from lab.evaluation import scores
from lab.evaluation.corruption import HeldOut
from lab.training import optimizer as optim
from lab.training.loop import CompletedStep
from lab.training.objectives.base import Objective

RULES = [
    ReinforceConfig(kind="reinforce"),
    AlternationConfig(kind="alternation"),
    EpochAlternationConfig(kind="epoch_alternation"),
]


def metrics(steps: list[CompletedStep]) -> list[dict[str, float]]:
    return [{name: value.item() for name, value in step.parts.items()} for step in steps]


class Whole(NamedTuple):
    """An uninterrupted run.

    Attributes:
        steps: results of its steps.
        states: weights before its first step and after each step.
        saved: saved states of objective and optimizer after each step.
    """

    steps: list[CompletedStep]
    states: list[Mapping[str, Tensor]]
    saved: list[bytes]


_WHOLE: dict[str, Whole] = {}  # by the text of the trial


def uninterrupted(settings: Trial) -> Whole:
    """Return the run of a trial; tests that compare with it share it."""
    if repr(settings) not in _WHOLE:
        run, steps, saved = Run(settings), [], []
        states = [state(run.objective)]
        for step in run.steps():
            steps.append(step)
            states.append(state(run.objective))
            saved.append(save((run.objective.state_dict(), run.optimizer.state_dict())))
        _WHOLE[repr(settings)] = Whole(steps, states, saved)
    return _WHOLE[repr(settings)]


def save(value: Any) -> bytes:
    """Return `value` as torch saves it."""
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def load(saved: bytes) -> Any:
    """Return the value that `save` saved."""
    return torch.load(io.BytesIO(saved), weights_only=True)


# Reproducibility.


@each()
def test_training_is_bitwise_reproducible(member: Member) -> None:
    first = uninterrupted(trial(member))
    torch.manual_seed(99)  # changes the state of torch's generator
    second, actual = Run(trial(member)), []
    for step in islice(second.steps(), 6):
        torch.rand(3)
        actual.append(step)
    assert metrics(actual) == metrics(first.steps[:6])
    assert same(first.states[6], state(second.objective))


@each()
@pytest.mark.parametrize("seed", ["init", "order", "mask"])
def test_each_seed_changes_the_run(member: Member, seed: str) -> None:
    base = trial(member)
    expected = uninterrupted(base).states
    run = Run(replace(base, seeds=replace(base.seeds, **{seed: 50})))
    assert same(state(run.objective), expected[0]) is (seed != "init")
    next(run.steps())
    assert not same(state(run.objective), expected[1])


# Learning.


_STEPS = 50


def fit(member: Member) -> Iterator[dict[str, float]]:
    """Yield the metrics of each step on one batch with one masking and sampling."""
    objective, batch, settings = make_objective(member), text(), AdamConfig(lr=5e-3)
    optimizer = optim.build_optimizer(objective, settings)
    for n in range(_STEPS):
        updates = member.objective.phase_at(n, n / _STEPS).updates
        objective.begin(updates, objective.step_settings)
        torch.manual_seed(n)
        loss = objective(batch, 0, updates)
        optimizer.zero_grad()
        loss.total.backward()
        optim.clip_gradients(objective, settings)
        optimizer.step()
        parts = objective.health(loss.parts)
        yield {name: value.item() for name, value in parts.items()}


def final_ratio(metrics_of_steps: list[dict[str, float]], falls: ExpectedDecrease) -> float:
    """Return the ratio of a loss to its reference: another metric, or its own first value.

    The loss and the other metric are means over the last ten steps that report the loss. The ratio
    is infinite if fewer steps report it.
    """
    steps = [step for step in metrics_of_steps if falls.part in step]
    if len(steps) < 10:
        return math.inf
    final = sum(step[falls.part] for step in steps[-10:]) / 10
    if not falls.of:
        return final / steps[0][falls.part]
    other = sum(step[falls.of] for step in steps[-10:]) / 10
    assert other > 0.02  # otherwise hardly any token is replaced
    return final / other


@each()
def test_objective_overfits_one_batch(member: Member) -> None:
    steps, ratios = [], {"": math.inf}
    for step in fit(member):
        steps.append(step)
        ratios = {
            falls.part: final_ratio(steps, falls) / falls.share
            for falls in member.expected_decreases
        }
        if max(ratios.values()) < 1:
            break
    assert max(ratios.values()) < 1, ratios


# Evaluation.


def evaluate(objective: Any, member: Member) -> None:
    batch = text()
    text_BT = batch.ids_BT != PAD
    objective.eval()
    with torch.no_grad():
        for updates in member.turns:
            objective(batch, 7, updates)
        objective.encoder.compute_hidden_states(batch.ids_BT, text_BT)
        if "discriminator" in member.objective.networks:
            objective.detect(batch.ids_BT, text_BT)
    objective.train()
    corrupted_BT = batch.ids_BT.where(batch.ids_BT != batch.ids_BT[0, 1], batch.ids_BT[0, 2])
    held_out = HeldOut(
        original_NT=batch.ids_BT,
        corrupted_NT={"": corrupted_BT},
        document_N=torch.arange(len(batch.ids_BT)),
    )
    row = scores.score_detection(objective, held_out)
    assert bool(row) is ("discriminator" in member.objective.networks)


# Numbers of steps before an evaluation: in each phase, and around the middle of the eight steps,
# where the phase and the window length change.
_EVALUATED = {1, 3, 4, 5}


@each()
def test_evaluation_does_not_change_the_run(member: Member) -> None:
    plain, evaluated = uninterrupted(trial(member)), Run(trial(member))
    for one, other in zip(plain.steps, evaluated.steps(), strict=True):
        assert metrics([one]) == metrics([other])
        if one.spent.steps not in _EVALUATED:
            continue
        before, rng_state = state(evaluated.objective), torch.get_rng_state()
        attributes = [(p.requires_grad, p.grad) for p in evaluated.objective.parameters()]
        copies = [None if grad is None else grad.clone() for _, grad in attributes]
        evaluate(evaluated.objective, member)
        assert torch.get_rng_state().equal(rng_state)
        assert same(state(evaluated.objective), before)
        for p, (requires_grad, grad), copy in zip(
            evaluated.objective.parameters(), attributes, copies, strict=True
        ):
            assert p.requires_grad is requires_grad
            assert p.grad is grad
            assert grad is None or grad.equal(copy)
    assert same(plain.states[-1], state(evaluated.objective))


@each()
def test_repeated_evaluation_gives_the_same_loss(member: Member) -> None:
    objective, batch = make_objective(member).eval(), text()
    for updates in member.turns:
        first = objective(batch, 3, updates)
        torch.rand(5)
        second = objective(batch, 3, updates)
        assert first.total.equal(second.total)
        assert same(first.parts, second.parts)


# Saving.


def each_cut(members: tuple[Member, ...]) -> pytest.MarkDecorator:
    """Return a parametrisation by member and number of steps before the interruption."""
    cases = [(member, cut) for member in members for cut in member.cuts]
    ids = [f"{member.id}-{cut}" for member, cut in cases]
    return pytest.mark.parametrize(("member", "cut"), cases, ids=ids)


@each_cut((*MEMBERS, *GROWING))
def test_resumed_run_equals_an_uninterrupted_run(member: Member, cut: int) -> None:
    assert_resumes(trial(member), cut)


@each_cut(MEMBERS)
def test_resumed_run_with_muon_equals_an_uninterrupted_run(member: Member, cut: int) -> None:
    assert_resumes(trial(member, optim=MuonConfig(kind="muon", lr=1e-3)), cut)


@each_cut(tuple(m for m in MEMBERS if m.id in ("electra_tokens", "alternation_generator_first")))
def test_resumed_run_with_adamw_equals_an_uninterrupted_run(member: Member, cut: int) -> None:
    assert_resumes(trial(member, optim=AdamWConfig(kind="adamw", lr=1e-3)), cut)


def assert_resumes(settings: Trial, cut: int) -> None:
    """Assert that a run resumed after `cut` steps equals an uninterrupted run."""
    whole, resumed = uninterrupted(settings), Run(settings, init=9)
    weights, moments = load(whole.saved[cut - 1])
    resumed.objective.load_state_dict(weights)
    resumed.optimizer.load_state_dict(moments)
    torch.rand(50)  # as a new process would change torch's generator
    actual, expected = list(resumed.steps(whole.steps[cut - 1].spent)), whole.steps[cut:]
    assert metrics(actual) == metrics(expected)
    assert [step.spent for step in actual] == [step.spent for step in expected]
    assert same(state(resumed.objective), whole.states[-1])


# Sharing.


def assert_sharing(member: Member, objective: Any) -> None:
    """Assert that exactly the parameters of `member.common` are one object in both networks."""
    if not hasattr(objective, "generator"):
        assert not member.common
        return
    theirs = {id(p) for p in objective.generator.parameters()}
    common = {name for name, p in objective.encoder.named_parameters("encoder") if id(p) in theirs}
    every = [name for name, _ in objective.encoder.named_parameters("encoder")]
    assert common == {name for name in every if matches(name, member.common)}
    assert bool(common) is bool(member.common)
    values = {p.data_ptr(): id(p) for p in objective.parameters()}
    assert len(values) == len(
        {id(p) for p in objective.parameters()}
    )  # no two parameters share memory


@each()
def test_networks_share_exactly_the_common_parameters_as_one_object(member: Member) -> None:
    objective = make_objective(member)
    assert_sharing(member, objective)
    objective.load_state_dict(load(save(make_objective(member).state_dict())))
    assert_sharing(member, objective)
    assert_sharing(member, objective.to(torch.float64))
    assert_sharing(member, objective.to("cpu"))


@each()
def test_every_parameter_has_one_owner_and_is_optimised_once(member: Member) -> None:
    objective = make_objective(member)
    every = sorted(id(p) for p in objective.parameters() if p.requires_grad)
    owned = [id(p) for parameters in objective.networks().values() for p in parameters]
    groups = optim.build_optimizer(objective, AdamConfig()).param_groups
    optimised = [id(p) for group in groups for p in group["params"]]
    assert sorted(owned) == every
    assert sorted(optimised) == every


@each()
def test_shared_parameters_belong_to_the_encoders_network_except_base_tables(
    member: Member,
) -> None:
    objective = make_objective(member)
    first, *others = objective.networks()
    generates = hasattr(objective, "generator") and not member.objective.frozen_generator
    assert others == (["generator"] if generates else [])
    of_first = {id(p) for p in objective.networks()[first]}
    base = "encoder.embeddings.base"
    for name, p in objective.encoder.named_parameters("encoder"):
        assert (id(p) in of_first) is not name.startswith(base), name


# The frozen generator.


@each(tuple(m for m in MEMBERS if m.objective.frozen_generator))
def test_frozen_generator_does_not_change_while_the_encoder_is_trained(member: Member) -> None:
    run = Run(trial(member))
    generator, encoder = run.objective.generator, run.objective.encoder
    generator_before, encoder_before = state(generator), state(encoder)
    for _ in run.steps():
        assert all(p.grad is None for p in generator.parameters())
    assert same(state(generator), generator_before)
    assert not same(state(encoder), encoder_before)
    optimized = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    assert not optimized & {id(p) for p in generator.parameters()}


@each(tuple(m for m in MEMBERS if m.objective.frozen_generator))
def test_frozen_generator_samples_without_dropout_while_the_encoder_has_dropout(
    member: Member,
) -> None:
    objective, batch = (
        make_objective(replace(member, encoder=replace(member.encoder, dropout=0.3))),
        text(),
    )
    settings = trial(member).settings_at(0.0)
    for _ in range(2):
        objective.train()
        assert objective.encoder.training
        assert not any(part.training for part in objective.generator.modules())
        torch.manual_seed(0)
        trained = objective.generator(batch, 0, settings)
        assert trained.ids_BT.equal(objective.eval().generator(batch, 0, settings).ids_BT)
        assert not trained.replacement_logits_BKV.requires_grad


# Adversarial training.


def adversarial(rule: Any, **settings: Any) -> Member:
    (member,) = (m for m in MEMBERS if m.id == "reinforce")
    return replace(member, objective=replace(member.objective, rule=rule, **settings))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
def test_adversarial_weight_zero_equals_electra(rule: Any) -> None:
    member = adversarial(rule, adversarial_weight=0.0)
    shared = {name: getattr(member.objective, name) for name in ("mask_prob", "sharing")}
    electra = replace(member, objective=ElectraConfig(kind="electra", **shared))
    adversarial_run, plain = Run(trial(member)), Run(trial(electra))
    assert metrics(list(islice(adversarial_run.steps(), 5))) == metrics(
        list(islice(plain.steps(), 5))
    )
    assert same(state(adversarial_run.objective), state(plain.objective))


def weights_by_network(objective: Objective) -> dict[str, dict[str, Tensor]]:
    """Return a copy of each network's weights."""
    return {
        network: {str(n): p.detach().clone() for n, p in enumerate(parameters)}
        for network, parameters in objective.networks().items()
    }


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_networks_alternate_starting_with_the_discriminator(steps: int) -> None:
    rule = AlternationConfig(kind="alternation", steps=steps)
    run = Run(trial(adversarial(rule, sharing="none")))
    before, updated = weights_by_network(run.objective), []
    for step in run.steps():
        after = weights_by_network(run.objective)
        updated.append([network for network in after if not same(before[network], after[network])])
        has_norm = "health/grad_norm_generator" in step.parts
        assert has_norm is (updated[-1][0] == "generator")
        before = after
    period = [["discriminator"]] * steps + [["generator"]] * steps
    assert updated == (period * 8)[:8]


@pytest.mark.parametrize("sharing", ["tokens", "gdes", "all"])
@pytest.mark.parametrize("optim", [AdamConfig(lr=1e-3), AdamWConfig(kind="adamw", lr=1e-3)])
def test_shared_weights_are_updated_in_each_turn_and_own_weights_in_their_turn(
    sharing: str, optim: AnyOptimizerConfig
) -> None:
    rule = AlternationConfig(kind="alternation", first="generator")
    member = adversarial(rule, sharing=sharing)
    if sharing == "all":
        member = replace(
            member, objective=replace(member.objective, generator=GeneratorConfig(width=1))
        )
    run = Run(trial(member, optim=optim))
    objective = run.objective
    of_generator = {id(p) for p in objective.generator.parameters()}
    shared = {id(p) for p in objective.encoder.parameters()} & of_generator
    if sharing == "gdes":  # the encoder sends no gradient to the base tables
        shared = set()
    before = {id(p): p.detach().clone() for p in objective.parameters()}
    for number, step in enumerate(run.steps()):
        network = ("generator", "discriminator")[number % 2]
        changed = {id(p) for p in objective.parameters() if not p.equal(before[id(p)])}
        generators = of_generator | {id(p) for p in objective.baseline.parameters()}
        own = generators - shared if network == "generator" else before.keys() - generators
        keys = {id(p) for name, p in objective.named_parameters() if name.endswith("key.bias")}
        assert changed | keys == own | shared | keys
        norms = [name for name in step.parts if name.startswith("health/grad_norm_")]
        assert norms == [f"health/grad_norm_{network}"]
        before = {id(p): p.detach().clone() for p in objective.parameters()}


@pytest.mark.parametrize("first", ["discriminator", "generator"])
def test_networks_alternate_by_epochs_of_the_text(first: str) -> None:
    rule = EpochAlternationConfig(kind="epoch_alternation", first=first)
    run = Run(trial(adversarial(rule, sharing="none")))
    # The text has 30 windows and a step 8: steps 0 to 3 begin in the first epoch.
    before, updated = weights_by_network(run.objective), []
    for _ in run.steps():
        after = weights_by_network(run.objective)
        updated += [network for network in after if not same(before[network], after[network])]
        before = after
    other = "generator" if first == "discriminator" else "discriminator"
    assert updated == [first] * 4 + [other] * 4


# Two stages.


def two_stage(switch: float) -> Run:
    (member,) = (m for m in MEMBERS if m.id == "two_stage")
    return Run(trial(replace(member, objective=replace(member.objective, switch=switch))))


@pytest.mark.parametrize(("switch", "first"), [(0.25, 2), (0.5, 4), (0.7, 6)])
def test_discriminator_starts_from_the_generator_which_is_then_frozen(
    switch: float, first: int
) -> None:
    run = two_stage(switch)
    encoder, generator = run.objective.encoder, run.objective.generator
    equal: list[bool] = []

    def compare(*_: Any) -> None:
        equal.append(same(encoder.state_dict(), generator.encoder.state_dict()))

    encoder.register_forward_pre_hook(compare)
    before = state(generator)
    for n, _ in enumerate(run.steps()):
        is_updated = not same(state(generator), before)
        assert is_updated is (n < first)
        before = state(generator)
    assert equal == [True] + [False] * (8 - first - 1)


def test_discriminator_does_not_change_before_the_switch() -> None:
    run = two_stage(0.5)
    parts = nn.ModuleList([run.objective.encoder, run.objective.detection])
    before = state(parts)
    list(islice(run.steps(), 4))
    assert same(state(parts), before)


@pytest.mark.parametrize("switch", [0.25, 0.5])
def test_each_stage_has_progress_from_zero_to_one(switch: float) -> None:
    settings = TwoStageConfig(kind="two_stage", switch=switch)
    phases = [settings.phase_at(n, n / 80) for n in range(81)]
    first = round(80 * switch)
    for stage, updates in (
        (phases[:first], UpdatedNetworks.GENERATOR),
        (phases[first:], UpdatedNetworks.DISCRIMINATOR),
    ):
        assert {phase.updates for phase in stage} == {updates}
        assert stage[0].progress == 0
        steps = len(stage) if updates is UpdatedNetworks.GENERATOR else len(stage) - 1
        assert [phase.progress for phase in stage] == pytest.approx(
            [n / steps for n in range(len(stage))]
        )
