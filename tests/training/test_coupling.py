"""Coupling of the networks through shared tables and clipping, and of the workers."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from objectives_by_kind import LENGTH, SEED, SHAPE, TABLES, VOCAB, make_objective, plain, text
from torch import Tensor, nn
from workers import run_workers

from lab.config import trial
from lab.config.architecture import GeneratorConfig
from lab.config.budget import Budget, Spent
from lab.config.data import DataConfig
from lab.config.objectives import AnyObjectiveConfig
from lab.config.objectives.electra import Electra15Config, ElectraConfig
from lab.config.objectives.predictors import AllTokensMlmConfig, ReplaceMlmConfig
from lab.config.optimizer import AdamConfig, AnyOptimizerConfig
from lab.config.schedules.phases import UpdatedNetworks
from lab.data.batches import Batch, Batches
from lab.data.vocabulary import PAD
from lab.training import optimizer as optim
from lab.training.distributed import ProcessGroup, SingleProcess, Workers
from lab.training.gradients import Gradients
from lab.training.objectives.masking import chosen_positions, mask_batch

TEXT = text()
KINDS = {
    "electra": ElectraConfig(kind="electra", sharing="gdes"),
    "replace_mlm": ReplaceMlmConfig(kind="replace_mlm", sharing="gdes"),
    "all_tokens_mlm": AllTokensMlmConfig(kind="all_tokens_mlm", sharing="gdes"),
}


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


# Gradient-disentangled sharing (DeBERTaV3, section 3.3).
def test_gdes_networks_have_equal_tables_before_training() -> None:
    objective = make_objective(KINDS["electra"], noise=0)
    ours, theirs = objective.encoder.embeddings, objective.generator.encoder.embeddings
    assert ours.table().equal(theirs.table())
    type_BT = torch.arange(TEXT.ids_BT.numel()).view_as(TEXT.ids_BT) % 2
    assert ours(TEXT.ids_BT, type_BT).equal(theirs(TEXT.ids_BT, type_BT))


@pytest.mark.parametrize("kind", KINDS)
def test_gdes_gradients_are_those_of_two_separate_backward_passes(kind: str) -> None:
    joint, separate = (
        make_objective(KINDS[kind]),
        make_objective(replace(KINDS[kind], sharing="none")),
    )
    weights = joint.state_dict() | {
        f"{name}.{key}": value
        for name, part in (("encoder", plain(joint.encoder)), ("generator", joint.generator))
        for key, value in part.state_dict().items()
    }
    separate.load_state_dict({name: weights[name] for name in separate.state_dict()})
    joint(TEXT, 0).total.backward()

    generator_loss = separate.generator(TEXT, 0, separate.step_settings).loss.total
    generator_loss.backward()
    assert not gradients(separate.encoder)
    actual = gradients(joint.generator)
    for name, gradient in gradients(separate.generator).items():
        torch.testing.assert_close(actual[name], gradient, atol=1e-6, rtol=1e-5, msg=name)
        assert gradient.norm() > 1e-4 or name.endswith("key.bias")

    separate.zero_grad()
    (
        separate(TEXT, 0).total - separate.generator(TEXT, 0, separate.step_settings).loss.total
    ).backward()
    actual = gradients(joint.encoder)
    for name, gradient in gradients(separate.encoder).items():
        ours = name.replace("_embeddings.weight", "_delta")
        torch.testing.assert_close(actual[ours], gradient, atol=1e-6, rtol=1e-5, msg=name)
        assert gradient.norm() > 1e-4 or name.endswith("key.bias")


def adam_first_step(
    weight: Tensor, gradient: Tensor, rate: float, settings: AnyOptimizerConfig
) -> Tensor:
    mean, square = (1 - settings.beta1) * gradient, (1 - settings.beta2) * gradient**2
    return weight - rate * (mean / (square.sqrt() + settings.eps) + settings.weight_decay * weight)


def test_gdes_table_changes_with_its_difference_and_with_the_generators_table() -> None:
    settings = AdamConfig(lr=1e-2, generator_lr=3.0)
    objective = make_objective(KINDS["electra"])
    optimizer = optim.build_optimizer(objective, settings)
    objective(TEXT, 0).total.backward()
    parts = objective.encoder.embeddings
    expected = {}
    for name in TABLES:
        base, own = (
            getattr(parts.base, f"{name}_embeddings").weight,
            getattr(parts, f"{name}_delta"),
        )
        assert not base.grad.allclose(own.grad)
        updated = adam_first_step(base.detach(), base.grad, 3e-2, settings)
        expected[name] = updated + adam_first_step(own.detach(), own.grad, 1e-2, settings)
    optimizer.step()
    tables = plain(objective.encoder).embeddings
    for name, table in expected.items():
        torch.testing.assert_close(getattr(tables, f"{name}_embeddings").weight.detach(), table)
    torch.testing.assert_close(parts.table(), expected["word"])
    type_BT = torch.arange(TEXT.ids_BT.numel()).view_as(TEXT.ids_BT) % 2
    torch.testing.assert_close(parts(TEXT.ids_BT, type_BT), tables(TEXT.ids_BT, type_BT))


# A table tied as two parameters would have two states in the optimizer, and be updated twice.
@pytest.mark.parametrize("sharing", ["none", "tokens", "all", "gdes"])
def test_each_shared_table_has_one_optimizer_state(
    sharing: Literal["none", "tokens", "all", "gdes"],
) -> None:
    settings = ElectraConfig(kind="electra", sharing=sharing, generator=GeneratorConfig(width=1))
    objective = make_objective(settings, length=19)  # no other weight has a table's shape
    optimizer = optim.build_optimizer(objective, AdamConfig())
    objective(TEXT, 0).total.backward()
    optimizer.step()
    updated = [id(p) for p in optimizer.state]
    assert sorted(updated) == sorted(id(p) for p in objective.parameters())
    tables = objective.generator.encoder.embeddings
    copies = 1 if sharing in ("tokens", "all") else 2
    for name in TABLES:
        shape = getattr(tables, f"{name}_embeddings").weight.shape
        assert [p.shape for p in optimizer.state].count(shape) == copies


# Adam's update hardly depends on the scale of a gradient, so a loss weight acts only through shared
# tables, the joint clip and eps (Dong et al., ICML 2023). The loss weights are powers of two, for
# which rounding is the same.
def weight_changes(disc_weight: float = 1.0, **settings: Any) -> dict[str, Tensor]:
    """Return the change of each network's weights in five steps."""
    optim_settings = AdamConfig(weight_decay=0.0, **settings)
    objective = make_objective(
        ElectraConfig(kind="electra", sharing="none", disc_weight=disc_weight)
    )
    optimizer, networks = optim.build_optimizer(objective, optim_settings), objective.networks()
    before = {n: nn.utils.parameters_to_vector(own).detach() for n, own in networks.items()}
    for step in range(5):
        optimizer.zero_grad()
        objective(TEXT, step).total.backward()
        optim.clip_gradients(objective, optim_settings)
        optimizer.step()
    after = {n: nn.utils.parameters_to_vector(own).detach() for n, own in networks.items()}
    return {network: after[network] - before[network] for network in networks}


