"""Optimizers: the official Adam (`model/optimization.py`), AdamW, and Muon for hidden matrices.

The official Adam has no bias correction. torch's fused AdamW kernel applies none if the step is
infinite, so it is called with an infinite step. AdamW calls it with the number of updates of each
parameter. Weight decay is decoupled and does not apply to biases and LayerNorm. Muon's update
equals `torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`; a test compares the two. It is
implemented here because torch processes the matrices one by one in bfloat16: at width 64 that takes
three times as long on a CPU core as one batched product for all matrices of one shape
(reports/LOG.md).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lab.config.optimizer import AdamWConfig, MuonConfig, OptimizerConfig
from lab.config.schedules.phases import UpdatedNetworks
from lab.training.model import Block
from lab.training.objectives.base import Objective
from lab.training.parametrization import WidthScale, width_scales

# Quintic Newton-Schulz iteration (Jordan et al., 2024), the defaults of torch.optim.Muon.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_LEAST_NORM = 1e-7
_UPDATE_RMS = 0.2  # match_rms_adamw (Liu et al., 2025, arXiv 2502.16982)


class Adam(Optimizer):
    """Adam without bias correction: theta -= lr (m / (sqrt(v) + eps) + decay theta)."""

    def __init__(self, groups: Iterable[dict[str, Any]], settings: OptimizerConfig) -> None:
        super().__init__(groups, {"lr": settings.lr})
        self._settings = settings

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._update(group, parameters)

    def _update(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        settings = self._settings
        gradients = [p.grad for p in parameters if p.grad is not None]
        means, squares = (self._moments(parameters, name) for name in ("mean", "square"))
        # As in the official code, both the decay and the gradient term use the old weights. The
        # kernel requires that a gradient has the strides of its parameter; autograd ensures this.
        torch._fused_adamw_(
            parameters, gradients, means, squares, [], self._steps(parameters),
            lr=group["lr"], beta1=settings.beta1, beta2=settings.beta2,
            weight_decay=group["weight_decay"], eps=settings.eps,
            amsgrad=False, maximize=False,
        )  # fmt: skip

    def _steps(self, parameters: list[Tensor]) -> list[Tensor]:
        """Return the number t of updates of each parameter for the bias correction.

        The kernel divides m by 1 - beta1^t and v by 1 - beta2^t, which are 1 at an infinite t.
        """
        return [torch.full((), torch.inf, device=parameters[0].device)] * len(parameters)

    def _moments(self, parameters: list[Tensor], name: str) -> list[Tensor]:
        """Return the named moment of each parameter; zeros before the first update."""
        for parameter in parameters:
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros_like(parameter)
        return [self.state[parameter][name] for parameter in parameters]


class AdamW(Adam):
    """AdamW with bias correction; the number of updates is counted for each parameter.

    A network that a step does not update has no gradient, so its count does not change. The result
    is that of one `torch.optim.AdamW` for each network.
    """

    def _steps(self, parameters: list[Tensor]) -> list[Tensor]:
        for parameter in parameters:
            if "updates" not in self.state[parameter]:
                self.state[parameter]["updates"] = torch.zeros((), device=parameter.device)
        counts = [self.state[parameter]["updates"] for parameter in parameters]
        torch._foreach_add_(counts, 1)
        return counts


class Muon(Adam):
    """Muon for the parameter groups marked `hidden`, Adam for the others.

    theta -= lr (.2 sqrt(max(rows, columns)) orthogonalize(m) + decay theta), where m is the
    Nesterov momentum.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], settings: MuonConfig) -> None:
        super().__init__(groups, settings)
        self._momentum, self._iterations = settings.momentum, settings.iterations

    def _update(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        if not group["hidden"]:
            super()._update(group, parameters)
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        momenta = self._moments(parameters, "momentum")
        torch._foreach_lerp_(momenta, gradients, 1 - self._momentum)
        updates = torch._foreach_lerp(gradients, momenta, self._momentum)
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        for indices in _group_by_shape(updates):
            stacked = torch.stack([updates[i] for i in indices])
            directions = orthogonalize(stacked, self._iterations)
            scale = group["lr"] * _UPDATE_RMS * max(directions.shape[1:]) ** 0.5
            torch._foreach_add_([parameters[i] for i in indices], directions.unbind(), alpha=-scale)


def _group_by_shape(matrices: Sequence[Tensor]) -> Iterable[list[int]]:
    """Return the indices of the matrices of each shape."""
    indices = defaultdict(list)
    for index, matrix in enumerate(matrices):
        indices[matrix.shape].append(index)
    return indices.values()


def orthogonalize(matrices_NRC: Tensor, iterations: int) -> Tensor:
    """Return matrices with the same singular vectors and with singular values near 1.

    Args:
        matrices_NRC: N matrices with R rows and C columns.
        iterations: number of quintic Newton-Schulz iterations.

    Returns:
        Shape (N, R, C).
    """
    a, b, c = _COEFFICIENTS
    is_tall = matrices_NRC.shape[1] > matrices_NRC.shape[2]
    x = matrices_NRC.mT if is_tall else matrices_NRC
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=_LEAST_NORM)
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


