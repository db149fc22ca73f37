"""The optimizer against the official update, written out with numpy."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn

from lab import spec
from lab.budget import Budget
from lab.objectives import Electra, build
from lab.optim import Adam, clip, set_rate
from lab.optim import build as build_optimizer
from lab.spec import Optim

ENCODER = spec.Encoder(layers=2, hidden=16, ffn=32, heads=2, embedding=8, dropout=0, norm="post")
SETTINGS = Optim(lr=0.01, beta1=0.8, beta2=0.95, eps=1e-3, weight_decay=0.1)


def objective(kind: str = "electra") -> Any:
    trial = spec.Trial(
        encoder=ENCODER,
        objective=spec.Electra(kind="electra") if kind == "electra" else spec.Mlm(kind="mlm"),
        data=spec.Data(vocab=30, length=12),
        budget=Budget(kind="tokens", amount=1),
    )
    return build(trial, torch.ones(30))


def with_gradients(seed: int = 0, scale: float = 1.0) -> Electra:
    built, chance = objective(), torch.Generator().manual_seed(seed)
    for parameter in built.parameters():
        parameter.grad = scale * torch.randn(parameter.shape, generator=chance)
    return built


def norm(parameters: list[nn.Parameter]) -> float:
    return float(np.sqrt(sum((p.grad.double() ** 2).sum().item() for p in parameters)))


def official(
    p: npt.NDArray[np.float64],
    gradients: list[npt.NDArray[np.float64]],
    rates: list[float],
    settings: Optim,
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


@pytest.mark.parametrize("settings", [SETTINGS, Optim(), Optim(weight_decay=0.0, beta1=0.0)])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_update_is_the_official_one(settings: Optim, decay: float) -> None:
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
    settings = Optim(beta1=0.9, beta2=0.999, eps=1e-12)
    optimizer = Adam([{"params": [parameter], "lr": 1.0, "weight_decay": 0.0}], settings)
    parameter.grad = torch.ones(1, dtype=torch.float64)
    optimizer.step()
    assert parameter.item() == pytest.approx(-0.1 / 0.001**0.5)  # with the correction, -1


def test_parameter_without_a_gradient_stays() -> None:
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


@pytest.mark.parametrize("ratio", [1.0, 0.25, 4.0])
def test_generators_rate_is_of_its_own_weights_only(ratio: float) -> None:
    built = objective()
    optimizer = build_optimizer(built, replace(SETTINGS, generator_lr=ratio))
    names = {id(p): name for name, p in built.named_parameters()}
    assert len(names) == sum(len(group["params"]) for group in optimizer.param_groups)
    set_rate(optimizer, 0.5)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            own = names[id(parameter)].split(".")[0] in ("generator", "vocabulary")
            peak = SETTINGS.lr * (ratio if own else 1.0)
            assert group["peak"] == pytest.approx(peak)
            assert group["lr"] == pytest.approx(0.5 * peak)
    # named_parameters names the shared tables by the network that is kept
    assert not any(name.startswith("generator.embeddings.") for name in names.values())


@given(scale=st.floats(1e-4, 1e3), limit=st.floats(1e-2, 1e2), seed=st.integers(0, 100))
@hypothesis_settings(deadline=None, max_examples=30)
def test_joint_norm_is_clipped_and_keeps_its_direction(
    scale: float, limit: float, seed: int
) -> None:
    built = with_gradients(seed, scale)
    before = [p.grad.clone() for p in built.parameters()]
    joint = norm(list(built.parameters()))
    clip(built, limit)
    assert norm(list(built.parameters())) <= limit * (1 + 1e-5)
    factor = min(1.0, limit / joint)
    for gradient, parameter in zip(before, built.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, gradient * factor, rtol=1e-4, atol=1e-9)


def test_gradient_below_the_limit_is_untouched() -> None:
    built = with_gradients(scale=1e-3)
    before = [p.grad.clone() for p in built.parameters()]
    clip(built, 1.0)
    assert all(p.grad.equal(g) for p, g in zip(built.parameters(), before, strict=True))


def test_reported_norms_are_those_of_each_network_before_the_clip() -> None:
    built = with_gradients()
    expected = {
        f"health/grad_norm_{network}": norm(parameters)
        for network, parameters in built.networks().items()
    }
    reported = clip(built, 0.1)
    assert set(reported) == {"health/grad_norm_discriminator", "health/grad_norm_generator"}
    assert {n: v.item() for n, v in reported.items()} == pytest.approx(expected, rel=1e-5)
