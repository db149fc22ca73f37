"""Objectives that alternate by epochs need enough epochs and at least one step in each."""

from typing import Any

import pytest

from lab.config.architecture import EncoderConfig
from lab.config.budget import Budget
from lab.config.data import DataConfig
from lab.config.flops import step_cost
from lab.config.objectives import AnyObjectiveConfig
from lab.config.objectives.adversarial import AdversarialConfig
from lab.config.objectives.electra import ElectraConfig
from lab.config.objectives.update_rules import AlternationConfig, EpochAlternationConfig
from lab.config.schedules.epochs import check_epochs
from lab.config.schedules.phases import UpdatedNetworks
from lab.config.schedules.ramps import CountRamp
from lab.config.trial import Trial

ENCODER = EncoderConfig(layers=1, hidden=16, ffn=64, heads=2, embedding=16, dropout=0)
WINDOWS, LENGTH, BATCH = 50, 16, 4
EPOCH, STEP = WINDOWS * LENGTH, BATCH * LENGTH  # tokens


def by_epochs(epochs: int = 1) -> AdversarialConfig:
    rule = EpochAlternationConfig(kind="epoch_alternation", epochs=epochs)
    return AdversarialConfig(kind="adversarial", rule=rule)


def trial(tokens: float, objective: AnyObjectiveConfig, **changes: Any) -> Trial:
    settings: dict[str, Any] = {
        "encoder": ENCODER,
        "objective": objective,
        "data": DataConfig(vocab=100, length=LENGTH),
        "batch": BATCH,
        "budget": Budget(kind="tokens", amount=tokens),
    }
    return Trial(**settings | changes)


@pytest.mark.parametrize("epochs", [1, 3])
def test_run_must_reach_the_turn_of_the_second_network(epochs: int) -> None:
    # The first step of the second turn begins at most one step after the end of the first turn.
    check_epochs(trial(epochs * EPOCH + 2 * STEP, by_epochs(epochs)), WINDOWS)
    with pytest.raises(ValueError, match=rf"^base.objective.rule: .* {epochs} x 800 tokens"):
        check_epochs(trial(epochs * EPOCH - STEP, by_epochs(epochs)), WINDOWS)


def test_flops_of_the_first_turn_are_those_of_its_network() -> None:
    objective, steps = by_epochs(), EPOCH / STEP + 1.6
    discriminator, generator = (
        step_cost(trial(1, objective), updates).flops
        for updates in (UpdatedNetworks.DISCRIMINATOR, UpdatedNetworks.GENERATOR)
    )
    assert generator < 0.9 * discriminator
    check_epochs(
        trial(1, objective, budget=Budget(kind="flops", amount=steps * discriminator)), WINDOWS
    )
    with pytest.raises(ValueError, match="the budget ends after"):
        check_epochs(
            trial(1, objective, budget=Budget(kind="flops", amount=steps * generator)), WINDOWS
        )


@pytest.mark.parametrize("batch", [WINDOWS + 1, CountRamp(start=4, end=WINDOWS + 1)])
def test_step_must_not_read_more_than_an_epoch(batch: Any) -> None:
    with pytest.raises(ValueError, match=r"^base.batch: a step reads 816 tokens and an epoch"):
        check_epochs(trial(1e6, by_epochs(), batch=batch), WINDOWS)


@pytest.mark.parametrize(
    "objective",
    [
        ElectraConfig(kind="electra"),
        AdversarialConfig(kind="adversarial", rule=AlternationConfig(kind="alternation")),
        AdversarialConfig(
            kind="adversarial",
            adversarial_weight=0.0,
            rule=EpochAlternationConfig(kind="epoch_alternation"),
        ),
    ],
    ids=["electra", "alternation", "no adversary"],
)
def test_other_objectives_need_no_epoch(objective: AnyObjectiveConfig) -> None:
    check_epochs(trial(STEP, objective, batch=WINDOWS + 1), WINDOWS)


def test_budget_of_seconds_is_not_checked() -> None:
    check_epochs(trial(1, by_epochs(), budget=Budget(kind="seconds", amount=1)), WINDOWS)
