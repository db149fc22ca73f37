"""Adam against the official update in numpy, Muon against torch, and gradient clipping."""

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn

from lab.config.architecture import EncoderConfig, GeneratorConfig
from lab.config.budget import Budget
from lab.config.data import DataConfig
from lab.config.objectives.electra import ElectraConfig
from lab.config.objectives.mlm import MlmConfig
from lab.config.optimizer import AdamConfig, AdamWConfig, MuonConfig
from lab.config.parametrization import StandardParametrization
from lab.config.schedules.phases import UpdatedNetworks
from lab.config.trial import Trial
from lab.training.model import Block
from lab.training.objectives import Electra, build_objective
from lab.training.objectives.base import Objective
from lab.training.optimizer import (
    Adam,
    AdamW,
    Muon,
    build_optimizer,
    clip_gradients,
    orthogonalize,
    set_rate,
)

ENCODER = EncoderConfig(layers=2, hidden=16, ffn=64, heads=2, embedding=8, dropout=0, norm="post")
Sharing = Literal["none", "tokens", "all", "gdes"]
SETTINGS = AdamConfig(lr=0.01, beta1=0.8, beta2=0.95, eps=1e-3, weight_decay=0.1)


def objective(kind: str = "electra", sharing: Sharing = "tokens") -> Any:
    generator = GeneratorConfig(width=1.0 if sharing == "all" else 0.5)
    electra = ElectraConfig(kind="electra", sharing=sharing, generator=generator)
    trial = Trial(
        encoder=ENCODER,
        objective=electra if kind == "electra" else MlmConfig(kind="mlm"),
        data=DataConfig(vocab=30, length=12),
        budget=Budget(kind="tokens", amount=1),
    )
    return build_objective(trial, torch.ones(30))


def with_gradients(
    seed: int = 0, scale: float = 1.0, generator_scale: float = 1.0, sharing: Sharing = "tokens"
) -> Electra:
    """Return an objective with normal gradients, with a separate scale for the generator's."""
    built = objective("electra", sharing)
    set_gradients(built, seed, scale, generator_scale)
    return built


def set_gradients(
    built: Objective, seed: int, scale: float = 1.0, generator_scale: float = 1.0
) -> None:
    rng = torch.Generator().manual_seed(seed)
    for network, parameters in built.networks().items():
        of_network = scale * (generator_scale if network == "generator" else 1.0)
        for parameter in parameters:
            parameter.grad = of_network * torch.randn(parameter.shape, generator=rng)


def norm(parameters: list[nn.Parameter]) -> float:
    return float(np.sqrt(sum((p.grad.double() ** 2).sum().item() for p in parameters)))


def official(
    p: npt.NDArray[np.float64],
    gradients: list[npt.NDArray[np.float64]],
    rates: list[float],
    settings: AdamConfig,
    decay: float,
) -> npt.NDArray[np.float64]:
    """Return `p` after `AdamWeightDecayOptimizer.apply_gradients` of model/optimization.py."""
    m, v = np.zeros_like(p), np.zeros_like(p)
    for gradient, rate in zip(gradients, rates, strict=True):
        m = settings.beta1 * m + (1 - settings.beta1) * gradient
        v = settings.beta2 * v + (1 - settings.beta2) * gradient**2
        update = m / (np.sqrt(v) + settings.eps)
        update += decay * p
        p = p - rate * update
    return p


@pytest.mark.parametrize(
    "settings", [SETTINGS, AdamConfig(), AdamConfig(weight_decay=0.0, beta1=0.0)]
)
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_update_is_the_official_one(settings: AdamConfig, decay: float) -> None:
    draw = np.random.default_rng(0)
    start = draw.normal(size=(3, 4))
    gradients = [draw.normal(size=(3, 4)) for _ in range(6)]
    multipliers = [0.0, 0.3, 1.0, 1.0, 0.7, 0.1]
    parameter = nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = Adam(
        [{"params": [parameter], "lr": 0.1, "peak": 0.1, "weight_decay": decay}], settings
    )
    for gradient, multiplier in zip(gradients, multipliers, strict=True):
        parameter.grad = torch.from_numpy(gradient)
        set_rate(optimizer, multiplier)
        optimizer.step()
    expected = official(start, gradients, [0.1 * x for x in multipliers], settings, decay)
    np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-12)


