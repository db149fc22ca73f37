"""Phases: networks that a step updates, progress of the stage, and shares of the phases."""

from dataclasses import replace
from itertools import product
from typing import Literal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lab.config.objectives import AnyObjectiveConfig
from lab.config.objectives.adversarial import AdversarialConfig
from lab.config.objectives.electra import Electra15Config, ElectraConfig
from lab.config.objectives.mlm import MlmConfig
from lab.config.objectives.predictors import AllTokensMlmConfig, ReplaceMlmConfig
from lab.config.objectives.random import RandomReplacementConfig
from lab.config.objectives.two_stage import TwoStageConfig
from lab.config.objectives.update_rules import AlternationConfig, EpochAlternationConfig
from lab.config.schedules.phases import Phase, UpdatedNetworks


def alternating(steps: int, weight: float = 1.0) -> AdversarialConfig:
    return AdversarialConfig(
        kind="adversarial",
        sharing="none",
        adversarial_weight=weight,
        rule=AlternationConfig(kind="alternation", steps=steps),
    )


def two_stage(switch: float) -> TwoStageConfig:
    return TwoStageConfig(kind="two_stage", switch=switch)


UPDATING_ALL: list[AnyObjectiveConfig] = [
    ElectraConfig(kind="electra"),
    Electra15Config(kind="electra_15"),
    ReplaceMlmConfig(kind="replace_mlm"),
    AllTokensMlmConfig(kind="all_tokens_mlm"),
    MlmConfig(kind="mlm"),
    RandomReplacementConfig(kind="random"),
    AdversarialConfig(kind="adversarial"),
    AdversarialConfig(kind="adversarial", adversarial_weight=0.0),
    alternating(3, weight=0.0),
]
objectives = (
    st.sampled_from(UPDATING_ALL)
    | st.builds(two_stage, st.floats(0.01, 0.99))
    | st.builds(alternating, st.integers(1, 20), st.floats(0.01, 1))
)
switches = st.floats(0, 1, exclude_min=True, exclude_max=True)
fractions = st.floats(0, 1)
steps = st.integers(0, 10**6)


@pytest.mark.parametrize("objective", UPDATING_ALL, ids=lambda objective: objective.kind)
@given(step=steps, fraction=fractions)
def test_objectives_without_phases_update_all_networks_in_every_step(
    objective: AnyObjectiveConfig, step: int, fraction: float
) -> None:
    assert objective.phase_at(step, fraction) == Phase(UpdatedNetworks.ALL, fraction)
    assert objective.phase_shares() == {UpdatedNetworks.ALL: 1.0}


@given(switch=switches, fraction=fractions, step=steps)
def test_first_stage_updates_the_generator_until_its_share_of_the_budget_is_spent(
    switch: float, fraction: float, step: int
) -> None:
    updates, progress = two_stage(switch).phase_at(step, fraction)
    assert (updates is UpdatedNetworks.GENERATOR) == (fraction < switch)
    assert updates is not UpdatedNetworks.ALL
    assert 0 <= progress <= 1


@pytest.mark.parametrize("switch", [0.1, 0.5, 0.75])
def test_progress_of_each_stage_goes_from_zero_to_one(switch: float) -> None:
    objective = two_stage(switch)
    assert objective.phase_at(0, 0.0) == Phase(UpdatedNetworks.GENERATOR, 0.0)
    last = objective.phase_at(500, switch - 1e-9)
    assert last.updates is UpdatedNetworks.GENERATOR
    assert last.progress == pytest.approx(1, abs=1e-7)
    assert objective.phase_at(500, switch) == Phase(UpdatedNetworks.DISCRIMINATOR, 0.0)
    assert objective.phase_at(1_000, 1.0) == Phase(UpdatedNetworks.DISCRIMINATOR, 1.0)


@given(switch=switches, one=fractions, other=fractions)
def test_progress_never_decreases_within_a_stage(switch: float, one: float, other: float) -> None:
    early, late = (two_stage(switch).phase_at(0, part) for part in sorted((one, other)))
    assume(early.updates is late.updates)
    assert early.progress <= late.progress