def relative_difference(one: Tensor, other: Tensor) -> float:
    return ((one - other).norm() / one.norm()).item()


INERT = [
    {"clip_scope": "per_network", "clip": 1e-2},
    {"clip_scope": "per_network", "clip": 1e9},
    {"clip_scope": "joint", "clip": 1e9},
]


@pytest.mark.parametrize("settings", INERT)
def test_loss_weight_has_no_effect_under_adam_without_joint_clipping(
    settings: dict[str, Any],
) -> None:
    one, sixteen = (weight_changes(weight, eps=1e-20, **settings) for weight in (1.0, 16.0))
    for network, difference in one.items():
        assert difference.abs().max() > 1e-3
        assert relative_difference(difference, sixteen[network]) < 1e-3, network


def test_loss_weight_acts_through_joint_clipping() -> None:
    one, sixteen = (
        weight_changes(weight, eps=1e-20, clip_scope="joint", clip=1e-2) for weight in (1.0, 16.0)
    )
    for network, difference in one.items():
        assert relative_difference(difference, sixteen[network]) > 1e-2, network


def test_generators_learning_rate_scales_its_updates() -> None:
    one, three = (
        weight_changes(lr=1e-5, generator_lr=ratio, clip_scope="per_network")
        for ratio in (1.0, 3.0)
    )
    assert relative_difference(3 * one["generator"], three["generator"]) < 1e-2
    assert relative_difference(one["discriminator"], three["discriminator"]) < 1e-2


