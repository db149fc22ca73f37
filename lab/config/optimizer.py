"""Settings of the optimizers, as a search space writes them."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval

from lab.config.architecture import Share
from lab.config.base import StrictConfig


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(StrictConfig):
    """What all optimizers have: the official Adam's settings, and how networks are clipped.

    Attributes:
        lr: peak learning rate.
        clip_scope: `joint`, one optimizer of both networks, which clips their joint gradient, as
            officially; `per_network`, one of each, which clips its own. Adam treats every weight
            alone, so the clip is all that tells them apart.
        generator_lr: ratio of the generator's rate to `lr`, for the weights it shares with none.
        beta1: decay of the gradient's mean.
        beta2: decay of the gradient's square.
        eps: added to the root of the square.
        weight_decay: on matrices; not on biases and LayerNorm.
        clip: largest norm of the gradient, joint or of each network.
    """

    lr: Annotated[float, Gt(0)] = 1e-3
    clip_scope: Literal["joint", "per_network"] = "joint"
    generator_lr: Annotated[float, Gt(0)] = 1.0
    beta1: Share = 0.9
    beta2: Share = 0.98
    eps: Annotated[float, Gt(0)] = 1e-6
    weight_decay: Annotated[float, Ge(0)] = 0.01
    clip: Annotated[float, Gt(0)] = 1.0


@dataclass(frozen=True, kw_only=True)
class AdamConfig(OptimizerConfig):
    """Adam as the official `optimization.py`: no bias correction, decoupled decay, one clip."""

    kind: Literal["adam"] = "adam"


@dataclass(frozen=True, kw_only=True)
class MuonConfig(OptimizerConfig):
    """Muon for the weight matrices inside the blocks; for all other weights Adam as above.

    The hidden matrices are query, key, value, attention output and both of the feed-forward
    network. Tables, heads, biases and LayerNorm are Adam's. The FLOPs of the orthogonalization
    are part of a step's count.

    Attributes:
        hidden_lr: ratio of the hidden matrices' rate to `lr`.
        momentum: decay of the gradient's mean (Nesterov's form).
        iterations: Newton-Schulz iterations of each update.
    """

    kind: Literal["muon"]
    hidden_lr: Annotated[float, Gt(0)] = 4.0
    momentum: Share = 0.95
    iterations: Annotated[int, Interval(ge=1, le=10)] = 5


AnyOptimizerConfig = AdamConfig | MuonConfig