def test_step_beyond_the_budget_belongs_to_the_second_stage() -> None:
    assert two_stage(0.5).phase_at(7, 1.01).updates is UpdatedNetworks.DISCRIMINATOR


@pytest.mark.parametrize("k", [1, 2, 5])
def test_alternation_starts_with_the_discriminator_and_updates_each_network_k_times(
    k: int,
) -> None:
    updated = [alternating(k).phase_at(step, 0.3).updates for step in range(4 * k)]
    assert updated == ([UpdatedNetworks.DISCRIMINATOR] * k + [UpdatedNetworks.GENERATOR] * k) * 2


@pytest.mark.parametrize("k", [1, 3])
def test_alternation_can_start_with_the_generator(k: int) -> None:
    rule = AlternationConfig(kind="alternation", steps=k, first="generator")
    objective = AdversarialConfig(kind="adversarial", rule=rule)
    updated = [objective.phase_at(step, 0.3).updates for step in range(4 * k)]
    assert updated == ([UpdatedNetworks.GENERATOR] * k + [UpdatedNetworks.DISCRIMINATOR] * k) * 2


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize(
    ("first", "second"), [("discriminator", "generator"), ("generator", "discriminator")]
)
def test_alternation_by_epochs_depends_on_the_epoch_alone(
    epochs: int, first: Literal["discriminator", "generator"], second: str
) -> None:
    rule = EpochAlternationConfig(kind="epoch_alternation", epochs=epochs, first=first)
    objective = AdversarialConfig(kind="adversarial", rule=rule)
    for step in (0, 7, 1_000):
        updated = [objective.phase_at(step, 0.2, epoch).updates.value for epoch in range(6)]
        assert updated == (([first] * epochs + [second] * epochs) * 3)[:6]
    assert objective.minimum_epochs() == epochs
    assert replace(objective, adversarial_weight=0.0).minimum_epochs() == 0


@given(k=st.integers(1, 50), first=steps, fraction=fractions, weight=st.floats(0.01, 1))
def test_any_2k_consecutive_steps_update_each_network_k_times_at_the_same_progress(
    k: int, first: int, fraction: float, weight: float
) -> None:
    phases = [alternating(k, weight).phase_at(first + i, fraction) for i in range(2 * k)]
    updates = [phase.updates for phase in phases]
    assert (
        updates.count(UpdatedNetworks.DISCRIMINATOR)
        == updates.count(UpdatedNetworks.GENERATOR)
        == k
    )
    assert {phase.progress for phase in phases} == {fraction}


@given(objective=objectives)
def test_phase_shares_sum_to_one_and_contain_every_phase(objective: AnyObjectiveConfig) -> None:
    shares = objective.phase_shares()
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) > 0
    points = product(range(40), (0.0, 0.005, 0.995))
    assert {objective.phase_at(step, fraction).updates for step, fraction in points} == set(shares)


@given(switch=st.floats(0.01, 0.99))
def test_shares_of_two_stages_are_shares_of_the_budget(switch: float) -> None:
    grid = [two_stage(switch).phase_at(0, (i + 0.5) / 1_000).updates for i in range(1_000)]
    for updates, share in two_stage(switch).phase_shares().items():
        assert grid.count(updates) / 1_000 == pytest.approx(share, abs=1e-3)


@given(objective=objectives, extra=st.integers(0, 50), share=st.floats(0.34, 1))
def test_run_of_the_minimum_number_of_steps_updates_every_network(
    objective: AnyObjectiveConfig, extra: int, share: float
) -> None:
    total = objective.minimum_steps() + extra
    costs = {
        UpdatedNetworks.GENERATOR: share,
        UpdatedNetworks.DISCRIMINATOR: 1.0,
        UpdatedNetworks.ALL: 1.0,
    }
    mean = 1 / sum(part / costs[updates] for updates, part in objective.phase_shares().items())
    seen, step, spent = set(), 0, 0.0
    while spent < total * mean:
        updates = objective.phase_at(step, spent / (total * mean)).updates
        seen.add(updates)
        spent, step = spent + costs[updates], step + 1
    assert seen == set(objective.phase_shares())
