"""What one network's loss does to the other: through shared tables, the clip, and workers."""

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from objectives_by_kind import LENGTH, SEED, SHAPE, TABLES, VOCAB, made, plain, text
from torch import Tensor, distributed, multiprocessing, nn

from lab.config import trial
from lab.config.architecture import GeneratorConfig
from lab.config.budget import Budget, Spent
from lab.config.data import DataConfig
from lab.config.objectives import AnyObjectiveConfig
from lab.config.objectives.electra import Electra15Config, ElectraConfig
from lab.config.objectives.predictors import AllTokensMlmConfig, ReplaceMlmConfig
from lab.config.optimizer import AdamConfig, AnyOptimizerConfig
from lab.config.phases import UpdatedNetworks
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
def test_gdes_networks_read_equal_tables_before_they_learn() -> None:
    objective = made(KINDS["electra"], noise=0)
    ours, theirs = objective.encoder.embeddings, objective.generator.encoder.embeddings
    assert ours.table().equal(theirs.table())
    type_BT = torch.arange(TEXT.ids_BT.numel()).view_as(TEXT.ids_BT) % 2
    assert ours(TEXT.ids_BT, type_BT).equal(theirs(TEXT.ids_BT, type_BT))


@pytest.mark.parametrize("kind", KINDS)
def test_gdes_gradients_are_those_of_two_separate_backward_passes(kind: str) -> None:
    joint, apart = made(KINDS[kind]), made(replace(KINDS[kind], sharing="none"))
    weights = joint.state_dict() | {
        f"{name}.{key}": value
        for name, part in (("encoder", plain(joint.encoder)), ("generator", joint.generator))
        for key, value in part.state_dict().items()
    }
    apart.load_state_dict({name: weights[name] for name in apart.state_dict()})
    joint(TEXT, 0).total.backward()

    generator_loss = apart.generator(TEXT, 0, apart.now).loss.total
    generator_loss.backward()
    assert not gradients(apart.encoder)
    found = gradients(joint.generator)
    for name, gradient in gradients(apart.generator).items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-5, msg=name)
        assert gradient.norm() > 1e-4 or name.endswith("key.bias")

    apart.zero_grad()
    (apart(TEXT, 0).total - apart.generator(TEXT, 0, apart.now).loss.total).backward()
    found = gradients(joint.encoder)
    for name, gradient in gradients(apart.encoder).items():
        ours = name.replace("_embeddings.weight", "_delta")
        torch.testing.assert_close(found[ours], gradient, atol=1e-6, rtol=1e-5, msg=name)
        assert gradient.norm() > 1e-4 or name.endswith("key.bias")


def first_step(
    weight: Tensor, gradient: Tensor, rate: float, settings: AnyOptimizerConfig
) -> Tensor:
    mean, square = (1 - settings.beta1) * gradient, (1 - settings.beta2) * gradient**2
    return weight - rate * (mean / (square.sqrt() + settings.eps) + settings.weight_decay * weight)


def test_gdes_table_moves_by_its_difference_and_with_the_generators() -> None:
    settings = AdamConfig(lr=1e-2, generator_lr=3.0)
    objective = made(KINDS["electra"])
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
        moved = first_step(base.detach(), base.grad, 3e-2, settings)
        expected[name] = moved + first_step(own.detach(), own.grad, 1e-2, settings)
    optimizer.step()
    tables = plain(objective.encoder).embeddings
    for name, table in expected.items():
        torch.testing.assert_close(getattr(tables, f"{name}_embeddings").weight.detach(), table)
    torch.testing.assert_close(parts.table(), expected["word"])
    type_BT = torch.arange(TEXT.ids_BT.numel()).view_as(TEXT.ids_BT) % 2
    torch.testing.assert_close(parts(TEXT.ids_BT, type_BT), tables(TEXT.ids_BT, type_BT))


# Trap 4, by what the optimizer remembers: two states of one table would move it twice.
@pytest.mark.parametrize("sharing", ["none", "tokens", "all", "gdes"])
def test_each_shared_table_has_one_state(sharing: Literal["none", "tokens", "all", "gdes"]) -> None:
    settings = ElectraConfig(kind="electra", sharing=sharing, generator=GeneratorConfig(width=1))
    objective = made(settings, length=19)  # no other weight has a table's shape
    optimizer = optim.build_optimizer(objective, AdamConfig())
    objective(TEXT, 0).total.backward()
    optimizer.step()
    remembered = [id(p) for p in optimizer.state]
    assert sorted(remembered) == sorted(id(p) for p in objective.parameters())
    tables = objective.generator.encoder.embeddings
    copies = 1 if sharing in ("tokens", "all") else 2
    for name in TABLES:
        shape = getattr(tables, f"{name}_embeddings").weight.shape
        assert [p.shape for p in optimizer.state].count(shape) == copies


# Trap 2. Weights are multiplied by a power of two, so that rounding is the same.
def moved(disc_weight: float = 1.0, **settings: Any) -> dict[str, Tensor]:
    """Return how far some steps move each network's weights."""
    rules = AdamConfig(weight_decay=0.0, **settings)
    objective = made(ElectraConfig(kind="electra", sharing="none", disc_weight=disc_weight))
    optimizer, networks = optim.build_optimizer(objective, rules), objective.networks()
    before = {n: nn.utils.parameters_to_vector(own).detach() for n, own in networks.items()}
    for step in range(5):
        optimizer.zero_grad()
        objective(TEXT, step).total.backward()
        optim.clip_gradients(objective, rules)
        optimizer.step()
    after = {n: nn.utils.parameters_to_vector(own).detach() for n, own in networks.items()}
    return {network: after[network] - before[network] for network in networks}