def test_first_step_is_not_bias_corrected() -> None:
    parameter = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    settings = AdamConfig(beta1=0.9, beta2=0.999, eps=1e-12)
    optimizer = Adam([{"params": [parameter], "lr": 1.0, "weight_decay": 0.0}], settings)
    parameter.grad = torch.ones(1, dtype=torch.float64)
    optimizer.step()
    assert parameter.item() == pytest.approx(-0.1 / 0.001**0.5)  # with the correction, -1


def test_parameter_without_gradient_does_not_change() -> None:
    built = objective()
    optimizer = build_optimizer(built, SETTINGS)
    before = [p.clone() for p in built.parameters()]
    optimizer.step()
    assert all(p.equal(q) for p, q in zip(built.parameters(), before, strict=True))


@pytest.mark.parametrize("kind", ["electra", "mlm"])
def test_only_matrices_decay(kind: str) -> None:
    built = objective(kind)
    for parameter in built.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    build_optimizer(built, SETTINGS).step()
    for name, parameter in built.named_parameters():
        is_matrix = name.endswith("weight") and "norm" not in name
        expected = 1 - SETTINGS.lr * SETTINGS.weight_decay if is_matrix else 1.0
        assert torch.allclose(parameter, torch.tensor(expected)), name


# Prefixes of the parameters that the generator owns. Shared parameters have the names, and the
# owner, of the encoder; the base tables of gdes get no gradient from it, and are the generator's.
OWN: dict[Sharing, tuple[str, ...]] = {
    "none": ("generator.encoder.", "generator.vocabulary."),
    "tokens": ("generator.encoder.", "generator.vocabulary."),
    "all": ("generator.vocabulary.",),
    "gdes": ("generator.encoder.", "generator.vocabulary.", "encoder.embeddings.base."),
}


@pytest.mark.parametrize("ratio", [1.0, 0.25, 4.0])
@pytest.mark.parametrize("sharing", OWN)
def test_generators_rate_applies_only_to_parameters_that_it_owns(
    sharing: Sharing, ratio: float
) -> None:
    built = objective("electra", sharing)
    optimizer = build_optimizer(built, replace(SETTINGS, generator_lr=ratio))
    names = {id(p): name for name, p in built.named_parameters()}
    assert len(names) == sum(len(group["params"]) for group in optimizer.param_groups)
    own = {name for name in names.values() if name.startswith(OWN[sharing])}
    assert {".".join(name.split(".")[:2]) + "." for name in own} == {
        ".".join(prefix.split(".")[:2]) + "." for prefix in OWN[sharing]
    }
    set_rate(optimizer, 0.5)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            peak = SETTINGS.lr * (ratio if names[id(parameter)] in own else 1.0)
            assert group["peak"] == pytest.approx(peak)
            assert group["lr"] == pytest.approx(0.5 * peak)


def test_shared_tables_have_the_rate_of_the_encoder() -> None:
    moves = {}
    for ratio in (1.0, 3.0):
        built = objective("electra", "tokens")
        before = {name: p.detach().clone() for name, p in built.named_parameters()}
        for parameter in built.parameters():
            parameter.grad = torch.ones_like(parameter)
        build_optimizer(built, replace(SETTINGS, generator_lr=ratio)).step()
        moves[ratio] = {name: p.detach() - before[name] for name, p in built.named_parameters()}
    for name, move in moves[1.0].items():
        times = 3.0 if name.startswith("generator.") else 1.0
        torch.testing.assert_close(moves[3.0][name], times * move, rtol=1e-3, atol=1e-6)


