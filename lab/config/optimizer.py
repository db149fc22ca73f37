"""Configuration of the optimizers."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval

from lab.config.architecture import Share
from lab.config.base import StrictConfig
from lab.config.bounds import ClipNorm, Epsilon, Factor, LearningRate, WeightDecay


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(StrictConfig):
    """Settings that all optimizers have: those of the official Adam, and gradient clipping.

    Attributes:
        lr: peak learning rate.
        clip_scope: gradients that are clipped together; `joint` clips the norm of both networks'
            gradient, as the official code does; `per_network` clips each network's gradient
            separately. The two differ in clipping only, because Adam updates each weight
            independently.
        generator_lr: ratio of the generator's learning rate to `lr`; applies to the weights that
            the generator does not share with the discriminator.
        beta1: decay rate of Adam's running mean of the gradient.
        beta2: decay rate of Adam's running mean of the squared gradient.
        eps: constant added to the root of Adam's running mean of the squared gradient.
        weight_decay: decoupled weight decay; not applied to biases and LayerNorm.
        clip: largest norm of the gradient; larger gradients are scaled down to it.
    """

    lr: LearningRate = 1e-3
    clip_scope: Literal["joint", "per_network"] = "joint"
    generator_lr: Factor = 1.0
    beta1: Share = 0.9
    beta2: Share = 0.98
    eps: Epsilon = 1e-6
    weight_decay: WeightDecay = 0.01
    clip: ClipNorm = 1.0


@dataclass(frozen=True, kw_only=True)
class AdamConfig(OptimizerConfig):
    """Adam as in the official `optimization.py`: decoupled weight decay, no bias correction."""

    kind: Literal["adam"] = "adam"


@dataclass(frozen=True, kw_only=True)
class AdamWConfig(OptimizerConfig):
    """AdamW with bias correction, one optimizer for each network, as `torch.optim.AdamW`.

    Each network has its own number of updates, from which the bias correction follows, and by
    default its gradient is clipped separately. Weights that the networks share belong to the
    discriminator's optimizer.

    Attributes:
        clip_scope: gradients that are clipped together; `joint` clips the norm of both networks'
            gradient, `per_network` clips each network's gradient separately.
    """

    kind: Literal["adamw"]
    clip_scope: Literal["joint", "per_network"] = "per_network"


@dataclass(frozen=True, kw_only=True)
class MuonConfig(OptimizerConfig):
    """Muon for the weight matrices of the transformer blocks, and Adam for all other weights.

    Muon updates query, key, value, attention output and the two matrices of the feed-forward
    network. Adam updates embedding tables, heads, biases and LayerNorm. The FLOPs of the
    orthogonalization count towards the budget.

    Attributes:
        hidden_lr: ratio of the learning rate of the matrices that Muon updates to `lr`.
        momentum: decay rate of Muon's running mean of the gradient (Nesterov momentum).
        iterations: number of Newton-Schulz iterations of each Muon update.
    """

    kind: Literal["muon"]
    hidden_lr: Factor = 4.0
    momentum: Share = 0.95
    iterations: Annotated[int, Interval(ge=1, le=10)] = 5


AnyOptimizerConfig = AdamConfig | AdamWConfig | MuonConfig