def change(one: Tensor, other: Tensor) -> float:
    return ((one - other).norm() / one.norm()).item()


INERT = [
    {"clip_scope": "per_network", "clip": 1e-2},
    {"clip_scope": "per_network", "clip": 1e9},
    {"clip_scope": "joint", "clip": 1e9},
]


@pytest.mark.parametrize("settings", INERT)
def test_weight_of_a_loss_is_inert_under_adam(settings: dict[str, Any]) -> None:
    one, sixteen = (moved(weight, eps=1e-20, **settings) for weight in (1.0, 16.0))
    for network, way in one.items():
        assert way.abs().max() > 1e-3
        assert change(way, sixteen[network]) < 1e-3, network


def test_weight_of_a_loss_acts_through_the_joint_clip() -> None:
    one, sixteen = (
        moved(weight, eps=1e-20, clip_scope="joint", clip=1e-2) for weight in (1.0, 16.0)
    )
    for network, way in one.items():
        assert change(way, sixteen[network]) > 1e-2, network


def test_generators_rate_moves_the_generator_in_proportion() -> None:
    one, three = (
        moved(lr=1e-5, generator_lr=ratio, clip_scope="per_network") for ratio in (1.0, 3.0)
    )
    assert change(3 * one["generator"], three["generator"]) < 1e-2
    assert change(one["discriminator"], three["discriminator"]) < 1e-2


# Trap 7. Two workers hold halves of a batch with different counts of text and of slots.
RUNGS: dict[str, AnyObjectiveConfig] = {
    "electra": ElectraConfig(kind="electra", mask_prob=0.3),
    "electra_15": Electra15Config(kind="electra_15", mask_prob=0.3),
    "replace_mlm": ReplaceMlmConfig(kind="replace_mlm", mask_prob=0.3),
}
LONG, SHORT = range(3), range(8, 11)
BOTH = [*LONG, *SHORT]


def asked(rung: str) -> trial.Trial:
    return trial.Trial(
        encoder=SHAPE,
        objective=RUNGS[rung],
        data=DataConfig(vocab=VOCAB, length=LENGTH),
        batch=len(BOTH),
        budget=Budget(kind="tokens", amount=1e6),
        seeds=trial.Seeds(init=1, mask=SEED),
    )


def batches(rung: str) -> Batches:
    """Return text of which the first batch has the long windows first and then the short ones."""
    seed = asked(rung).seeds.order
    places_N1 = np.arange(len(BOTH), dtype=np.uint16)[:, None]
    order = Batches(places_N1, seed).between(0, len(BOTH)).ids_BT[:, 0]
    ids_NT = np.empty((len(BOTH), LENGTH), np.uint16)
    ids_NT[order.numpy()] = TEXT.ids_BT[BOTH].numpy()
    return Batches(ids_NT, seed)


def step(rung: str, workers: Workers) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return gradients and figures of the first step."""
    objective = made(RUNGS[rung])
    taken = Gradients(objective, {LENGTH: batches(rung)}, asked(rung), workers=workers)
    figures = taken.take(Spent(), UpdatedNetworks.ALL, objective.now)
    return gradients(objective), figures


def work(rank: int, folder: str) -> None:
    """Take one step of each rung on this worker's half."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    meeting = f"file://{folder}/meeting"
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    workers = ProcessGroup()
    for rung in RUNGS:
        torch.save(step(rung, workers), f"{folder}/{rung}-{rank}")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workers")
    multiprocessing.spawn(work, (str(folder),), nprocs=2)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("rung", RUNGS)
def test_workers_take_the_gradient_and_the_figures_of_the_whole_batch(
    rung: str, workers: Path
) -> None:
    def alone(batch: Batch) -> dict[str, Tensor]:
        objective = made(RUNGS[rung])
        objective(batch, 0).total.backward()
        return gradients(objective)

    half = len(BOTH) // 2
    halves = [batches(rung).between(*ends) for ends in ((0, half), (half, len(BOTH)))]
    counts = [(h.ids_BT != PAD).sum() for h in halves]
    slots = [
        chosen_positions(mask_batch(h, mask_prob=0.3, how="paper", seed=SEED, step=0)).sum()
        for h in halves
    ]
    assert counts[0] > 1.5 * counts[1]
    assert slots[0] > 1.5 * slots[1]
    whole, figures = step(rung, SingleProcess())
    size = math.hypot(*(g.norm() for g in whole.values()))
    for rank in range(2):
        found, said = torch.load(workers / f"{rung}-{rank}", weights_only=True)
        assert said.keys() == figures.keys()
        for name, figure in figures.items():
            torch.testing.assert_close(said[name], figure, msg=name)
        assert found.keys() == whole.keys()
        for name, gradient in whole.items():
            assert (found[name] - gradient).norm() < 1e-5 * size, name
    # The bug would show: the mean of the workers' means is something else.
    one, other = map(alone, halves)
    off = math.hypot(*(((one[name] + other[name]) / 2 - g).norm() for name, g in whole.items()))
    assert off > 1e-2 * size
