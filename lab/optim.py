"""The official optimizer (`model/optimization.py`): Adam without bias correction.

torch's AdamW corrects the bias and cannot be told not to, so the update is written out. Decay
is decoupled and spares biases and LayerNorm.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from lab.objectives import Objective
from lab.spec import Optim


class Adam(Optimizer):
    """theta -= lr (m / (sqrt(v) + eps) + decay theta), with m and v uncorrected."""

    def __init__(self, groups: Iterable[dict[str, Any]], settings: Optim) -> None:
        super().__init__(groups, {"lr": settings.lr})
        self._settings = settings

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """Update every parameter that has a gradient."""
        settings = self._settings
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue  # torch._foreach refuses an empty list
            for parameter in parameters:
                if not self.state[parameter]:
                    self.state[parameter]["mean"] = torch.zeros_like(parameter)
                    self.state[parameter]["square"] = torch.zeros_like(parameter)
            gradients = [p.grad for p in parameters]
            means = [self.state[p]["mean"] for p in parameters]
            squares = [self.state[p]["square"] for p in parameters]
            torch._foreach_lerp_(means, gradients, 1 - settings.beta1)
            torch._foreach_mul_(squares, settings.beta2)
            torch._foreach_addcmul_(squares, gradients, gradients, 1 - settings.beta2)
            divisors = torch._foreach_sqrt(squares)
            torch._foreach_add_(divisors, settings.eps)
            # One update from the old weights: decay and gradient step are added, as officially.
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_addcdiv_(parameters, means, divisors, -group["lr"])


def build(objective: Objective, settings: Optim) -> Adam:
    """Return the optimizer; its groups carry `peak`, the rate that a schedule multiplies."""
    groups = []
    for network, parameters in objective.networks().items():
        peak = settings.lr * (settings.generator_lr if network == "generator" else 1.0)
        for decays in (True, False):
            chosen = [p for p in parameters if (p.ndim > 1) is decays]
            decay = settings.weight_decay if decays else 0.0
            groups.append({"params": chosen, "peak": peak, "lr": peak, "weight_decay": decay})
    return Adam(groups, settings)


def set_rate(optimizer: Adam, multiplier: float) -> None:
    """Set every group's rate to `multiplier` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * multiplier


def clip(objective: Objective, settings: Optim) -> dict[str, torch.Tensor]:
    """Scale the joint gradient, or that of each network, to a norm of at most `settings.clip`.

    Returns:
        The norm of each learning network's gradient before that, as
        `health/grad_norm_<network>`.
    """
    gradients = {
        network: [p.grad for p in parameters if p.grad is not None]
        for network, parameters in objective.networks().items()
    }
    gradients = {network: own for network, own in gradients.items() if own}  # the frozen have none
    norms = {
        network: nn.utils.get_total_norm(own, foreach=True) for network, own in gradients.items()
    }
    joint = torch.linalg.vector_norm(torch.stack(list(norms.values())))
    for network, own in gradients.items():
        norm = joint if settings.networks == "coupled" else norms[network]
        torch._foreach_mul_(own, settings.clip / norm.clamp(min=settings.clip))
    return {f"health/grad_norm_{network}": norm for network, norm in norms.items()}