@given(scale=st.floats(1e-4, 1e3), limit=st.floats(1e-2, 1e2), seed=st.integers(0, 100))
@hypothesis_settings(deadline=None, max_examples=30)
def test_joint_clipping_limits_the_norm_and_keeps_the_direction(
    scale: float, limit: float, seed: int
) -> None:
    built = with_gradients(seed, scale)
    before = [p.grad.clone() for p in built.parameters()]
    joint = norm(list(built.parameters()))
    clip_gradients(built, AdamConfig(clip=limit))
    assert norm(list(built.parameters())) <= limit * (1 + 1e-5)
    factor = min(1.0, limit / joint)
    for gradient, parameter in zip(before, built.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, gradient * factor, rtol=1e-4, atol=1e-9)


def test_gradient_below_the_limit_does_not_change() -> None:
    built = with_gradients(scale=1e-3)
    before = [p.grad.clone() for p in built.parameters()]
    clip_gradients(built, AdamConfig(clip=1.0))
    assert all(p.grad.equal(g) for p, g in zip(built.parameters(), before, strict=True))


def test_reported_norms_are_of_each_network_before_clipping() -> None:
    built = with_gradients()
    expected = {
        f"health/grad_norm_{network}": norm(parameters)
        for network, parameters in built.networks().items()
    }
    reported = clip_gradients(built, AdamConfig(clip=0.1))
    assert set(reported) == {"health/grad_norm_discriminator", "health/grad_norm_generator"}
    assert {n: v.item() for n, v in reported.items()} == pytest.approx(expected, rel=1e-5)


class SingleNetwork:
    """One network of an objective, for an optimizer of this network alone."""

    parametrization = StandardParametrization()

    def __init__(self, objective: Objective, network: str) -> None:
        self._network, self._parameters = network, objective.networks()[network]

    def networks(self) -> dict[str, list[nn.Parameter]]:
        return {self._network: self._parameters}


@pytest.mark.parametrize("sharing", OWN)
@pytest.mark.parametrize("generator_scale", [0.01, 1.0, 100.0])
def test_per_network_clipping_equals_two_optimizers_that_clip_separately(
    sharing: Sharing, generator_scale: float
) -> None:
    settings = replace(SETTINGS, clip_scope="per_network", generator_lr=0.5, clip=3.0)
    whole, divided = objective("electra", sharing), objective("electra", sharing)
    optimizer = build_optimizer(whole, settings)
    networks: list[Any] = [SingleNetwork(divided, network) for network in divided.networks()]
    assert len(networks) == 2
    own = [(network, build_optimizer(network, settings)) for network in networks]
    for seed in range(4):
        for built in (whole, divided):
            set_gradients(built, seed, 1.0, generator_scale)
        reported = clip_gradients(whole, settings)
        optimizer.step()
        for network, own_optimizer in own:
            name, norm = clip_gradients(network, replace(settings, clip_scope="joint")).popitem()
            assert norm.equal(reported[name])
            own_optimizer.step()
    for one, other in zip(whole.parameters(), divided.parameters(), strict=True):
        assert one.equal(other)


@pytest.mark.parametrize("generator_scale", [0.01, 1.0, 100.0])
def test_per_network_clipping_scales_each_network_by_its_own_norm(generator_scale: float) -> None:
    built = with_gradients(generator_scale=generator_scale)
    before = {name: [p.grad.clone() for p in own] for name, own in built.networks().items()}
    norms = {name: norm(own) for name, own in built.networks().items()}
    limit = 3.0
    assert max(norms.values()) > limit
    clip_gradients(built, AdamConfig(clip=limit, clip_scope="per_network"))
    for name, own in built.networks().items():
        for gradient, parameter in zip(before[name], own, strict=True):
            expected = gradient * min(1.0, limit / norms[name])
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-9)