def build_optimizer(objective: Objective, settings: OptimizerConfig) -> Adam:
    """Return the optimizer; `peak` of each parameter group is its rate at schedule value 1."""
    matrices = _hidden_matrices(objective) if isinstance(settings, MuonConfig) else set()
    scales = width_scales(objective, objective.parametrization)
    groups = []
    for network, parameters in objective.networks().items():
        peak = settings.lr * (settings.generator_lr if network == "generator" else 1.0)
        hidden = [p for p in parameters if id(p) in matrices]
        others = [p for p in parameters if id(p) not in matrices]
        if isinstance(settings, MuonConfig):
            for factor, members in _by_factor(hidden, lambda p: scales.get(p, WidthScale()).muon):
                rate = peak * settings.hidden_lr * factor
                groups.append(_group(members, rate, settings.weight_decay))
                groups[-1]["hidden"] = True
        for has_decay in (True, False):
            of_kind = [p for p in others if (p.ndim > 1) is has_decay]
            decay = settings.weight_decay if has_decay else 0.0
            for factor, members in _by_factor(of_kind, lambda p: scales.get(p, WidthScale()).adam):
                groups.append(_group(members, peak * factor, decay))
    match settings:
        case MuonConfig():
            return Muon(groups, settings)
        case AdamWConfig():
            return AdamW(groups, settings)
        case _:
            return Adam(groups, settings)


def _by_factor(
    parameters: Iterable[nn.Parameter], factor: Callable[[nn.Parameter], float]
) -> list[tuple[float, list[nn.Parameter]]]:
    """Return the parameters of each factor of the learning rate."""
    members = defaultdict(list)
    for parameter in parameters:
        members[factor(parameter)].append(parameter)
    return list(members.items())


def _group(parameters: list[nn.Parameter], peak: float, decay: float) -> dict[str, Any]:
    return {"params": parameters, "peak": peak, "lr": peak, "weight_decay": decay, "hidden": False}


def _hidden_matrices(objective: Objective) -> set[int]:
    """Return the `id` of each weight matrix inside the blocks of all networks."""
    blocks = [module for module in objective.modules() if isinstance(module, Block)]
    linears = [part for block in blocks for part in block.modules() if isinstance(part, nn.Linear)]
    return {id(linear.weight) for linear in linears}


def set_rate(optimizer: Adam, multiplier: float) -> None:
    """Set the learning rate of each parameter group to `multiplier` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * multiplier


def clip_gradients(
    objective: Objective,
    settings: OptimizerConfig,
    updates: UpdatedNetworks = UpdatedNetworks.ALL,
) -> dict[str, torch.Tensor]:
    """Clip the gradient norm to `settings.clip`, jointly or for each network (`clip_scope`).

    Args:
        objective: objective with its gradients.
        settings: settings of the clipping.
        updates: networks that the step updates. The gradient of weights that the networks share
            counts towards the one network that is updated, or else towards the one of `encoder`.

    Returns:
        Norm of the gradient of each updated network before clipping, by
        `health/grad_norm_<network>`.
    """
    networks = objective.networks()
    if updates is not UpdatedNetworks.ALL:
        networks = {updates.value: list(chain.from_iterable(networks.values()))}
    gradients = {
        network: [p.grad for p in parameters if p.grad is not None]
        for network, parameters in networks.items()
    }
    gradients = {
        network: own for network, own in gradients.items() if own
    }  # frozen networks have no gradient
    norms = {
        network: torch.linalg.vector_norm(torch.stack(torch._foreach_norm(own)))
        for network, own in gradients.items()
    }
    joint = torch.linalg.vector_norm(torch.stack(list(norms.values())))
    for network, own in gradients.items():
        norm = joint if settings.clip_scope == "joint" else norms[network]
        torch._foreach_mul_(own, settings.clip / norm.clamp(min=settings.clip))
    return {f"health/grad_norm_{network}": norm for network, norm in norms.items()}
