"""Divergence is detected exactly if a loss exceeds the limit or a value is not finite."""

import math
from dataclasses import replace

import members
import numpy as np
import pytest
import torch
from members import VOCAB, Member

from lab.config.architecture import SIZES
from lab.config.optimizer import AdamConfig
from lab.config.results import MetricRow
from lab.data.batches import Batch
from lab.data.vocabulary import CLS, FIRST_WORD, SEP
from lab.loading.search_space import build_trial
from lab.training.objectives import build_objective
from lab.trials import divergence

MARGIN = 2 * math.log(2)
MAJORITY = 0.4
DETECTS: MetricRow = {"spent/steps": 40.0, "health/majority_loss": MAJORITY}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["train/loss", "probe/pos/accuracy", "health/grad_norm_encoder"])
def test_value_that_is_not_finite_is_a_divergence(name: str, value: float) -> None:
    reason = divergence.divergence_reason({"spent/steps": 40.0, name: value}, VOCAB)
    assert reason == f"{name} is not finite at step 40"


@pytest.mark.parametrize(
    ("above", "diverged"),
    [
        (-0.5, False),
        (-1e-6, False),
        (1e-6, True),
        (3, True),
    ],
)
def test_discriminator_loss_is_compared_with_the_majority_loss(
    above: float, diverged: bool
) -> None:
    row = DETECTS | {"train/discriminator_loss": MAJORITY + MARGIN + above}
    reason = divergence.divergence_reason(row, VOCAB)
    assert (reason is not None) == diverged
    if reason is not None:
        assert reason.startswith("train/discriminator_loss is ")
        assert reason.endswith(" at step 40; that of an uninformed predictor is 0.4")


def test_discriminator_loss_equal_to_the_limit_is_no_divergence() -> None:
    at_limit = DETECTS | {"train/discriminator_loss": MAJORITY + MARGIN}
    assert divergence.divergence_reason(at_limit, VOCAB) is None
    above_limit = at_limit | {"health/majority_loss": MAJORITY - 1e-9}
    assert divergence.divergence_reason(above_limit, VOCAB) is not None


@pytest.mark.parametrize("vocab", [400, 30_522])
def test_mlm_loss_is_compared_with_the_uniform_distribution(vocab: int) -> None:
    limit = math.log(vocab) + MARGIN
    below, at, above = (
        divergence.divergence_reason({"spent/steps": 8.0, "train/mlm_loss": limit + more}, vocab)
        for more in (-1e-6, 0.0, 1e-6)
    )
    assert below is at is None
    assert above is not None
    assert above.startswith("train/mlm_loss is ")


def test_discriminator_loss_without_a_majority_loss_has_no_limit() -> None:
    assert (
        divergence.divergence_reason({"spent/steps": 8.0, "train/discriminator_loss": 9.0}, VOCAB)
        is None
    )


@members.each()
def test_untrained_network_has_not_diverged(member: Member) -> None:
    """The learning rate is too low to change the initial losses."""
    as_shipped = replace(member.encoder, init_std=SIZES["tiny"].init_std)
    frozen = members.trial(member, optim=AdamConfig(lr=1e-12), encoder=as_shipped)
    run, sums = members.Run(frozen), dict[str, list[float]]()
    for step in run.steps():
        for name, value in step.parts.items():
            sums.setdefault(name, []).append(float(value))
        row = {name: sum(values) / len(values) for name, values in sums.items()}
        assert divergence.divergence_reason(row | {"spent/steps": step.spent.steps}, VOCAB) is None
    assert any(name in row for name in ("train/discriminator_loss", "train/mlm_loss"))


@pytest.mark.parametrize("kind", ["mlm", "electra_15", "electra"])
@pytest.mark.parametrize("size", ["tiny", "mini"])
def test_untrained_network_of_a_named_size_has_not_diverged(size: str, kind: str) -> None:
    assert untrained_reason({"size": size}, kind) is None


@pytest.mark.parametrize("kind", ["mlm", "electra_15"])
def test_untrained_network_with_a_large_init_std_has_not_diverged(kind: str) -> None:
    """Trials may compare values of `init_std`, and a large value gives a high initial loss."""
    assert untrained_reason({"size": "tiny", "init_std": 0.2}, kind) is None


def untrained_reason(encoder: dict[str, object], kind: str) -> str | None:
    """Return the divergence reason of an untrained network on one batch of random words."""
    trial = build_trial(
        {
            "encoder": encoder,
            "objective": {"kind": kind},
            "budget": {"kind": "tokens", "amount": 1e6},
        },
        {},
    )
    vocab = trial.data.vocab
    objective = build_objective(trial, torch.ones(vocab)).train()
    words_BT = torch.from_numpy(np.random.default_rng(0).integers(FIRST_WORD, vocab, (32, 16)))
    words_BT[:, 0], words_BT[:, -1] = CLS, SEP
    batch = Batch(words_BT, torch.arange(32))
    with torch.no_grad():
        parts = objective.health(objective(batch, 0).parts)
    row = {name: float(value) for name, value in parts.items()}
    early = "init_std" in encoder
    return divergence.divergence_reason(row | {"spent/steps": 1.0}, vocab, early=early)