def test_only_joint_clipping_shrinks_a_small_gradient_beside_a_large_one() -> None:
    norms: dict[str, float] = {}
    scope: Literal["joint", "per_network"]
    for scope in ("joint", "per_network"):
        built = with_gradients(scale=1e-4, generator_scale=1e6)
        before = norm(built.networks()["discriminator"])
        clip_gradients(built, AdamConfig(clip=1.0, clip_scope=scope))
        norms[scope] = norm(built.networks()["discriminator"]) / before
        assert norm(built.networks()["generator"]) == pytest.approx(1.0, rel=1e-4)
    assert norms["per_network"] == 1
    assert norms["joint"] < 0.01


@pytest.mark.parametrize("scope", ["joint", "per_network"])
def test_network_without_gradients_is_not_clipped_updated_or_reported(
    scope: Literal["joint", "per_network"],
) -> None:
    built = with_gradients(sharing="none")
    settings = replace(SETTINGS, clip_scope=scope)
    frozen = built.networks()["generator"]
    for parameter in frozen:
        parameter.grad = None
    before = [p.detach().clone() for p in frozen]
    optimizer = build_optimizer(built, settings)
    assert set(clip_gradients(built, settings)) == {"health/grad_norm_discriminator"}
    optimizer.step()
    assert all(p.equal(q) for p, q in zip(frozen, before, strict=True))
    assert norm(built.networks()["discriminator"]) == pytest.approx(settings.clip, rel=1e-4)


ADAMW = AdamWConfig(
    kind="adamw", lr=0.01, beta1=0.8, beta2=0.95, eps=1e-3, weight_decay=0.1, generator_lr=0.5
)


def test_first_step_of_adamw_is_bias_corrected_by_hand() -> None:
    # m = .1 g and v = .001 g^2, divided by 1 - .9 and 1 - .999, are g and g^2: the step is -lr.
    # The second gradient is 0: m = .09 / .19, v = .000999 / .001999, so m / sqrt(v) = .6701.
    parameter = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    settings = AdamWConfig(kind="adamw", beta1=0.9, beta2=0.999, eps=1e-12)
    optimizer = AdamW([{"params": [parameter], "lr": 1.0, "weight_decay": 0.0}], settings)
    parameter.grad = torch.full((1,), 5.0, dtype=torch.float64)
    optimizer.step()
    assert parameter.item() == pytest.approx(-1)
    parameter.grad.zero_()
    optimizer.step()
    assert parameter.item() == pytest.approx(-1 - 0.6701, abs=1e-4)


def torch_adamw(parameters: list[nn.Parameter], lr: float) -> torch.optim.AdamW:
    """Return torch's optimizer of one network; biases and LayerNorm do not decay."""
    groups = [
        {"params": [p for p in parameters if (p.ndim > 1) is decays], "weight_decay": decay}
        for decays, decay in ((True, ADAMW.weight_decay), (False, 0.0))
    ]
    return torch.optim.AdamW(
        groups, lr=lr, betas=(ADAMW.beta1, ADAMW.beta2), eps=ADAMW.eps, fused=True
    )


@pytest.mark.parametrize("sharing", OWN)
@pytest.mark.parametrize("alternates", [False, True])
def test_adamw_equals_two_optimizers_of_torch_that_clip_separately(
    sharing: Sharing, alternates: bool
) -> None:
    ours, theirs = objective("electra", sharing), objective("electra", sharing)
    optimizer = build_optimizer(ours, ADAMW)
    networks = theirs.networks()
    rates = {"discriminator": ADAMW.lr, "generator": ADAMW.lr * ADAMW.generator_lr}
    pair = {name: torch_adamw(networks[name], rates[name]) for name in networks}
    assert len(pair) == 2
    for seed in range(5):
        # The turns are unequal: the networks have different numbers of updates.
        updated = (
            [*networks] if not alternates else ["generator"] if seed == 2 else ["discriminator"]
        )
        for built in (ours, theirs):
            set_gradients(built, seed, 1.0, 10.0)
            for name, parameters in built.networks().items():
                for parameter in parameters if name not in updated else ():
                    parameter.grad = None
        clip_gradients(ours, ADAMW)
        optimizer.step()
        for name in updated:
            nn.utils.clip_grad_norm_(networks[name], ADAMW.clip)
            pair[name].step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_gradient_of_shared_weights_is_clipped_with_the_updated_network() -> None:
    built = with_gradients()
    before = norm(list(built.parameters()))
    for updates in (UpdatedNetworks.GENERATOR, UpdatedNetworks.DISCRIMINATOR):
        norms = clip_gradients(built, replace(ADAMW, clip=1e9), updates)
        assert list(norms) == [f"health/grad_norm_{updates.value}"]
        assert norms.popitem()[1].item() == pytest.approx(before, rel=1e-5)
    clip_gradients(built, replace(ADAMW, clip=1.0), UpdatedNetworks.GENERATOR)
    assert norm(list(built.parameters())) == pytest.approx(1, rel=1e-4)


