"""Divergence: a run is lost where it does worse than who knows nothing, and not before."""

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

COIN = 2 * math.log(2)  # two of them
MAJORITY = 0.4
DETECTS: MetricRow = {"spent/steps": 40.0, "health/majority_loss": MAJORITY}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["train/loss", "probe/pos/accuracy", "health/grad_norm_encoder"])
def test_number_that_is_none_is_a_divergence(name: str, value: float) -> None:
    said = divergence.divergence_reason({"spent/steps": 40.0, name: value}, VOCAB)
    assert said == f"{name} is not finite at step 40"


@pytest.mark.parametrize(
    ("above", "lost"),
    [
        (-0.5, False),
        (-1e-6, False),
        (1e-6, True),
        (3, True),
    ],
)
def test_detection_is_held_against_the_majoritys_answer(above: float, lost: bool) -> None:
    row = DETECTS | {"train/discriminator_loss": MAJORITY + COIN + above}
    said = divergence.divergence_reason(row, VOCAB)
    assert (said is not None) == lost
    if said is not None:
        assert said.startswith("train/discriminator_loss is ")
        assert said.endswith(" at step 40, and knowing nothing costs 0.4")


def test_detection_at_the_line_itself_is_not_lost() -> None:
    at = DETECTS | {"train/discriminator_loss": MAJORITY + COIN}
    assert divergence.divergence_reason(at, VOCAB) is None
    assert (
        divergence.divergence_reason(at | {"health/majority_loss": MAJORITY - 1e-9}, VOCAB)
        is not None
    )


@pytest.mark.parametrize("vocab", [400, 30_522])
def test_prediction_is_held_against_all_words_alike(vocab: int) -> None:
    line = math.log(vocab) + COIN
    below, at, above = (
        divergence.divergence_reason({"spent/steps": 8.0, "train/mlm_loss": line + more}, vocab)
        for more in (-1e-6, 0.0, 1e-6)
    )
    assert below is at is None
    assert above is not None
    assert above.startswith("train/mlm_loss is ")


def test_detection_in_a_turn_without_a_rate_of_replacement_is_not_judged() -> None:
    assert (
        divergence.divergence_reason({"spent/steps": 8.0, "train/discriminator_loss": 9.0}, VOCAB)
        is None
    )


@members.each()
def test_untrained_network_is_not_lost(member: Member) -> None:
    """Before any step that could move it: the rate is as good as zero."""
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
def test_untrained_network_of_a_named_size_is_not_lost(size: str, kind: str) -> None:
    assert untrained({"size": size}, kind) is None


@pytest.mark.parametrize("kind", ["mlm", "electra_15"])
def test_untrained_network_of_wide_weights_is_not_lost(kind: str) -> None:
    """`init_std` may be compared: what begins far off has not lost anything yet."""
    assert untrained({"size": "tiny", "init_std": 0.2}, kind) is None


def untrained(encoder: dict[str, object], kind: str) -> str | None:
    """Return why an untrained network has diverged, by one batch of random words."""
    asked = build_trial(
        {
            "encoder": encoder,
            "objective": {"kind": kind},
            "budget": {"kind": "tokens", "amount": 1e6},
        },
        {},
    )
    vocab = asked.data.vocab
    objective = build_objective(asked, torch.ones(vocab)).train()
    words_BT = torch.from_numpy(np.random.default_rng(0).integers(FIRST_WORD, vocab, (32, 16)))
    words_BT[:, 0], words_BT[:, -1] = CLS, SEP
    batch = Batch(words_BT, torch.arange(32))
    with torch.no_grad():
        parts = objective.health(objective(batch, 0).parts)
    row = {name: float(value) for name, value in parts.items()}
    early = "init_std" in encoder
    return divergence.divergence_reason(row | {"spent/steps": 1.0}, vocab, early=early)