# Two workers have halves of a batch with different counts of text and of slots. The mean of the
# workers' means then differs from the mean over the batch.
OBJECTIVES: dict[str, AnyObjectiveConfig] = {
    "electra": ElectraConfig(kind="electra", mask_prob=0.3),
    "electra_15": Electra15Config(kind="electra_15", mask_prob=0.3),
    "replace_mlm": ReplaceMlmConfig(kind="replace_mlm", mask_prob=0.3),
}
LONG, SHORT = range(3), range(8, 11)
ROWS = [*LONG, *SHORT]


def trial_of(kind: str) -> trial.Trial:
    return trial.Trial(
        encoder=SHAPE,
        objective=OBJECTIVES[kind],
        data=DataConfig(vocab=VOCAB, length=LENGTH),
        batch=len(ROWS),
        budget=Budget(kind="tokens", amount=1e6),
        seeds=trial.Seeds(init=1, mask=SEED),
    )


def batches(kind: str) -> Batches:
    """Return text with a first batch of the long windows followed by the short ones."""
    seed = trial_of(kind).seeds.order
    indices_N1 = np.arange(len(ROWS), dtype=np.uint16)[:, None]
    order = Batches(indices_N1, seed).between(0, len(ROWS)).ids_BT[:, 0]
    ids_NT = np.empty((len(ROWS), LENGTH), np.uint16)
    ids_NT[order.numpy()] = TEXT.ids_BT[ROWS].numpy()
    return Batches(ids_NT, seed)


def step(kind: str, workers: Workers) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return gradients and metrics of the first step."""
    objective = make_objective(OBJECTIVES[kind])
    computed = Gradients(objective, {LENGTH: batches(kind)}, trial_of(kind), workers=workers)
    metrics = computed.compute(Spent(), UpdatedNetworks.ALL, objective.step_settings)
    return gradients(objective), metrics


def run_worker(rank: int, count: int, folder: str) -> None:
    """Compute one step of each objective on one of the workers, and save the results."""
    workers = ProcessGroup()
    for kind in OBJECTIVES:
        torch.save(step(kind, workers), f"{folder}/{kind}-{rank}")


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workers")
    run_workers(run_worker, 2, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", OBJECTIVES)
def test_workers_compute_the_gradient_and_the_metrics_of_the_full_batch(
    kind: str, workers: Path
) -> None:
    def separately(batch: Batch) -> dict[str, Tensor]:
        objective = make_objective(OBJECTIVES[kind])
        objective(batch, 0).total.backward()
        return gradients(objective)

    half = len(ROWS) // 2
    halves = [batches(kind).between(*ends) for ends in ((0, half), (half, len(ROWS)))]
    counts = [(h.ids_BT != PAD).sum() for h in halves]
    slots = [
        chosen_positions(
            mask_batch(h, mask_prob=0.3, masking="paper", vocab=VOCAB, seed=SEED, step=0)
        ).sum()
        for h in halves
    ]
    assert counts[0] > 1.5 * counts[1]
    assert slots[0] > 1.5 * slots[1]
    whole, metrics = step(kind, SingleProcess())
    size = math.hypot(*(g.norm() for g in whole.values()))
    for rank in range(2):
        actual, actual_metrics = torch.load(workers / f"{kind}-{rank}", weights_only=True)
        assert actual_metrics.keys() == metrics.keys()
        for name, metric in metrics.items():
            torch.testing.assert_close(actual_metrics[name], metric, msg=name)
        assert actual.keys() == whole.keys()
        for name, gradient in whole.items():
            assert (actual[name] - gradient).norm() < 1e-5 * size, name
    # The test can detect the bug: the mean of the two halves' means differs.
    one, other = map(separately, halves)
    difference = math.hypot(
        *(((one[name] + other[name]) / 2 - g).norm() for name, g in whole.items())
    )
    assert difference > 1e-2 * size