MUON = MuonConfig(kind="muon", lr=0.01, hidden_lr=2.0, momentum=0.9, weight_decay=0.1)


@pytest.mark.parametrize("shape", [(8, 8), (8, 32), (32, 8)])
def test_muon_equals_torchs_except_for_bfloat16_rounding(shape: tuple[int, int]) -> None:
    rng = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=rng)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    group = {"params": [ours], "lr": 0.02, "peak": 0.02, "weight_decay": 0.1, "hidden": True}
    optimizer = Muon([group], MUON)
    reference = torch.optim.Muon(
        [theirs], lr=0.02, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(5):
        ours.grad = torch.randn(shape, generator=rng)
        theirs.grad = ours.grad.clone()
        optimizer.step()
        reference.step()
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() < 0.02 * moved  # bfloat16 keeps 8 bits


@pytest.mark.parametrize("shape", [(3, 6, 6), (2, 4, 16), (2, 16, 4)])
def test_orthogonalize_keeps_singular_vectors_and_brings_singular_values_near_one(
    shape: tuple[int, int, int],
) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1)).double()
    solved = orthogonalize(matrices, 5)
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    inner = u.mT @ solved @ vh.mT
    assert torch.allclose(inner, torch.diag_embed(inner.diagonal(dim1=1, dim2=2)), atol=1e-9)
    values = inner.diagonal(dim1=1, dim2=2)
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_muon_updates_the_matrices_of_all_blocks_and_adam_the_rest() -> None:
    built = objective()
    optimizer = build_optimizer(built, MUON)
    hidden = {id(p) for g in optimizer.param_groups if g["hidden"] for p in g["params"]}
    expected = {
        id(part.weight)
        for block in built.modules()
        if isinstance(block, Block)
        for part in block.modules()
        if isinstance(part, nn.Linear)
    }
    assert hidden == expected
    assert len(expected) == 2 * 2 * 6  # two networks of two blocks with six matrices each
    every = [id(p) for g in optimizer.param_groups for p in g["params"]]
    assert len(every) == len(set(every))
    assert set(every) == {id(p) for p in built.parameters()}


def test_muons_rates_are_adams_rates_times_hidden_lr() -> None:
    settings = MuonConfig(kind="muon", lr=0.01, hidden_lr=3.0, generator_lr=0.5)
    optimizer = build_optimizer(objective(), settings)
    set_rate(optimizer, 0.5)
    rates = {(g["hidden"], round(g["lr"], 9)) for g in optimizer.param_groups}
    assert rates == {(True, 0.015), (True, 0.0075), (False, 0.005), (False, 0.0025)}


def test_parameters_outside_muon_are_updated_as_by_adam() -> None:
    ours, theirs = with_gradients(), with_gradients()
    build_optimizer(ours, MUON).step()
    settings = AdamConfig(lr=MUON.lr, weight_decay=MUON.weight_decay)
    build_optimizer(theirs, settings).step()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        hidden = ".layers." in name and mine.ndim == 2
        assert mine.equal(other) is not hidden, name
